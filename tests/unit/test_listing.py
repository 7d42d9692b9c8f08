"""What `linne models` lists: costs from the file or measured, and the published weights with their licences."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs `linne[train]`")

import timm  # noqa: E402
import torchvision  # noqa: E402

from linne import models  # noqa: E402
from linne.models.costs import Cost, measure, measured  # noqa: E402
from linne.models.listing import list_models, list_weights  # noqa: E402

RESNET18 = Cost(parameters=11_689_512, macs=1_814_073_344, height=224, width=224)
"""The parameters of torchvision's documentation; its 1.81 GFLOPS are multiply-adds too."""


def test_what_a_network_costs_is_counted_on_shapes_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert measure("torchvision/resnet18") == RESNET18
    assert torch.equal(torch.random.get_rng_state(), before)
    assert measure("small") is None, "its parameters depend on the size"


def test_the_file_of_costs_says_what_was_measured_with_what_and_agrees_with_measuring():
    about = json.loads(files("linne.models").joinpath("costs.json").read_text("utf-8"))["about"]
    assert set(about["versions"]) == {"timm", "torchvision", "torch"}
    known = measured()
    assert known["torchvision/resnet18"] == RESNET18
    if about["versions"]["torchvision"] != torchvision.__version__ or about["versions"]["timm"] != timm.__version__:
        pytest.skip("the file is of other versions; `scripts/measure_models` writes it for those that are installed")
    for name in ("torchvision/vit_b_16", "timm/test_vit", "timm/resnet50"):
        assert name not in known or known[name] == measure(name)


def test_networks_are_listed_with_their_costs_and_those_of_any_size_without():
    rows = {row.name: row for row in list_models("resnet18")}
    assert (rows["torchvision/resnet18"].parameters, rows["torchvision/resnet18"].macs) == (11_689_512, 1_814_073_344)
    assert rows["timm/resnet18"].parameters == 11_689_512
    (own,) = list_models("speedrun")
    assert (own.parameters, own.macs, own.height) == (None, None, None)


def test_weights_are_listed_with_their_licence_and_whether_they_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    here = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    here.parent.mkdir(parents=True)
    here.write_bytes(b"123")
    rows = {row.name: row for row in list_weights("resnet18")}
    row = rows["torchvision/resnet18.IMAGENET1K_V1"]
    assert (row.found, row.size_bytes, row.licence) == (str(here), 3, None)
    row = rows["timm/resnet18.fb_swsl_ig1b_ft_in1k"]
    assert (row.licence, row.where) == ("cc-by-nc-4.0", "hub: timm/resnet18.fb_swsl_ig1b_ft_in1k")
    assert [row.name for row in list_weights("resnet18.a1")] == ["timm/resnet18.a1_in1k"]
    assert next(row.name for row in list_weights("timm/test_vit")).startswith("timm/test_vit.")


def test_a_place_is_listed_though_no_list_holds_it():
    place = f"hf:{Path(__file__).parent.parent / 'fixtures/networks/tiny-vit'}"
    if models.load_provider("hf").why_unavailable() is None:
        assert [row.name for row in list_models(place)] == [place]
        assert [row.num_classes for row in list_weights(place)] == [3]
