"""What the samples' command lines take, refuse and look for, without training."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.cifar10_samples import write_cifar10
from safetensors.torch import save_file

from linne.cli import cli
from linne.compat.directml import lines, networks
from linne.compat.directml.defects import DEFECTS
from linne.compat.directml.fetching import fetch_cifar10
from linne.compat.directml.loading import open_cifar10
from linne.compat.directml.programs import CI_MODELS, MODELS, Options, checkpoint_path, data_folder, flags
from linne.data.sources.cifar import CIFAR10
from linne.device import Device
from linne.errors import LinneError
from linne.log import Narrator


def invoke(*words):
    return CliRunner().invoke(cli, ["compat", "directml", *map(str, words)], prog_name="linne", standalone_mode=False)


def refusal(*words):
    """Return what a command that cannot be done raises."""
    ended = invoke(*words)
    assert isinstance(ended.exception, LinneError), ended.output
    return ended.exception


@pytest.fixture(autouse=True)
def _a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNE_OFFLINE", "1")


@pytest.mark.parametrize(
    ("program", "theirs"),
    [
        (
            "train",
            "path batch_size epochs learning_rate momentum weight_decay device model save_model trace ci_train",
        ),
        ("test", "path batch_size device model trace"),
        ("predict", "device model image"),
    ],
)
def test_every_flag_of_the_samples_is_there_under_its_name(program, theirs):
    assert [flag.name for flag in flags(program) if not flag.metadata.get("ours")] == theirs.split()


def test_the_defaults_are_the_samples():
    options = Options()
    assert (options.path, options.batch_size, options.epochs, options.device) == ("cifar-10-python", 32, 50, "dml")
    assert (options.learning_rate, options.momentum, options.weight_decay) == (0.001, 0.9, 0.0001)


def test_all_sixteen_networks_are_known_to_torchvision_and_fourteen_are_for_ci():
    from torchvision import models

    assert len(MODELS) == 16
    assert set(MODELS) <= set(models.list_models(module=models))
    assert set(MODELS) - set(CI_MODELS) == {"resnet50", "squeezenet1_1"}


def test_the_line_of_options_is_the_samples():
    assert Options(device="cpu", model="resnet50").line("train") == (
        "Namespace(batch_size=32, ci_train=False, device='cpu', epochs=50, learning_rate=0.001, model='resnet50', "
        "momentum=0.9, path='cifar-10-python', save_model=False, trace=False, weight_decay=0.0001)"
    )
    assert Options(image=Path("dog.png")).line("predict") == (
        "Namespace(device='dml', image='dog.png', model='squeezenet1_0')"
    )
    assert "ci_train" not in Options(sample="classification", model="vgg16").line("train")


def test_lines_have_the_samples_widths():
    assert lines.loss(2.2530093, 3200, 50_000, 15.150734) == "loss: 2.253009  [ 3200/50000] in 15.150734s"
    assert lines.one_batch(32, 50_000, 1.2345671) == "train [   32/50000] in 1.234567s"
    assert lines.highest(0.2856000065803528) == "current highest_accuracy:  0.2856000065803528"
    assert lines.test_error(0.2856, 1.862064) == "Test Error: \n Accuracy: 28.6%, Avg loss: 1.862064 \n"
    assert lines.done(0) == "Done! with highest_accuracy:  0"
    assert lines.answer("cat", 0.25) == "cat 0.25"


def test_relative_data_is_below_cv_data_and_absolute_data_where_it_is(tmp_path):
    assert data_folder("cifar-10-python") == tmp_path / "cv" / "data" / "cifar-10-python"
    assert data_folder(str(tmp_path / "mine")) == tmp_path / "mine"


def test_checkpoints_are_where_the_samples_keep_them_and_windows_gets_no_colon():
    where = Path("cv/checkpoints/resnet50")
    assert checkpoint_path("resnet50", "cpu") == where / "cpu" / "checkpoint.pth"
    assert checkpoint_path("resnet50", "privateuseone:0") == where / "dml" / "checkpoint.pth"
    assert checkpoint_path("resnet50", "cuda:0", "posix") == where / "cuda:0" / "checkpoint.pth"
    assert checkpoint_path("resnet50", "cuda:0", "nt") == where / "cuda-0" / "checkpoint.pth"


@pytest.mark.parametrize(
    ("sample", "model"),
    [("torchvision_classification", "squeezenet1_0"), ("resnet50", "resnet50"), ("squeezenet", "squeezenet1_1")],
)
def test_without_a_model_it_is_the_samples_own(sample, model):
    assert Options(sample=sample).network == model


def test_a_model_that_is_missing_misspelt_or_anothers_is_an_error():
    assert refusal("train", "--sample", "classification", "--device", "cpu").message == "`--model` is missing"
    misspelt = refusal("train", "--model", "resnet51", "--device", "cpu")
    assert misspelt.message == "model `resnet51` is not supported yet"
    assert misspelt.hint == "did you mean `resnet50`?"
    others = refusal("train", "--sample", "resnet50", "--model", "vgg16", "--device", "cpu")
    assert others.message == "the sample `resnet50` has no model but `resnet50`, found `vgg16`"


def test_a_device_that_is_not_there_is_an_error_with_the_way_out():
    missing = refusal("train")
    assert missing.message.startswith("device `dml` cannot be used: ")
    assert missing.hint.endswith("or --device cpu")
    assert refusal("train", "--device", "cup").message == "no device `cup`"


def test_numbers_that_cannot_be_meant_are_errors():
    assert refusal("train", "--epochs", 0, "--device", "cpu").message == "`--epochs` is 0, expected at least 1"
    assert refusal("train", "--trace_file", "t.json", "--device", "cpu").message == "`--trace_file` goes with `--trace`"
    refused = refusal("train", "--sample", "resnet50", "--ci_train", "--device", "cpu")
    assert refused.message == "the sample `resnet50` has no `--ci_train`"


def test_missing_data_is_an_error_that_says_what_fetches_it(tmp_path):
    missing = refusal("train", "--device", "cpu")
    assert missing.message == f"no folder `{tmp_path / 'cv' / 'data' / 'cifar-10-python'}`"
    assert missing.hint.startswith("type `linne compat directml dataset --dataset cifar10`")


def test_pickled_data_is_refused(tmp_path):
    folder = tmp_path / "cv" / "data" / "cifar-10-python" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"")
    assert "is the pickled version of `cifar10`" in refusal("train", "--device", "cpu").message


def test_faithful_networks_that_the_samples_cannot_train_twice_are_refused():
    refused = refusal("train", "--faithful", "--model", "googlenet", "--device", "cpu")
    assert refused.message == "the samples fail with `googlenet` in epoch 2, where they train in evaluation mode"
    assert refused.hint == "type --epochs 1, or leave out --faithful"


def test_inception_is_not_given_a_batch_of_one_image(tmp_path):
    write_cifar10(tmp_path / "data", per_file=5)
    words = ("train", "--model", "inception_v3", "--device", "cpu", "--path", tmp_path / "data")
    assert refusal(*words, "--batch_size", 3).message == (
        "`inception_v3` cannot train on a batch of one image, and 25 images in batches of 3 have one"
    )


def test_predict_needs_an_image():
    assert refusal("predict", "--device", "cpu").message == "`--image` is missing"


def test_without_weights_test_and_predict_say_what_makes_them(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python")
    other = tmp_path / checkpoint_path("squeezenet1_1", "privateuseone:0")
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    refused = refusal("test", "--device", "cpu", "--model", "squeezenet1_1")
    assert refused.message == (
        f"no checkpoint at `{Path('cv/checkpoints/squeezenet1_1/cpu/checkpoint.pth')}`, and random weights know nothing"
    )
    assert "train --model squeezenet1_1 --device cpu --save_model` first" in refused.hint
    assert "there are weights of it for --device dml" in refused.hint


def test_the_classification_sample_tests_resnet18_unless_told_otherwise(tmp_path):
    write_cifar10(tmp_path / "cv" / "data" / "cifar-10-python")
    refused = refusal("test", "--sample", "classification", "--device", "cpu")
    assert refused.message.startswith(f"no checkpoint at `{Path('cv/checkpoints/resnet18/cpu/checkpoint.pth')}`")


def test_the_defects_are_listed_each_with_what_linne_does_and_when_it_matters():
    ended = invoke("--defects")
    assert ended.exit_code == 0
    for name, defect in DEFECTS.items():
        assert f"\n{name} (with --faithful: {defect.with_faithful})\n" in ended.stdout
        assert all(text in ended.stdout for text in (defect.theirs, defect.ours, defect.matters))


def test_the_guide_lists_the_same_defects(repository):
    page = (repository / "docs/guides/directml-samples.md").read_text("utf-8")
    for defect in DEFECTS.values():
        assert f"| {defect.theirs} | {defect.ours} | {defect.matters} | {defect.with_faithful} |" in page


def test_dataset_takes_its_names_in_any_case_and_no_others(tmp_path):
    assert refusal("dataset", "--dataset", "mnist").message == "dataset `mnist` is not supported yet"
    assert "cifar-10-binary.tar.gz" in refusal("dataset", "--dataset", "CIFAR10").message, "offline"


def test_cifar10_that_was_brought_is_unpacked_where_train_looks_for_it_and_then_verified(tmp_path):
    names = [CIFAR10.official + "/" + name for name in CIFAR10.files]
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name in names:
            image = bytes(3073)
            info = tarfile.TarInfo(name)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    data = held.getvalue()
    download = replace(CIFAR10.downloads[0], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    tiny = replace(CIFAR10, downloads=(download,), counts={"train": 5, "test": 1})
    root = data_folder("cifar-10-python")
    (root / "cifar10").mkdir(parents=True)
    (root / "cifar10" / download.name).write_bytes(data)
    out = []
    fetch_cifar10(tiny, out.append, Narrator(quiet=True))
    assert [text.partition(" ")[0] for text in out] == ["Downloading", "Extracting"]
    fetch_cifar10(tiny, out.append, Narrator(quiet=True))
    assert out[2:] == ["Files already downloaded and verified"]
    assert len(open_cifar10("cifar-10-python")[0].splits["train"]) == 5


def test_a_checkpoint_is_read_from_its_twin_while_they_belong_together(tmp_path):
    path, saved, network = tmp_path / "new" / "checkpoint.pth", torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    networks.save(saved, path)
    networks.load(network, path, "linear")
    assert torch.equal(network.weight, saved.weight)
    # A file that no torch could read: only the twin holds these.
    path.write_bytes(b"not weights")
    twin = path.with_suffix(".safetensors")
    metadata = {"sha256 of checkpoint.pth": hashlib.sha256(b"not weights").hexdigest()}
    save_file({"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, twin, metadata=metadata)
    networks.load(network, path, "linear")
    assert torch.equal(network.weight, torch.ones(3, 2))
    # Another program wrote weights since: they count, and the twin does not.
    torch.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, path)
    networks.load(network, path, "linear")
    assert torch.equal(network.weight, torch.zeros(3, 2))


def test_safetensors_alone_are_a_checkpoint_for_a_torch_that_must_not_read_the_other():
    path = checkpoint_path("squeezenet1_1", "cpu").with_suffix(".safetensors")
    path.parent.mkdir(parents=True)
    weights = networks.build("squeezenet1_1").state_dict()
    save_file(weights, path)
    notes = []
    start = networks.start(Options(model="squeezenet1_1"), Device.pick("cpu"), notes.append)
    assert start.found
    assert notes == [f"weights from `{path}`"]
    assert all(torch.equal(value, weights[name]) for name, value in start.network.state_dict().items())


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3, 2), "made": Path("x")}, tmp_path / "checkpoint.pth")
    with pytest.raises(LinneError, match="holds more than tensors"):
        networks.load(torch.nn.Linear(2, 3), tmp_path / "checkpoint.pth", "linear")


def pedestrians(count=170):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for k in range(count):
            for folder in ("PNGImages", "PedMasks"):
                archive.writestr(f"PennFudanPed/{folder}/{k}.png", b"\x89PNG")
    return held.getvalue()


def test_pedestrians_that_were_brought_are_unpacked_counted_and_then_verified(tmp_path):
    archive = tmp_path / "cv" / "data" / "PennFudanPed.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(pedestrians())
    first = invoke("dataset", "--dataset", "PennFudanPed")
    assert first.stdout == "Downloading PennFundaPed dataset\n\n\nExtracted PennFundaPed dataset\n", first.exception
    assert archive.exists(), "the user's file stays"
    assert len(list((tmp_path / "cv/data/PennFudanPed/PNGImages").iterdir())) == 170
    again = invoke("dataset", "--dataset", "pennfudanped")
    assert again.stdout == "PennFundaPed dataset already downloaded and verified\n"
    next((tmp_path / "cv/data/PennFudanPed/PNGImages").iterdir()).unlink()
    assert "169 of 170 images in `PNGImages`" in refusal("dataset", "--dataset", "pennfudanped").message


@pytest.mark.parametrize("data", [b"no archive", pedestrians(3)])
def test_an_archive_that_is_none_is_an_invalid_file_and_nothing_stays(tmp_path, data):
    folder = tmp_path / "cv" / "data"
    folder.mkdir(parents=True)
    (folder / "PennFudanPed.zip").write_bytes(data)
    ended = invoke("dataset", "--dataset", "pennfudanped")
    assert ended.stdout.endswith("Invalid file\n")
    assert isinstance(ended.exception, LinneError)
    assert [path.name for path in folder.iterdir()] == ["PennFudanPed.zip"]
