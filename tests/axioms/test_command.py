"""``captum-advise axioms`` and ``captum-advise sanity``, as typed."""

from __future__ import annotations

import csv
import importlib
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from captum_advise import PixelSpace, cli, zoo


def axioms(*arguments):
    return cli.main(["axioms", *arguments])


def test_a_method_that_fulfils_an_axiom(capsys):
    status = axioms(
        "captum.attr:LayerGradCam", "--axiom", "dummy_unit", "--axiom", "linearity",
        "--examples", "3",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0
    assert "captum.attr:LayerGradCam fulfils 2 of 2 axioms." in out


def test_a_method_that_does_not(capsys):
    status = axioms("captum.attr:LayerActivation", "--axiom", "dummy_class", "--markdown")
    captured = capsys.readouterr()
    assert status == 1
    assert "| `dummy_class` | **no** |" in captured.out
    assert "Case(spec=NetworkSpec(" in captured.err


def test_arguments_of_attribute(capsys):
    status = axioms(
        "captum_advise:LayerAdvise", "--argument", "unit_selection=1",
        "--argument", "activation_range=minmax", "--spatial-dims", "1",
        "--axiom", "rescaled_units", "--examples", "2",
    )  # fmt: skip
    assert status == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["captum.attr"], "give MODULE:NAME"),
        (["captum.attr:LayerGradCamera"], "The module captum.attr has no LayerGradCamera."),
        (["no_such_module:Method"], "No module named 'no_such_module'"),
        (["captum.attr:LayerGradCam", "--axiom", "truth"], "There is no axiom 'truth'"),
        (["captum.attr:LayerGradCam", "--argument", "n_steps"], "NAME=JSON"),
        (["captum.attr:LayerGradCam", "--channels", "many"], "separated by commas"),
    ],
)
def test_bad_input_to_axioms(arguments, message, capsys):
    assert axioms(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    for name in ("registry", "strategies"):
        monkeypatch.delitem(sys.modules, f"captum_advise.axioms.{name}", raising=False)
    assert axioms("captum.attr:LayerGradCam") == 2
    assert 'pip install "captum-advise[axioms]"' in capsys.readouterr().err
    monkeypatch.undo()
    importlib.import_module("captum_advise.axioms.registry")


@pytest.fixture
def small(monkeypatch):
    """A network of three blocks in place of the zoo's, whose maps take seconds."""
    model = nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 6, 3, stride=2),
            relu=nn.ReLU(),
            second=nn.Conv2d(6, 8, 3),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(8, 4),
        )
    ).eval()
    network = zoo.Network(
        name="small",
        model=model,
        layer=model.second,
        layer_name="second",
        pixel_space=PixelSpace.identity(),
        transform=lambda picture: (
            torch.from_numpy(np.array(picture.resize((24, 24)))).permute(2, 0, 1).div(255)
        ),
        class_names=("ant", "bee", "cat", "dog"),
        weights="random",
    )
    monkeypatch.setattr(zoo, "load", lambda *_arguments, **_options: network)
    return network


def test_sanity(tmp_path, capsys, small):
    picture = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).save(picture)
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    status = cli.main(
        [
            "sanity", str(picture), "--seeds", "2", "--target", "cat", "--no-labels",
            "--output", str(tmp_path / "out"),
        ]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0
    assert "small, second: cat" in out
    assert "edge detector does NOT depend on the parameters: 1.00 when all are random." in out
    assert all(torch.equal(value, before[k]) for k, value in small.model.state_dict().items())
    with (tmp_path / "out" / "sanity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 * 3 * 6
    assert {row["mode"] for row in rows} == {"cascading", "independent"}
    assert {row["method"] for row in rows} == {"ADVISE", "Grad-CAM", "edge detector"}
    assert {row["block"] for row in rows} == {"head", "second", "first"}
    assert {row["seed"] for row in rows} == {"0", "1"}
    for name in ("sanity_curves.png", "sanity_maps.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.width > 600


def test_sanity_with_labels(tmp_path, capsys, small):
    assert cli.main(["sanity", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "digits: shuffled against true labels" in out
    assert "Digits known by heart: 100.0% of true labels" in out


def test_bad_input_to_sanity(tmp_path, capsys):
    assert cli.main(["sanity", str(tmp_path / "none.png"), "--weights", "random"]) == 2
    assert "There is no picture" in capsys.readouterr().err
