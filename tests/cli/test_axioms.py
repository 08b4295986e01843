from __future__ import annotations

import importlib
import re
import sys

import hypothesis
import pytest

from captum_advise import axioms as library
from captum_advise import cli


@pytest.fixture(autouse=True)
def own_profile():
    """The command loads a profile of its own."""
    before = hypothesis.settings.get_current_profile_name()
    yield
    hypothesis.settings.load_profile(before)


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
    assert library.AXIOMS["linearity"].claim in out


def test_a_method_that_does_not(capsys):
    status = axioms("captum.attr:LayerActivation", "--axiom", "dummy_class")
    captured = capsys.readouterr()
    assert status == 1
    assert re.search(r"dummy_class\W+no\b", captured.out)
    assert "captum.attr:LayerActivation fulfils 0 of 1 axioms." in captured.out
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
        (["captum.attr:LayerGradCamera"], "has no 'LayerGradCamera' (did you mean LayerGradCam"),
        (["no_such_module:Method"], "There is no module 'no_such_module'"),
        (["captum.attr:LayerGradCam", "--axiom", "truth"], "There is no axiom 'truth'"),
        (["captum.attr:LayerGradCam", "--axiom", "dead_unit"], "(did you mean dead_units"),
        (["captum.attr:LayerGradCam", "--axiom", "Dead_Units"], "(did you mean dead_units"),
        (["gc:collect", "--axiom", "dead_units"], "a function (model, layer) that makes one."),
        (["captum.attr:LayerGradCam", "--argument", "n_steps"], "NAME=JSON"),
        (["captum.attr:LayerGradCam", "--channels", "many"], "'--channels'"),
        (["captum.attr:LayerGradCam", "--channels", "0"], "'--channels'"),
        (["captum.attr:LayerGradCam", "--spatial-dims", "4"], "'--spatial-dims'"),
        (["--argument", "n_steps=8"], "Missing argument 'MODULE:NAME'"),
    ],
)
def test_bad_input_to_axioms(arguments, message, capsys):
    assert axioms(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_a_method_that_fails(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n"
        "    def __init__(self, model, layer): pass\n"
        "    def attribute(self, inputs, target): return self.weights\n"
        "class Images(Mine):\n"
        "    def attribute(self, inputs, target):\n"
        "        raise RuntimeError(f'expected an image, got {inputs.dim()} dimensions')\n"
    )
    assert axioms(f"{file}:Mine", "--axiom", "linearity") == 2
    message = capsys.readouterr().err
    assert "Mine fails on linearity: AttributeError in mine.py, line 3: 'Mine' object" in message
    assert axioms(f"{file}:Images", "--axiom", "dead_units") == 2
    message = capsys.readouterr().err
    assert "RuntimeError in mine.py, line 6: expected an image, got 3 dimensions" in message
    assert "--spatial-dims and --channels" in message
    assert message.count("\n") == 1
    assert axioms("captum_advise:LayerAdvise", "--axiom", "linearity", "--spatial-dims", "1") == 2
    message = capsys.readouterr().err
    assert "LayerAdvise fails on linearity: ValueError: unit_selection=" in message  # no place


def test_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delattr(library, "AXIOMS", raising=False)
    for name in ("claims", "strategies"):
        monkeypatch.delitem(sys.modules, f"captum_advise.axioms.{name}", raising=False)
    assert axioms("captum.attr:LayerGradCam") == 2
    assert 'pip install "captum-advise[axioms]"' in capsys.readouterr().err
    monkeypatch.undo()
    importlib.import_module("captum_advise.axioms.claims")
