"""Networks of the caller's: --model PACKAGE.MODULE:NAME and FILE.py:NAME."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from messages import one_sentence

from captum_advise import PixelSpace, cli, zoo
from captum_advise.cli.networks import load_network

CODE = """
from dataclasses import dataclass

import timm, torch
from torch import nn
from torchvision.transforms import v2

import colours
from captum_advise import targets, zoo

@dataclass
class Settings:
    classes: int = 3

class View(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1)  # fails where x is channels last

class Net(nn.Sequential):
    def __init__(self, classes=Settings().classes):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), View(),
            nn.Linear(16, classes),
        )

def small():
    return timm.create_model("test_resnet", num_classes=5)

def network():
    steps = [v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return zoo.describe(
        Net(), transform=v2.Compose([*steps, v2.Normalize(colours.MEAN, colours.MEAN)]),
        class_names=["cat", "dog", "cow"], layer="1",
    )

class Named(Net):
    def forward(self, x):
        return {"scores": super().forward(x)}

def wrapped():
    return zoo.describe(
        targets.Output(Named(), "scores"), transform=network().transform, layer="1",
        class_names=["cat", "dog", "cow"],
    )

instance = small()
number = 3
def sized(classes, /, depth=2): return small()
def broken(): return 1 / 0
def wrong(): return {"model": small()}
def leaves(): raise SystemExit("no weights")
def reads(): import json; json.loads("{")
def describes(): return zoo.describe(Net())
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with a file and a package of models, the current one."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "colours.py").write_text("MEAN = [0.25, 0.5, 0.75]")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "models.py").write_text(CODE)
    (tmp_path / "syntax.py").write_text("x = (")
    (tmp_path / "imports_syntax.py").write_text("x = 1\nimport syntax")
    (tmp_path / "arguments.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--rate', required=True)\nparser.parse_args([])"
    )
    (tmp_path / "package" / "relative.py").write_text("from .models import small")
    installed = tmp_path / "site-packages" / "installed"
    installed.mkdir(parents=True)
    (installed / "models.py").write_text("def broken():\n    return 1 / 0")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    (tmp_path / "needs.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "raises.py").write_text("x = 1\nraise ValueError('two\\nlines')")
    monkeypatch.chdir(tmp_path)
    for name in ("colours", "package", "package.models", "syntax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("source", ["mine.py", "./mine.py", "package.models", "/mine.py"])
def test_a_model_of_a_function(source, models):
    source = f"{models}{source}" if source.startswith("/") else source
    before = list(sys.path), torch.get_rng_state()
    network = load_network(f"{source}:small")
    assert (sys.path, torch.get_rng_state().equal(before[1])) == (before[0], True)
    assert (network.name, network.weights) == (f"{source}:small", "the model's")
    assert (network.layer_name, len(network.class_names)) == ("layer4", 5)
    assert not network.model.training
    assert type(network.model).__module__.startswith("timm")
    again = load_network(f"{source}:small")
    assert network.model.fc.weight.equal(again.model.fc.weight)  # the seed's
    assert not load_network(f"{source}:small", seed=1).model.fc.weight.equal(again.model.fc.weight)


def test_an_instance_and_a_layer_by_name(models):
    assert load_network("mine.py:instance", layer="layer3").layer_name == "layer3"


def test_a_network_is_taken_as_it_is(models):
    network = load_network("mine.py:network")
    assert network.pixel_space == PixelSpace((0.25, 0.5, 0.75), (0.25, 0.5, 0.75))
    assert network.class_names == ("cat", "dog", "cow")
    assert network.transform(zoo.example_image()).shape == (3, 32, 32)
    other = load_network("mine.py:network", layer="0")
    assert other.layer is other.model[0]
    assert (other.name, other.pixel_space) == ("mine.py:network", network.pixel_space)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("there_is_none.py:make", r"^There is no file there_is_none.py\.$"),
        ("there.is_none:make", "^There is no module 'there', here or among"),
        ("package.none:make", "^There is no module 'package.none', here or among"),
        (r"C:\\x\\file.py:make", r"^There is no file C:\\\\x\\\\file.py\.$"),
        ("mine.py", "names no function: give mine.py:NAME"),
        ("mine.py:smal", r"^mine.py has no 'smal' \(did you mean small"),
        ("mine.py:", "^mine.py has no ''"),
        ("package.models:netwrk", r"has no 'netwrk' \(did you mean network"),
        ("mine.py:number", "gives a int, not a torch.nn.Module"),
        ("mine.py:wrong", "gives a dict, not a torch.nn.Module or a captum_advise.zoo.Network"),
        ("mine.py:sized", "called without arguments and needs some .*'classes'"),
        (
            "mine.py:broken",
            r"^mine.py:broken fails: ZeroDivisionError in mine.py, line 49: division by zero\.$",
        ),
        ("syntax.py:make", "syntax.py cannot be imported: line 1, '.' was never closed"),
        (
            "imports_syntax.py:make",
            "imports_syntax.py cannot be imported: line 1 of syntax.py, '.' was",
        ),
        ("mine.py:leaves", "^mine.py:leaves fails: SystemExit in mine.py, line 51: no weights"),
        ("mine.py:reads", "^mine.py:reads fails: JSONDecodeError in mine.py, line 52: Expecting"),
        ("mine.py:describes", "^mine.py:describes fails: ValueError in mine.py, line 53: Net is"),
        ("installed.models:broken", "^installed.models:broken fails: .* in models.py, line 2: div"),
        (
            "arguments.py:make",
            "^arguments.py cannot be imported: SystemExit in arguments.py, line 4",
        ),
        (
            "package/relative.py:small",
            "a file with relative imports is named by its package, as in",
        ),
        ("needs.py:make", "cannot be imported: .* No module named 'a_package_that_is_not_there'"),
        ("raises.py:make", r"^raises.py cannot be imported: ValueError in raises.py, line 2: two"),
        (
            "mine.py:Net",
            "^mine.py:Net: Net is not a model of timm.* pass transform.*; Net can do so and return "
            r"captum_advise.zoo.describe\(model, ...\)",
        ),
    ],
)
def test_what_is_no_model(model, message, models):
    before = list(sys.path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_network(model)
    one_sentence(error)
    assert sys.path == before


def test_options_that_do_not_fit(models):
    with pytest.raises(ValueError, match="--weights random is for networks of the zoo") as error:
        load_network("mine.py:small", weights="random")
    one_sentence(error)
    with pytest.raises(ValueError, match=r"no layer 'layer9' \(did you mean layer") as error:
        load_network("mine.py:small", layer="layer9")
    assert "describe" not in one_sentence(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", ["network", "wrapped"])
@pytest.mark.parametrize("command", ["explain", "evaluate", "sanity", "layers"])
def test_commands_take_it(command, factory, models, cat, photos, capsys):
    arguments = {
        "explain": [str(cat), "--target", "dog", "--output", "out"],
        "evaluate": [
            *("--data", str(photos), "--output", "out", "--limit", "1", "--steps", "2"),
            *("--methods", "grad-cam,random"),
        ],
        "sanity": [str(cat), "--output", "out"],
        "layers": [],
    }
    model = f"package.models:{factory}"
    assert cli.main([command, *arguments[command], "--model", model]) == 0
    out, err = capsys.readouterr()
    assert "%|" not in err  # no bar where there is no terminal
    if command == "explain":
        record = json.loads(next((models / "out").glob("*.json")).read_text())
        assert record["setup"]["model"] == model
        assert record["setup"]["class_names"][record["target"][0]] == "dog"
    elif command == "layers":
        assert "4 x 32 x 32" in out
    else:
        assert list((models / "out").iterdir())


def test_a_device_that_this_machine_does_not_have():
    with pytest.raises(ValueError, match=r"device 'cuda:99' cannot be used here \("):
        load_network("timm/test_resnet", weights="random", device="cuda:99")
