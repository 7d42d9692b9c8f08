"""A network opened with OpenVINO, on a device and in numbers that are seen to be those asked for.

OpenVINO takes hints. On a processor with instructions for bf16 it computes an fp32 network in bf16 unless told
otherwise, and in bf16 where fp16 was asked for, each without a word (seen with 2026.4 on an AMD EPYC).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linne.errors import DeviceError, LinneError, suggest
from linne.graphs.pieces import pieces_of
from linne.graphs.wire import require_whole
from linne.host import processes_here, usable_cores
from linne.preprocess import Floats, UInt8

INSTALL = "pip install 'linne[openvino]'"
CPU = "CPU"
DEVICES: Mapping[str, str] = {"cpu": CPU, "gpu": "GPU", "xpu": "GPU", "npu": "NPU"}
"""By what `--device` calls them; `xpu` is torch's word for Intel's GPUs."""
NUMBERS: Mapping[str, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
"""OpenVINO's names for what a precision computes in; of int8 those of the layers that are not quantised."""
MAX_COMPILED = 2
"""Batch sizes for which a network is kept compiled: the usual one, and that of the last batch."""
MAIN, WEIGHTS = "model.xml", "model.bin"


def why_no_openvino() -> str | None:
    """Return why OpenVINO cannot be imported, or None."""
    try:
        import openvino
    except (ImportError, OSError) as error:
        return f"openvino cannot be imported ({error}); {INSTALL}"
    return None if hasattr(openvino, "Core") else f"the package openvino has no Core; {INSTALL}"


class OpenVinoModel:
    """A compiled network with one image input: a batch in, its first output out."""

    def __init__(
        self,
        network: bytes | Path,
        name: str,
        *,
        device: str = "auto",
        precision: str = "fp32",
        require_accelerator: bool = False,
        num_threads: int | None = None,
        hint: str = "latency",
        fixed_batch: bool = False,
    ) -> None:
        """Open `network`, called `name` in errors.

        Args:
            network: an ONNX file's content, or the .xml of OpenVINO's own format with its .bin beside it.
            num_threads: of the CPU; None for this process's share of those it may use.
            hint: `latency`, or `throughput`: several parts of a batch at the same time.
            fixed_batch: whether to compile for each batch size, of which `MAX_COMPILED` are kept.

        Raises:
            LinneError: it cannot be read, or keeps tensors in other files.
            DeviceError: the device cannot be used, or computes in other numbers.
        """
        import openvino

        if isinstance(network, bytes):
            require_whole(network, name)
        core = the_core()
        try:
            if isinstance(network, bytes):
                self._model: Any = core.read_model(network)
            else:
                self._model = core.read_model(network, network.with_suffix(".bin"))
        except Exception as error:  # its own kinds
            raise LinneError(f"`{name}` cannot be read by OpenVINO {_version(openvino)}: {_said(error)}") from error
        self.name = name
        self._core = core
        shape = self._model.inputs[0].get_partial_shape()
        self.batch_size: int | None = None if shape[0].is_dynamic else shape[0].get_length()
        """How many images it takes at once; None for any number."""
        self._fixed = fixed_batch
        self._settings = {"PERFORMANCE_HINT": hint.upper()}
        self._num_threads = num_threads or max(usable_cores() // processes_here(), 1)
        self._numbers = NUMBERS[precision]
        self._compiled: dict[int | None, list[Any]] = {}
        listed = [str(found) for found in core.available_devices]
        self.device, passed_over = self._open(_candidates(device, listed, require_accelerator), listed)
        how = "" if precision == "fp32" else f" in {precision}"
        self.notes = tuple(f"`{name}` runs on the {self.device}, {reason}" for reason in passed_over)
        """Of what a person should know: which accelerator is not used."""
        self.description = f"openvino {_version(openvino)} on {self.device}{how}"

    def run(self, images: Floats | UInt8) -> Floats:
        """Return the first output for a batch of images, of the kind of number that it takes, one row each.

        Raises:
            LinneError: OpenVINO fails on it.
        """
        if len(images) == 0:
            raise LinneError(f"`{self.name}` was given no image")
        size = self._size_for(len(images))
        try:
            requests = self._requests(size)
            if size is None:
                pieces = np.array_split(images, min(len(requests), len(images)))
            else:
                pieces = pieces_of(images, size)
            answers: list[Floats] = []
            for start in range(0, len(pieces), len(requests)):
                # What is given is not copied, so the piece has to last until its request is done.
                given = [np.ascontiguousarray(piece) for piece in pieces[start : start + len(requests)]]
                busy = list(zip(requests, given, strict=False))
                for request, piece in busy:
                    request.start_async({0: piece}, share_inputs=True)
                for request, _ in busy:
                    request.wait()
                    answers.append(np.array(request.get_output_tensor(0).data, dtype=np.float32))
        except DeviceError:
            raise
        except Exception as error:  # its own kinds
            raise LinneError(f"`{self.name}` fails in OpenVINO: {_said(error)}") from error
        return np.concatenate(answers)[: len(images)]

    def _open(self, candidates: Sequence[str], listed: Sequence[str]) -> tuple[str, list[str]]:
        """Return the first device that the network can be compiled for, and why not those before."""
        passed_over: list[str] = []
        for candidate in candidates:
            self.device = candidate
            try:
                if candidate.partition(".")[0] not in {found.partition(".")[0] for found in listed}:
                    names = ", ".join(listed) or "no device"
                    raise DeviceError(
                        f"OpenVINO lists no {candidate} here, but {names}",
                        hint="`linne doctor` says what is missing; an Intel GPU or NPU needs its driver",
                    )
                # Where every batch size is compiled for, one image shows as much as any.
                self._requests(self._size_for(1))
            except DeviceError as error:
                if candidate == candidates[-1]:
                    raise
                passed_over.append(f"not {candidate}: {error.message}")
            else:
                return candidate, passed_over
        raise AssertionError("there is always a candidate")

    def _size_for(self, count: int) -> int | None:
        """Return how many images a request takes where `count` are to be answered; None for any number."""
        if self.batch_size is not None:
            return self.batch_size
        # An NPU has nothing but fixed shapes.
        if not self._fixed and not self.device.startswith("NPU"):
            return None
        streams = max((len(requests) for requests in self._compiled.values()), default=1)
        return math.ceil(count / streams)

    def _requests(self, size: int | None) -> list[Any]:
        """Return the requests that run at the same time for `size` images each, compiled where they are not yet."""
        known = self._compiled.pop(size, None)
        if known is None:
            compiled = self._compile(size)
            count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            latency = self._settings["PERFORMANCE_HINT"] == "LATENCY"
            known = [compiled.create_infer_request() for _ in range(1 if latency else max(count, 1))]
            while len(self._compiled) >= MAX_COMPILED:
                del self._compiled[next(iter(self._compiled))]
        self._compiled[size] = known  # the last used is the last to go
        return known

    def _compile(self, size: int | None) -> Any:
        model, settings = self._model, {**self._settings, "INFERENCE_PRECISION_HINT": self._numbers}
        if self.device == CPU:
            settings["INFERENCE_NUM_THREADS"] = str(self._num_threads)
        try:
            if size is not None and self.batch_size is None:
                model = self._model.clone()
                shape = model.inputs[0].get_partial_shape()
                shape[0] = size
                model.reshape(shape)
            compiled = self._core.compile_model(model, self.device, settings)
            runs_on = [str(found) for found in compiled.get_property("EXECUTION_DEVICES")]
            numbers = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        except Exception as error:  # its own kinds
            raise DeviceError(
                f"OpenVINO cannot compile `{self.name}` for {self.device}: {_said(error)}",
                hint="`linne doctor` tries each device and says what is missing",
            ) from error
        if not runs_on or not all(_is(found, self.device) for found in runs_on):
            raise DeviceError(f"OpenVINO runs `{self.name}` on {', '.join(runs_on) or 'nothing'}, not on {self.device}")
        if numbers != self._numbers:
            raise DeviceError(
                f"OpenVINO would compute `{self.name}` in {numbers} on {self.device}, not in {self._numbers}",
                hint="the device has no instructions for it: use another --precision",
            )
        return compiled


def to_ir(network: bytes, name: str, folder: Path, *, fp16: bool) -> str:
    """Return the name of the main one of two files in OpenVINO's own format, written to `folder`.

    Nothing is sent anywhere: that is done by OpenVINO's converter, which is not used.

    Args:
        network: an ONNX file's content, called `name` in errors.
        fp16: whether weights are stored in fp16; what is computed in is said when it is opened.

    Raises:
        LinneError: it cannot be read, or keeps tensors in other files.
    """
    import openvino

    require_whole(network, name)
    try:
        openvino.save_model(the_core().read_model(network), folder / MAIN, compress_to_fp16=fp16)
    except Exception as error:  # its own kinds
        raise LinneError(f"`{name}` cannot be written for OpenVINO {_version(openvino)}: {_said(error)}") from error
    return MAIN


@functools.cache
def the_core() -> Any:
    """Return OpenVINO itself, the same for the whole process.

    Each `Core` sets the stack on which signals are handled, and puts back the one before when it goes. Where two of
    them overlap, that is one which is gone: the next Ctrl-C ends the process by SIGSEGV (OpenVINO 2026.4, on a
    processor with AVX-512).
    """
    import openvino

    return openvino.Core()


def _candidates(device: str, listed: Sequence[str], require_accelerator: bool) -> list[str]:
    """Return OpenVINO's names of the devices to try, in order.

    Raises:
        DeviceError: OpenVINO has no such device, or an accelerator is required and it is none.
    """
    if device == "auto":
        found = [name for name in listed if name.startswith("GPU")][:1]
        found += [] if require_accelerator else [CPU]
        if not found:
            names = ", ".join(listed) or "no device"
            raise DeviceError(f"an accelerator is required, and OpenVINO lists no GPU here, but {names}")
        return found
    word, _, number = device.partition(":")
    if word not in DEVICES or (number and (word == "cpu" or not number.isdecimal())):
        known = ", ".join(DEVICES)
        raise DeviceError(
            f"OpenVINO has no device `{device}`", hint=suggest(device, DEVICES) or f"it runs on {known}, as in gpu:1"
        )
    if require_accelerator and word == "cpu":
        raise DeviceError("an accelerator is required, and `--device cpu` is the CPU")
    return [DEVICES[word] + (f".{number}" if number else "")]


def _is(found: str, asked: str) -> bool:
    """Return whether the device `found` is the one `asked` for, which may leave out its number."""
    return found == asked or found.partition(".")[0] == asked


def _version(openvino: Any) -> str:
    return str(openvino.__version__).partition("-")[0]  # 2026.4.1-22982-e213a147257-releases/2026/4


def _said(error: Exception) -> str:
    """Return what OpenVINO says in an error, without the places in its source before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[0][:300]
