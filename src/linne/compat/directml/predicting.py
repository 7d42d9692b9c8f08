"""The samples' `predict`: five names with their probabilities."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

from linne.compat.directml import defects, lines, networks, steps
from linne.compat.directml.lines import Say
from linne.compat.directml.loading import cropped, testing_transform
from linne.compat.directml.programs import SAMPLES, Options
from linne.data.images.decode import decode_file
from linne.device import Device
from linne.errors import LinneError

NUM_ANSWERS = 5
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET = (
    "tench",
    "goldfish",
    "great white shark",
    "tiger shark",
    "hammerhead",
    "electric ray",
    "stingray",
    "cock",
    "hen",
    "ostrich",
)
"""ImageNet's first ten, by which the samples name CIFAR-10's classes."""


def predict(options: Options, say: Say, note: Say) -> None:
    """Print the five likeliest classes of `options.image`.

    Raises:
        LinneError: an option, the device or the image cannot be used, or there are no weights to predict with.
    """
    if options.image is None:
        raise LinneError("`--image` is missing", hint="type --image FILE")
    image = Image.fromarray(decode_file(options.image, 3))
    model = options.network
    device = Device.pick(options.device)
    if "predict" in SAMPLES[options.sample].prints_options:
        say(options.line("predict"))
    steps.seed(options, device)
    start = networks.start(options, device, note)
    networks.require_weights(start, options, note)
    for line in defects.lines(["crop", "names"], faithful=options.faithful):
        note(line)
    transform = cropped(256, 1) if options.faithful else testing_transform(model, faithful=False)
    names = IMAGENET if options.faithful else CIFAR10
    network = start.network.to(device.torch_device).eval()
    with torch.no_grad():
        logits_K = _logits(network, transform(image).to(device.torch_device), options)
        top = torch.softmax(logits_K, dim=0).topk(NUM_ANSWERS)
    for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        say(lines.answer(names[index], probability))


def _logits(network: nn.Module, image_CHW: torch.Tensor, options: Options) -> torch.Tensor:
    """Return the logits of one image.

    Raises:
        LinneError: it is the one pixel that the samples cut out, and the network shrinks it away.
    """
    try:
        logits_K: torch.Tensor = network(image_CHW[None])[0]
    except RuntimeError as error:
        if not options.faithful:
            raise
        raise LinneError(
            f"`{options.network}` cannot take the one pixel that the samples cut out of an image: there they fail, too",
            hint="leave --faithful out",
        ) from error
    return logits_K
