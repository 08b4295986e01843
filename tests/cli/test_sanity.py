from __future__ import annotations

import csv
import dataclasses
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_advise import PixelSpace, cli, evaluation, zoo


@pytest.fixture
def small(monkeypatch):
    """A network of four blocks in place of the zoo's, whose maps take seconds."""
    model = nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 6, 3, stride=2),
            relu=nn.ReLU(),
            second=nn.Conv2d(6, 8, 3),
            third=nn.Conv2d(8, 8, 3, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 4),
        )
    ).eval()
    network = zoo.Network(
        name="small",
        model=model,
        layer=model.third,
        layer_name="third",
        pixel_space=PixelSpace.identity(),
        transform=lambda image: (
            torch.from_numpy(np.array(image.resize((24, 24)))).permute(2, 0, 1).div(255)
        ),
        class_names=("ant", "bee", "cat", "dog"),
        weights="random",
        layers=(model.second, model.third),
        layer_names=("second", "third"),
        reshape_transforms=(None, None),
    )
    monkeypatch.setattr(zoo, "load", lambda *_arguments, **_options: network)
    return network


def test_sanity(cat, tmp_path, capsys, small):
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    status = cli.main(
        [
            "sanity", str(cat), "--seeds", "2", "--target", "cat",
            "--output", str(tmp_path / "out"),
        ]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0
    assert "small, layer third: cat" in out
    assert "edge-detector does NOT depend on the parameters" in out
    assert "with random ones, rank correlation 1.00." in out
    assert all(torch.equal(value, before[k]) for k, value in small.model.state_dict().items())
    with (tmp_path / "out" / "sanity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4 * 4
    assert {row["mode"] for row in rows} == {"cascading", "independent"}
    assert {row["method"] for row in rows} == {
        *("gated-grad-cam", "layer-advise", "grad-cam", "edge-detector"),
    }
    assert {row["block"] for row in rows} == {"head", "third", "second", "first"}
    assert {row["seed"] for row in rows} == {"0", "1"}
    edges = [row for row in rows if row["method"] == "edge-detector"]
    assert {(row["absolute"], row["signed"]) for row in edges} == {("1.0", "1.0")}
    for name in ("sanity_curves.png", "sanity_maps.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.width > 600


def test_sanity_without_layers_for_advise(cat, tmp_path, capsys, small, monkeypatch):
    network = dataclasses.replace(small, layers=(), layer_names=(), reshape_transforms=())
    monkeypatch.setattr(zoo, "load", lambda *_arguments, **_options: network)
    assert cli.main(["sanity", str(cat), "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "edge-detector does NOT depend" in out
    assert "gated-grad-cam" not in out


def test_bad_input_to_sanity(tmp_path, capsys):
    assert cli.main(["sanity", str(tmp_path / "none.png"), "--weights", "random"]) == 2
    assert "There is no image" in capsys.readouterr().err


def test_a_correlation_that_rounds_to_zero_has_no_sign(cat, tmp_path, capsys, small, monkeypatch):
    randomize = evaluation.randomize_parameters

    def slightly_negative(*arguments, **options):
        run = randomize(*arguments, **options)
        tiny = {name: own * 0 - 1e-3 for name, own in run.absolute_correlation.items()}
        return dataclasses.replace(run, absolute_correlation=tiny)

    monkeypatch.setattr(evaluation, "randomize_parameters", slightly_negative)
    assert cli.main(["sanity", str(cat), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "with random ones, rank correlation 0.00." in out
    assert "-0.00" not in out
