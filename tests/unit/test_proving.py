"""Weights whose names and shapes fit are shown photographs, which find what names and shapes do not."""

from __future__ import annotations

import copy
import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from linne.data.images.decode import decode_file  # noqa: E402
from linne.preprocess import InputSpec, normalise, resize_and_crop  # noqa: E402
from linne.weights.answers import FOLDER, SHOWN  # noqa: E402
from linne.weights.proving import prove  # noqa: E402

IMAGENET = InputSpec(
    channels=3, height=64, width=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875
)
LABELS = ("goldfish", "tiger cat", "espresso", "missile", "car mirror", "volcano", "screw", "syringe", "torch", "wok")


def photographs(spec):
    images = [resize_and_crop(decode_file(FOLDER / name, spec.channels), spec) for name in SHOWN]
    return torch.stack([torch.from_numpy(normalise(image[None], spec)[0]) for image in images])


@pytest.fixture(scope="module")
def trained():
    """A network whose batch norms have seen the photographs, and that names them right."""
    torch.manual_seed(0)
    sizes = ((3, 8), (8, 16), (16, 16))
    layers = [layer for size in sizes for layer in (nn.Conv2d(*size, 3, 2), nn.BatchNorm2d(size[1]), nn.SiLU())]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, len(LABELS)))
    images, named = photographs(IMAGENET), torch.tensor([1, 2, 3, 4])
    step = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(60):
        step.zero_grad()
        nn.functional.cross_entropy(network(images), named).backward()
        step.step()
    return network.eval()


def test_weights_that_answer_as_trained_are_good(trained):
    proof = prove(trained, IMAGENET, LABELS)
    assert proof.problem is None
    assert (proof.num_named, proof.num_asked) == (3, 3)
    # After 60 steps running statistics are those of the photographs but for 0.9^60 and the last steps' learning.
    assert max(proof.first_gap, proof.median_gap) < 0.3
    assert proof.line() == "3 of 3 photographs named right, batch norms see what they saw in training"


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))],
    ids=["pixels of 0 to 1", "pixels of 0 to 255"],
)
def test_pixels_scaled_otherwise_are_found_and_the_right_scaling_is_named(trained, mean, std):
    proof = prove(trained, dataclasses.replace(IMAGENET, mean=mean, std=std), LABELS)
    assert proof.problem is not None
    assert proof.problem.startswith("the first batch norm sees variances e^")
    assert proof.hint == "they fit ImageNet's mean and deviation: mean=0.485,0.456,0.406 std=0.229,0.224,0.225"


def test_another_function_between_the_layers_is_found(trained):
    other = copy.deepcopy(trained)
    other[2] = other[5] = nn.Sigmoid()
    proof = prove(other, IMAGENET, LABELS)
    assert proof.first_gap == prove(trained, IMAGENET, LABELS).first_gap
    assert proof.problem is not None


def test_labels_in_another_order_are_found(trained):
    sure = copy.deepcopy(trained)
    with torch.no_grad():
        sure[-1].bias[5:] -= 100  # what is on no photograph is never among the first five
    assert prove(sure, IMAGENET, LABELS).problem is None
    proof = prove(sure, IMAGENET, LABELS[5:] + LABELS[:5])
    assert proof.problem == "of 3 photographs 0 got a right name among the first five"
    assert proof.hint == "labels in another order, or another network's weights"


def test_random_weights_are_found():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(4))
    network.eval()(torch.zeros(1, 3, 64, 64))
    network[1].running_var.fill_(1.0)
    network[0].weight.data.mul_(20)
    assert prove(network, IMAGENET, None).problem is not None


def test_answers_that_are_not_numbers_are_found(trained):
    broken = copy.deepcopy(trained)
    broken[-1].bias.data.fill_(float("nan"))
    assert prove(broken, IMAGENET, None).problem == "answers to photographs are not finite numbers"


def test_without_batch_norms_and_known_labels_the_proof_says_that_it_shows_little():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4))
    proof = prove(network, IMAGENET, ("a", "b", "c", "d"))
    assert (proof.problem, proof.num_named) == (None, None)
    assert proof.line() == "answers are finite; nothing else can be checked without batch norms or known labels"


def test_looking_leaves_no_hook_and_changes_no_weight(trained):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    prove(trained, IMAGENET, LABELS)
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in before.items())
    assert not any(module._forward_pre_hooks for module in trained.modules())


def test_the_photographs_are_small_and_whole():
    for name in SHOWN:
        with Image.open(FOLDER / name) as image:
            image.load()
            assert min(image.size) == 288
        assert (FOLDER / name).stat().st_size < 40_000
