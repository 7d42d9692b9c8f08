"""What was hashed beforehand counts only for the very file that was hashed, and no trouble comes out of the thread."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from linne.bundle import open_bundle
from linne.bundle_format import check_files, describe_file
from linne.errors import BundleError
from linne.hash_ahead import CHUNK_BYTES, HashAhead
from linne.inference.backends.null import write_null_bundle
from linne.preprocess import InputSpec

SPEC = InputSpec(channels=1, height=4, width=5, mean=(0.5,), std=(0.25,), interpolation="bilinear", crop_pct=1.0)


@pytest.mark.parametrize("size", [0, 1000, CHUNK_BYTES + 1])
def test_it_is_the_sha256_of_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * (size // 250 + 1))
    assert HashAhead(lambda: [path]).sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_was_written_to_since_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    listed = {"file": describe_file(tmp_path, "file")}
    ahead = HashAhead(lambda: [path])
    assert ahead.sha256(path) == listed["file"]["sha256"]
    path.write_bytes(b"after ")
    assert ahead.sha256(path) is None
    with pytest.raises(BundleError, match="altered"):
        check_files(tmp_path, listed, ahead=ahead)


def test_a_file_that_another_one_took_the_place_of_is_hashed_again(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    ahead = HashAhead(lambda: [path])
    assert ahead.sha256(path)
    os.replace(other, path)
    assert ahead.sha256(path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_links_pipes_and_what_is_not_there_are_passed_over_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing"):
        assert HashAhead(lambda name=name: [tmp_path / name]).sha256(tmp_path / name) is None


def test_what_was_not_asked_for_and_a_search_that_fails_are_no_error(tmp_path: Path) -> None:
    def fails() -> list[Path]:
        raise BundleError("no bundle")

    assert HashAhead(fails).sha256(tmp_path / "file") is None
    assert HashAhead(list).sha256(tmp_path / "file") is None


def test_a_network_that_was_left_out_on_opening_is_checked_when_it_is_used(tmp_path: Path) -> None:
    bundle = write_null_bundle(tmp_path / "bundle", ("cat", "dog"), SPEC)
    path = bundle.path / bundle.network_file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened = open_bundle(bundle.path, ahead=HashAhead(list))
    with pytest.raises(BundleError, match=r"`model.safetensors` was altered or damaged"):
        opened.weights()
    with pytest.raises(BundleError, match=r"`model.safetensors` was altered or damaged"):
        open_bundle(bundle.path)


def test_all_else_is_checked_on_opening(tmp_path: Path) -> None:
    bundle = write_null_bundle(tmp_path / "bundle", ("cat", "dog"), SPEC)
    path = bundle.path / bundle.canaries[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="altered or damaged"):
        open_bundle(bundle.path, ahead=HashAhead(list))
