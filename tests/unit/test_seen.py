"""What a network sees of an image can be looked at."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from linne.errors import LinneError, SourceError
from linne.inference.inputs import find_images
from linne.inference.seen import SeenImages


def test_images_are_numbered_in_their_order_and_hold_the_pixels(tmp_path):
    seen = SeenImages(tmp_path / "new" / "folder")
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen.add("photos/a b.jpg", colour)
    seen.add("-", colour[..., :1])
    first, second = sorted((tmp_path / "new" / "folder").iterdir())
    assert (first.name, second.name) == ("00001-a-b.png", "00002--.png")
    assert np.array_equal(np.asarray(Image.open(first)), colour)
    assert np.array_equal(np.asarray(Image.open(second)), colour[..., 0])


def test_a_name_from_anywhere_stays_in_the_folder(tmp_path):
    SeenImages(tmp_path / "seen").add("../../etc/passwd", np.zeros((1, 1, 3), np.uint8))
    assert [file.name for file in tmp_path.rglob("*.png")] == ["00001-passwd.png"]


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(LinneError, match="holds files already, which stay"):
        SeenImages(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_address_is_fetched_by_https_only():
    with pytest.raises(SourceError, match="expected https"):
        find_images(["http://localhost/x.jpg"])


def test_no_address_is_fetched_where_the_network_is_forbidden(monkeypatch):
    monkeypatch.setenv("LINNE_OFFLINE", "1")
    with pytest.raises(SourceError):
        find_images(["https://localhost:1/x.jpg"])
