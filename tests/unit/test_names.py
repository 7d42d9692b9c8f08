"""Whether two lists of names are of the same classes."""

from __future__ import annotations

import pytest

from linne.data.names import same_classes

MANY = [f"thing {number}" for number in range(100)]


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("cat", "dog"), ("cat", "dog")),
        (("tench", "goldfish"), ("tench, Tinca tinca", "goldfish, Carassius auratus")),
        (("crane (n02012849)", "crane (n03126707)"), ("crane", "crane (2)")),
        (("Cardigan (n02113186)",), ("cardigan",)),
        (MANY, [*MANY[:95], *"abcde"]),
    ],
)
def test_the_same_classes_are_recognised_in_whatever_form_they_are_written(names, others):
    assert same_classes(names, others)
    assert same_classes(others, names)


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("cat", "dog"), ("cat", "dog", "emu")),
        (("cat", "dog"), ("dog", "cat")),
        (("cat", "dog"), ("cat", "wolf")),
        (("cat (tabby)",), ("cat (black)",)),
        (("dog, small", "dog, large"), ("dog, large", "dog, small")),
        (MANY[:99], [*MANY[:98], "other"]),
        (MANY, [*MANY[:94], *"abcdef"]),
        (MANY, MANY[::-1]),
    ],
)
def test_other_classes_and_another_order_are_not_the_same(names, others):
    assert not same_classes(names, others)
    assert not same_classes(others, names)


def test_imagenets_classes_are_the_same_as_its_source_torchvision_and_timm_name_them():
    pytest.importorskip("timm", reason="needs `linne[train]`")
    pytest.importorskip("torchvision", reason="needs `linne[train]`")
    from timm.data.imagenet_info import ImageNetInfo

    from linne.data.sources.synsets import class_names, words_of_timm
    from linne.models import pretrained

    source = class_names(ImageNetInfo("imagenet-1k").label_names(), words_of_timm())
    torchvision, timm = (pretrained(name).labels() for name in ("torchvision/resnet50", "timm/resnet50"))
    assert len({source, torchvision, timm}) == 3
    assert same_classes(source, torchvision)
    assert same_classes(source, timm)
    assert same_classes(torchvision, timm)
    assert not same_classes(source, torchvision[1:] + torchvision[:1])
