"""The check finds what was planted among real photographs, and nothing else."""

import hashlib
import io
import json
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from linne.checking import check, quick_check, write_page
from linne.data import open_source
from linne.data.quarantine import save_quarantine
from linne.errors import SourceError


@pytest.fixture(scope="module")
def tiles():
    """44 different pictures of 106 x 106 pixels, cut out of scikit-learn's two photographs; no white sky, no black."""
    from sklearn.datasets import load_sample_image

    cut = []
    for name in ("china.jpg", "flower.jpg"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            photo = load_sample_image(name)
        pieces = [photo[y : y + 106, x : x + 106] for y in range(0, 424, 106) for x in range(0, 636, 106)]
        cut += [piece for piece in pieces if 16 < piece.mean() < 240][:22]
    return [Image.fromarray(tile) for tile in cut]


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def clean_set(root, tiles):
    """A tidy folder: china and flower, 14 train, 4 val and 4 test images each."""
    for label, chosen in (("china", tiles[:22]), ("flower", tiles[22:])):
        for k, tile in enumerate(chosen):
            split = "train" if k < 14 else "val" if k < 18 else "test"
            save(tile, root / split / label / f"{label}-{k}.jpg", quality=92)
    return root


@pytest.fixture(scope="module")
def others():
    """Pictures that look like nothing else: smooth random shapes."""
    rng = np.random.default_rng(5)
    return [
        Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((106, 106), Image.Resampling.BICUBIC)
        for _ in range(16)
    ]


def plant(root, tiles, others):
    """Put one of everything that goes wrong into a tidy folder; return which finding each image belongs to."""
    train, jpeg = root / "train", io.BytesIO()
    save(others[0], train / "china" / "gif.jpg", format="GIF")
    save(others[1], train / "flower" / "deeper" / "nested.png")
    (train / "flower" / "leak.jpg").write_bytes((root / "test/flower/flower-20.jpg").read_bytes())
    (train / "china" / "again.jpg").write_bytes((train / "china/china-3.jpg").read_bytes())
    (train / "flower" / "either.jpg").write_bytes((train / "china/china-5.jpg").read_bytes())
    save(tiles[17].resize((95, 95)), train / "china" / "smaller.jpg", quality=40)
    save(ImageOps.mirror(tiles[40]), train / "flower" / "mirrored.jpg", quality=80)
    save(ImageOps.mirror(tiles[30]), train / "china" / "other-way.jpg", quality=80)  # of another class: no copy
    others[2].save(jpeg, "JPEG")
    (train / "china" / "cut.jpg").write_bytes(jpeg.getvalue()[:-200])
    (train / "china" / "page.jpg").write_bytes(b"<!doctype html><html>not found</html>")
    (train / "flower" / "empty.png").write_bytes(b"")
    png = io.BytesIO()
    others[3].save(png, "PNG")
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + png.getvalue()[24:29]
    bomb = png.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png.getvalue()[33:]
    (train / "flower" / "bomb.png").write_bytes(bomb)
    save(others[4].convert("CMYK"), train / "china" / "ink.jpg")
    deep = np.asarray(others[5].convert("L")).astype(np.uint16) * 257
    save(Image.fromarray(deep), train / "flower" / "deep.png")
    rgba = others[6].convert("RGBA")
    rgba.putalpha(others[7].convert("L"))
    save(rgba, train / "flower" / "glass.png")
    save(others[8], train / "china" / "film.gif", save_all=True, append_images=[others[9]])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(others[10], train / "china" / "lying.jpg", exif=exif)
    save(others[11], train / "china" / "icc.jpg", icc_profile=b"\0" * 128)
    save(Image.new("RGB", (106, 106), (90, 90, 90)), train / "flower" / "even.png")
    save(tiles[30].resize((7, 7)), train / "flower" / "icon.png")
    save(others[12].resize((1300, 106)), train / "flower" / "strip.jpg")
    save(Image.eval(others[13], lambda level: level // 16), train / "china" / "night.png")
    save(Image.eval(others[14], lambda level: 240 + level // 17), train / "china" / "snow.png")
    save(others[15].resize((1500, 1500)), train / "china" / "large.png")
    return {
        "mistyped": [{"train/china/gif.jpg"}],
        "leak": [{"train/flower/leak.jpg", "test/flower/flower-20.jpg"}],
        "repeat": [{"train/china/again.jpg", "train/china/china-3.jpg"}],
        "conflict": [{"train/flower/either.jpg", "train/china/china-5.jpg"}],
        "near-leak": [
            {"test/flower/flower-18.jpg", "train/flower/mirrored.jpg"},
            {"train/china/smaller.jpg", "val/china/china-17.jpg"},
        ],
        "unreadable": [
            {"train/china/cut.jpg"},
            {"train/china/page.jpg"},
            {"train/flower/bomb.png"},
            {"train/flower/empty.png"},
        ],
        "cmyk": [{"train/china/ink.jpg"}],
        "deep": [{"train/flower/deep.png"}],
        "grey": [{"train/flower/deep.png"}, {"train/flower/even.png"}],
        "transparent": [{"train/flower/glass.png"}],
        "animated": [{"train/china/film.gif"}],
        "turned": [{"train/china/lying.jpg"}],
        "profile": [{"train/china/icc.jpg"}],
        "blank": [{"train/flower/even.png"}],
        "small": [{"train/flower/icon.png"}],
        "long": [{"train/flower/strip.jpg"}],
        "dark": [{"train/china/night.png"}],
        "bright": [{"train/china/snow.png"}],
        "large": [{"train/china/large.png"}],
    }


@pytest.fixture(scope="module")
def messy(tmp_path_factory, tiles, others):
    """A folder with everything planted, what that is, and the report on it."""
    root = tmp_path_factory.mktemp("messy") / "set"
    planted = plant(clean_set(root, tiles), tiles, others)
    before = tree_hash(root)
    report = check(open_source(str(root)), num_threads=2)
    return root, planted, before, report


def found_by_kind(report):
    return {
        finding.kind: sorted(({e.name for e in group.examples} for group in finding.groups), key=sorted)
        for finding in report.findings
    }


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def test_a_tidy_folder_of_photographs_gives_no_finding(tmp_path, tiles):
    report = check(open_source(str(clean_set(tmp_path, tiles))))
    assert report.findings == ()
    assert report.verdict == "nothing found that stands in the way of training"
    assert report.quarantine == {}


def test_everything_planted_is_found_and_nothing_else_and_no_file_is_touched(messy):
    root, planted, before, report = messy
    assert found_by_kind(report) == planted
    assert tree_hash(root) == before


def test_reasons_and_advice_are_in_the_text(messy):
    text = messy[3].to_text()
    for line in (
        "4 images cannot be read",
        "train/china/page.jpg: it holds HTML; expected JPEG, PNG, GIF, BMP, WebP, TIFF or PPM",
        "train/flower/bomb.png: it has 60,000 x 60,000 pixels, more than the 50,000,000 accepted",
        "1 file named as another format",
        "train/china/gif.jpg: is GIF",
        "the same image with different labels: 1 case",
        "train/china/china-5.jpg (`china`) = train/flower/either.jpg (`flower`)",
        "the same image in more than one split: 1 image of test (12.5 %)",
        "nearly the same image in more than one split: 1 image of val (12.5 %), 1 image of test (12.5 %)",
        "verdict: stop, mend this first: ",
    ):
        assert line in text, text


def test_the_first_findings_are_the_ones_that_stop_and_conflicts_come_before_leaks(messy):
    findings = messy[3].findings
    assert [finding.severity for finding in findings] == sorted(
        (finding.severity for finding in findings), key=["stop", "warning", "note"].index
    )
    kinds = [finding.kind for finding in findings]
    assert kinds.index("conflict") < kinds.index("leak") < kinds.index("near-leak")


def test_what_was_quarantined_leaves_a_set_that_is_clean_of_it(tmp_path, messy):
    root, _, _, report = messy
    source = open_source(str(root))
    assert report.quarantine == {
        "train/china/china-3.jpg": "same image as train/china/again.jpg in train",
        "train/china/china-5.jpg": "same image as train/flower/either.jpg, which has another label",
        "train/china/cut.jpg": report.quarantine["train/china/cut.jpg"],
        "train/china/page.jpg": report.quarantine["train/china/page.jpg"],
        "train/china/smaller.jpg": "nearly the same image as val/china/china-17.jpg in val",
        "train/flower/bomb.png": report.quarantine["train/flower/bomb.png"],
        "train/flower/either.jpg": "same image as train/china/china-5.jpg, which has another label",
        "train/flower/empty.png": "cannot be read: the file is empty",
        "train/flower/leak.jpg": "same image as test/flower/flower-20.jpg in test",
        "train/flower/mirrored.jpg": "nearly the same image as test/flower/flower-18.jpg in test",
    }
    save_quarantine(tmp_path / "q.json", report.quarantine, source=source.name, fingerprint=source.fingerprint)
    mended = open_source(source.name, quarantine=tmp_path / "q.json")
    assert "left out 10 images on the quarantine list" in mended.notes
    kinds = {finding.kind for finding in check(mended).findings}
    assert not kinds & {"unreadable", "conflict", "leak", "repeat", "near-leak"}


def test_the_number_of_threads_changes_nothing(messy):
    root, _, _, report = messy
    again = check(open_source(str(root)), num_threads=5)
    assert {**again.to_dict(), "seconds": 0} == {**report.to_dict(), "seconds": 0}


def test_a_report_is_json_and_names_every_image(tmp_path, tiles):
    root = clean_set(tmp_path / "set", tiles)
    for k in range(12):
        (root / f"train/china/bad-{k}.jpg").write_bytes(b"no image")
    report = json.loads(json.dumps(check(open_source(str(root))).to_dict(), allow_nan=False))
    assert report["severity"] == "stop"
    assert [g["images"][0]["name"] for g in report["findings"][0]["groups"]] == sorted(
        f"train/china/bad-{k}.jpg" for k in range(12)
    )
    assert report["splits"]["train"] == {"china": 26, "flower": 14}


def test_classes_that_are_absent_tiny_or_outnumbered_are_named(tmp_path, tiles, others):
    root = clean_set(tmp_path / "set", tiles)
    save(others[0], root / "train" / "rare" / "only.png")
    findings = {finding.kind: finding for finding in check(open_source(str(root))).findings}
    assert findings["absent-class"].title == "test has no image of 1 class of 3: `rare`"
    assert findings["tiny-class"].title == "1 class with fewer than 10 training images: `rare (1)`"
    assert findings["imbalance"].title == ("classes are far from equal: `china` has 14 training images, `rare` 1")
    assert "would be right 48 % of the time" in findings["imbalance"].advice


def test_a_class_that_is_all_grey_among_colours_is_a_warning(tmp_path, tiles):
    root = clean_set(tmp_path / "set", tiles)
    for path in root.rglob("flower-*.jpg"):
        image = Image.open(path).convert("L")
        image.load()
        save(image, path)
    grey = next(f for f in check(open_source(str(root))).findings if f.kind == "grey")
    assert grey.severity == "note"  # half of all: no odd ones out
    for k in range(30):
        save(tiles[k].rotate(90), root / "train" / "china" / f"turned-{k}.png")
    grey = next(f for f in check(open_source(str(root))).findings if f.kind == "grey")
    assert grey.severity == "warning"
    assert grey.advice == "nearly all of `flower` are grey: a model may learn that instead of what they show"


def test_training_is_told_in_a_moment_of_leaks_empty_files_and_absent_classes(tmp_path, tiles, others):
    root = clean_set(tmp_path / "set", tiles)
    assert quick_check(open_source(str(root))) == []
    plant(root, tiles, others)
    assert quick_check(open_source(str(root))) == [
        "1 empty file in train, among them `train/flower/empty.png`",
        "1 image in more than one split: `train/flower/leak.jpg = test/flower/flower-20.jpg`",
    ]


def test_pixels_in_memory_are_checked_like_files(tiles):
    from linne.data.source import Source
    from linne.data.sources.arrays import array_split

    images = np.stack([np.asarray(tile) for tile in tiles])
    train = array_split("train", images[:40], np.arange(40) % 2, "train")
    test = array_split("test", np.concatenate([images[40:], images[3:4]]), np.arange(5) % 2, "test")
    source = Source("given", ("a", "b"), {"train": train, "test": test}, "f", 3, (106, 106), True)
    assert quick_check(source) == ["1 image in more than one split: `train[3] = test[4]`"]
    assert found_by_kind(check(source)) == {"conflict": [{"train[3]", "test[4]"}]}


def test_what_is_packed_may_keep_the_name_of_the_file_it_was_made_from(tmp_path, tiles):
    from linne.data.shards.pack import PackSettings, pack

    root = clean_set(tmp_path / "set", tiles)
    save(tiles[0].resize((400, 400)), root / "train" / "china" / "resized.png")
    pack(open_source(str(root)), tmp_path / "packed", PackSettings(size=64))
    report = check(open_source(str(tmp_path / "packed")))
    assert "mistyped" not in found_by_kind(report)
    assert ("format", "JPEG 45") in report.about


def test_the_page_shows_the_images_inside_itself_and_escapes_names(tmp_path, tiles):
    root = clean_set(tmp_path / "set", tiles)
    save(tiles[15], root / "train" / "china" / "<b>&.jpg", quality=92)
    source = open_source(str(root))
    report = check(source)
    write_page(tmp_path / "check.html", report, source)
    page = (tmp_path / "check.html").read_text()
    assert "&lt;b&gt;&amp;.jpg" in page
    assert "<b>&.jpg" not in page
    assert page.count('src="data:image/jpeg;base64,') == 2 + 2 * 10
    assert "://" not in page
    write_page(tmp_path / "check.html", report, source)


def test_a_page_replaces_only_a_page_of_linnes(tmp_path, tiles):
    source = open_source(str(clean_set(tmp_path / "set", tiles)))
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(SourceError, match=r"mine.html` is there already, and no page of linne's"):
        write_page(tmp_path / "mine.html", check(source), source)
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    with pytest.raises(SourceError, match=r"no folder .*nowhere"):
        write_page(tmp_path / "nowhere" / "page.html", check(source), source)
