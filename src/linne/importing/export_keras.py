"""A child process: Keras opens a model whose configuration was looked at, and exports it to ONNX.

    python -m linne.importing.export_keras HOME HEIGHT WIDTH OUTPUT

`HOME/model` is what was unpacked; height and width are 0 where nobody said them, the output's name empty.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from linne.child import said_of, say
from linne.importing.in_child import Refused, images_like, one_image, one_output

MOST_VALUES = 2**31
"""Numbers in one weights file: more make no ONNX file."""
MOST_PACKED = 100
"""Times that stored bytes may grow: Keras writes weights as they are, and trained ones hardly shrink."""
NEVER = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "pickle.find_class",
)
"""What Python reports before it does it, and what no export needs."""


def main(words: list[str]) -> None:
    """Export, and report `converted`, `refused` with why, or `failed` with the step and the error."""
    home, height, width, output = words
    step = "Keras cannot be loaded"
    try:
        import keras
        import torch

        fence(Path(home))
        step = "the weights cannot be read"
        require_plain(Path(home) / "model" / "model.weights.h5")
        step = f"Keras {keras.__version__} cannot open it"
        model: Any = keras.models.load_model(Path(home) / "model", compile=False, safe_mode=True)
        step = f"Keras {keras.__version__} cannot export it"
        require_one_input(model)
        shape = one_image(list(model.inputs[0].shape), int(height), int(width))
        # As in `predict`: with `training` unsaid, layers that augment images would go on doing so.
        images = keras.Input(shape, dtype=model.inputs[0].dtype, name="images")
        evaluated = keras.Model(images, chosen_output(model, output)(images, training=False))
        export(evaluated, Path(home) / "model.onnx")
        answers = [evaluated(image[None]) for image in images_like(shape)]
        values = [keras.ops.convert_to_numpy(answer).reshape(1, -1)[0].tolist() for answer in answers]
        versions = {"keras": keras.__version__, "torch": torch.__version__}
        say("converted", library="keras", versions=versions, sizes=shape, answers=values)
    except Refused as refused:
        say("refused", why=str(refused), hint=refused.hint)
    except Exception as error:  # whatever a library raises
        say("failed", step=step, error=said_of(error))


def export(model: Any, path: Path) -> None:
    """Write `model`, which has one input, for any number of images, or where Keras cannot, for one at a time.

    Keras 3.15 cannot with LayerNormalization and Xception: torch's older exporter, which it then takes, loses sizes.
    """
    import keras

    (images,) = model.inputs
    for batch in (None, 1):
        signature = [keras.InputSpec(shape=(batch, *images.shape[1:]), dtype=images.dtype, name="images")]
        try:
            model.export(path, format="onnx", input_signature=signature, verbose=False)
        except Exception:
            if batch is not None:
                raise
        else:
            return


def fence(home: Path) -> None:
    """Let this process from here on neither talk to others, start programs, nor write outside `home`.

    Python asks before it does; what is done in C is not asked about. So this is the second fence, and the list of
    classes is the first.
    """

    def ask(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(NEVER):
            raise PermissionError(f"a model wanted to `{event}`")
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & _WRITES:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path != os.devnull and not path.startswith(os.path.realpath(home) + os.sep):
                raise PermissionError(f"a model wanted to write `{path}`")

    sys.addaudithook(ask)


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def require_plain(path: Path) -> None:
    """Refuse an HDF5 file that leads to others, or claims more numbers than are stored in it."""
    import h5py

    total = 0
    with h5py.File(path, "r") as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                if type(group.get(name, getlink=True)) is not h5py.HardLink:
                    raise Refused(f"keeps weights behind a link (`{name}`), which is not followed")
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                    continue
                if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                    raise Refused(f"keeps weights in another file (`{item.name}`), which is not followed")
                if item.dtype.kind not in "fiub":
                    raise Refused(f"keeps something that is no number among its weights (`{item.name}`)")
                total += item.size or 0
                if total > MOST_VALUES or item.id.get_storage_size() * MOST_PACKED < item.nbytes:
                    raise Refused(f"claims {item.size:,} numbers for `{item.name}`, more than are stored")


def require_one_input(model: Any) -> None:
    """Refuse a model that takes anything but one batch of images, or that was never given its shapes."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise Refused("does not say the shape of its input", "save it after `model.build(...)`, or with an `Input`")
    if len(inputs) != 1:
        names = ", ".join(f"`{item.name}`" for item in inputs[:5])
        raise Refused(f"takes {len(inputs)} inputs ({names}), expected one, of images")


def chosen_output(model: Any, typed: str) -> Any:
    """Return `model` with one output, the one there is or the one `typed`."""
    import keras

    if len(model.outputs) == 1 and not typed:  # a Sequential's has no name
        return model
    place = one_output(list(getattr(model, "output_names", [])), typed)
    return keras.Model(model.inputs, model.outputs[place])


if __name__ == "__main__":
    main(sys.argv[1:])
