"""What the samples do wrong, what linne does instead, and when it matters: the table of `--defects`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linne.compat.directml.programs import AUXILIARY, Options


@dataclass(frozen=True, slots=True)
class Defect:
    """One fault of the samples."""

    theirs: str
    ours: str
    matters: str
    faithful: bool = False
    """Whether `--faithful` computes as the samples do."""
    kept: bool = False
    """Whether linne does the same, and only says so."""

    @property
    def with_faithful(self) -> str:
        """What becomes of it with `--faithful`, in a word or two."""
        if self.kept:
            return "kept"
        return "as the samples" if self.faithful else "corrected"


DEFECTS: Mapping[str, Defect] = {
    "evaluation mode": Defect(
        "train in evaluation mode from epoch 2 on: the first test switches to it, nothing switches back",
        "trains in training mode in every epoch",
        "more than one epoch: dropout and batch statistics",
        faithful=True,
    ),
    "optimiser": Defect(
        "make a new optimiser each epoch, which forgets its momentum",
        "keeps one optimiser for the whole run",
        "more than one epoch",
        faithful=True,
    ),
    "two forwards": Defect(
        "run the network twice a step and throw the first answer away",
        "runs it once a step",
        "all networks but inception_v3 and googlenet: time; with dropout, also which units drop",
        faithful=True,
    ),
    "batch norm": Defect(
        "update the running statistics of batch norm twice a step, by those two runs",
        "updates them once a step",
        "networks with batch norm: as with a momentum of 0.19 instead of 0.1",
        faithful=True,
    ),
    "auxiliary": Defect(
        "fail in epoch 2 with inception_v3 and googlenet, which give one answer in evaluation mode",
        "trains them as long as is asked for",
        "these two, more than one epoch; --faithful refuses them there",
        faithful=True,
    ),
    "padding": Defect(
        "resize test images to 256 pixels and pad them with zeros to 299",
        "resizes to 342 and crops to 299",
        "inception_v3",
        faithful=True,
    ),
    "loss": Defect(
        "average the losses of batches, in which a short last batch counts as much as a full one",
        "averages over images, and says the other number where it differs",
        "a test set that batch_size does not divide",
        faithful=True,
    ),
    "best accuracy": Defect(
        "begin with a best accuracy of 0 when they go on from a checkpoint, so that a worse epoch 1 replaces it",
        "measures the checkpoint first, and replaces it only by a better one",
        "--save_model, the second time",
        faithful=True,
    ),
    "crop": Defect(
        "cut one pixel out of the image to predict, at which squeezenet, alexnet, vgg16 and others fail",
        "resizes to 256 and cuts out 224 (inception_v3: 342 and 299), as for testing",
        "every prediction",
        faithful=True,
    ),
    "names": Defect(
        "name the ten classes of CIFAR-10 by the first ten of ImageNet, tench to ostrich",
        "names them as CIFAR-10 does, airplane to truck",
        "every prediction",
        faithful=True,
    ),
    "random weights": Defect(
        "test and predict with random weights, in silence, where there is no checkpoint",
        "is an error",
        "test and predict before a train --save_model; --faithful and test --trace go on, and say so",
        faithful=True,
    ),
    "checkpoint": Defect(
        "load a checkpoint that they find without a word",
        "loads it too, and says which",
        "train, test and predict after a train --save_model",
    ),
    "unpickling": Defect(
        "read it with torch.load, which can run what a stranger put there",
        "reads tensors and nothing else",
        "a checkpoint from elsewhere",
    ),
    "data": Defect(
        "read CIFAR-10 from pickled files",
        "reads its binary files, from the same folder; `dataset` fetches those",
        "a folder that the samples' dataset.py filled: fetch it again",
    ),
    "test.py": Defect(
        "test resnet50 whatever --model says (torchvision_classification)",
        "tests --model",
        "test --model",
    ),
    "no trace": Defect(
        "cannot run test_classification.py: an argument is missing",
        "runs",
        "test --sample classification",
    ),
    "no model": Defect(
        "take an empty --model, and fail with `Model  is not supported yet!` (train_classification.py)",
        "says that it is missing, and which there are",
        "--sample classification without --model",
    ),
    "device": Defect(
        "take the CPU, in silence, for xpu, mps, cuda:1 or a misspelt device, or where there is no CUDA",
        "is an error with the way out",
        "train_classification.py",
    ),
    "device folder": Defect(
        "keep checkpoints of `cuda` and `cuda:0` apart, and cannot make a folder `cuda:0` on Windows",
        "keeps both in cuda:0; on Windows it is cuda-0",
        "--device cuda: a checkpoint in the folder `cuda` is not looked for",
    ),
    "flags": Defect(
        "take every text after --trace and --ci_train for true, also False",
        "takes True and False for what they say, and the flag alone for True",
        "--trace False",
    ),
    "moving": Defect(
        "time nothing in `Finished moving`: the clock starts after the work",
        "times it",
        "the number in that line",
    ),
    "image modes": Defect(
        "fail on grey images and on those with transparency, and do not turn photographs upright",
        "makes any image upright RGB",
        "predict --image, with --faithful too",
    ),
    "pedestrians": Defect(
        "answer `Invalid file` to whatever goes wrong with PennFudanPed, and end as if nothing had",
        "prints it for an archive that is none, says why, and ends with exit code 1",
        "dataset",
    ),
    "imports": Defect(
        "need torch_directml, matplotlib and wget whatever the device",
        "needs torch_directml with --device dml, the others never",
        "every machine without them",
    ),
    "selection": Defect(
        "choose the epoch to keep by the test images, whose accuracy is then too high",
        "does the same: it is what the last line means; `linne train` holds images out for it",
        "--save_model, and the last line",
        kept=True,
    ),
    "seed": Defect(
        "have no seed: no run can be repeated",
        "has --seed, 0 unless typed",
        "every run",
    ),
    "trace": Defect(
        "show the CPU's times alone, which for an asynchronous device are times of asking, not of computing",
        "prints the same table; `linne trace` shows the device's times",
        "--trace on an accelerator",
        kept=True,
    ),
}


def text() -> str:
    """Return the table for people: a paragraph a fault."""
    lines = [f"{len(DEFECTS)} faults of the samples. With --faithful, those marked `as the samples` come back."]
    for name, defect in DEFECTS.items():
        lines += ["", f"{name} (with --faithful: {defect.with_faithful})"]
        lines += [
            f"  the samples  {defect.theirs}",
            f"  linne        {defect.ours}",
            f"  matters for  {defect.matters}",
        ]
    return "\n".join(lines)


def met_in_training(options: Options, *, test_count: int, has_batch_norm: bool) -> list[str]:
    """Return the faults that this training would have with the samples, and has or has not here."""
    whole = not options.trace and not options.ci_train
    several = whole and options.epochs > 1
    auxiliary = options.network in AUXILIARY
    met = {
        "evaluation mode": several,
        "optimiser": several,
        "two forwards": not auxiliary and not options.trace,
        "batch norm": not auxiliary and not options.trace and has_batch_norm,
        "auxiliary": several and auxiliary,
        **_met_in_test(options, test_count),
    }
    return [name for name, is_met in met.items() if is_met]


def met_in_test(options: Options, *, test_count: int) -> list[str]:
    """Return the same for a test."""
    met = _met_in_test(options, test_count)
    met["test.py"] = options.sample == "torchvision_classification" and options.network != "resnet50"
    return [name for name, is_met in met.items() if is_met]


def _met_in_test(options: Options, test_count: int) -> dict[str, bool]:
    measures = not options.trace and not options.ci_train
    return {
        "padding": measures and options.network == "inception_v3",
        "loss": measures and test_count > options.batch_size and test_count % options.batch_size != 0,
    }


def lines(names: Sequence[str], *, faithful: bool) -> list[str]:
    """Return a sentence for each fault that makes a run differ from the samples', or with `faithful` keeps it alike."""
    said = []
    for name in names:
        defect = DEFECTS[name]
        if faithful and defect.faithful:
            said.append(f"faithful: the samples {defect.theirs}")
        else:
            said.append(f"corrected: the samples {defect.theirs}; linne {defect.ours}")
    return said
