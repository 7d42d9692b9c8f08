"""Knowledge distillation against its formula, and images for a teacher who takes others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from linne.data.loading.loader import input_spec
from linne.device import Device
from linne.preprocess import InputSpec, normalise, resize_and_crop
from linne.recipe import DataConfig, DistillConfig, Recipe
from linne.training.distilling import Teacher, Translation, distillation_loss

CPU = Device.pick("cpu")
STUDENTS = InputSpec(channels=3, height=32, width=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def test_the_loss_follows_its_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), expected, rtol=1e-5, atol=1e-6)


def test_at_a_high_temperature_its_gradient_is_that_of_matching_centred_logits():
    # Hinton et al. 2015, equation 4: (z - v) / (N T^2) for logits of mean zero, here times T^2.
    torch.manual_seed(0)
    student, teacher = (x - x.mean(1, keepdim=True) for x in torch.randn(2, 5, 4))
    student.requires_grad_()
    distillation_loss(student, teacher, 1000.0).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 4 / 5, rtol=1e-2, atol=1e-4)


def test_the_weight_mixes_the_labels_loss_and_the_teachers():
    recipe = Recipe(data=DataConfig(source="x"), distill=DistillConfig(bundle="t", temperature=2.0, weight=0.75))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    teacher = Teacher(network, STUDENTS, recipe, CPU)
    logits, images, loss = torch.randn(3, 4), torch.randn(3, 3, 32, 32), torch.tensor(1.5)
    translated = Translation(input_spec(recipe), STUDENTS, CPU)(images)
    expected = 0.25 * loss + 0.75 * distillation_loss(logits, network(translated), 2.0)
    torch.testing.assert_close(teacher.blend(loss, logits, images), expected)


def smooth_images(channels: int) -> np.ndarray:
    rows, columns = np.mgrid[0:32, 0:32]
    layers = [127 + 100 * np.sin(rows / 7 + shift) * np.cos(columns / 9 - shift) for shift in range(channels)]
    return np.stack(layers, -1).round().astype(np.uint8)[None]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (16, 16), (48, 48), (20, 40)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own_channels", [1, 3])
def test_a_teacher_sees_what_its_own_preprocessing_makes_of_the_image(own_channels, channels, size, interpolation):
    own = InputSpec(
        channels=own_channels,
        height=32,
        width=32,
        mean=(0.4, 0.5, 0.6)[:own_channels],
        std=(0.2, 0.3, 0.3)[:own_channels],
    )
    wanted = InputSpec(
        channels=channels,
        height=size[0],
        width=size[1],
        mean=(0.3, 0.2, 0.1)[:channels],
        std=(0.5, 0.6, 0.7)[:channels],
        interpolation=interpolation,
        crop_mode="squash",
    )
    images = smooth_images(own_channels)
    found = Translation(own, wanted, CPU)(torch.from_numpy(normalise(images, own)))
    pixels = images[0]
    if own_channels > channels:
        pixels = (pixels @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None]
    resized = resize_and_crop(np.repeat(pixels, channels // pixels.shape[-1], axis=-1), wanted)
    # The reference rounds to whole pixel values once or twice, and this does not: two grey values at most.
    np.testing.assert_allclose(found.numpy(), normalise(resized[None], wanted), atol=2 / 255 / 0.5)


def test_a_teacher_sees_images_of_its_own_size_however_large_the_students_are_at_the_time():
    translate = Translation(STUDENTS, STUDENTS, CPU)
    small = torch.randn(2, 3, 20, 16)
    expected = nn.functional.interpolate(small, (32, 32), mode=STUDENTS.interpolation)
    assert torch.equal(translate(small), expected)


def test_a_teacher_with_the_students_input_is_asked_about_the_same_tensor():
    images = torch.randn(2, 3, 32, 32)
    assert Translation(STUDENTS, STUDENTS, CPU)(images).data_ptr() == images.data_ptr()
