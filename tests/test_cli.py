from __future__ import annotations

import collections
import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from skimage import data

from captum_advise import __version__, cli, zoo

SMALL = ("--model", "timm/test_resnet", "--weights", "random")


def explain(*arguments, output: Path) -> int:
    return cli.main(["explain", *map(str, arguments), "--output", str(output)])


def numbers(path: Path) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cat(tmp_path):
    path = tmp_path / "cat.jpg"
    Image.fromarray(data.chelsea()).save(path)
    return path


# --- the default picture and network


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "results"
    finished = subprocess.run(
        [sys.executable, "-m", "captum_advise", "explain", "--layer", "_bn1", "-o", str(output)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={key: value for key, value in os.environ.items() if key != "DISPLAY"}
        | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished, output


def test_default_run_prints_the_prediction_and_both_scores(default_run):
    finished, output = default_run
    assert finished.stderr == ""
    found = numbers(output / "chelsea.json")
    advise, grad_cam = (found[name]["scores"]["avx"] for name in ("advise", "grad_cam"))
    for part in (
        f"{found['predicted']['name']} ({found['predicted']['index']})",
        f"confidence {found['predicted']['confidence']:.1%}",
        f"relevance score {found['advise']['selected']} kept: {found['advise']['units']} of 1280",
        f"AVX                    │ {advise:.3f}  │ {grad_cam:.3f}",
        str(output / "chelsea.png"),
    ):
        assert part in finished.stdout


def test_default_run_against_the_network_and_captum(default_run):
    found = numbers(default_run[1] / "chelsea.json")
    net = zoo.load("efficientnet-lite0", layer="_bn1")
    inputs = net.transform(Image.fromarray(data.chelsea())).unsqueeze(0)
    confidence, index = net.model(inputs).softmax(1).max(1)
    assert found["predicted"]["index"] == index.item()
    assert found["predicted"]["confidence"] == pytest.approx(confidence.item(), abs=1e-5)
    assert "cat" in found["predicted"]["name"]
    assert found["target"] == found["predicted"]
    grad_cam = LayerGradCam(net.model, net.layer).attribute(inputs, index)[0, 0]
    torch.testing.assert_close(torch.tensor(found["attributions"]["grad_cam"]), grad_cam)


def test_default_run_keeps_the_best_group(default_run):
    found = numbers(default_run[1] / "chelsea.json")
    counts = collections.Counter(found["unit_relevance"])
    assert len(found["unit_relevance"]) == 1280
    assert all(counts[group["relevance"]] == group["units"] for group in found["groups"])
    best = max(found["groups"], key=lambda group: group["scores"]["avx"])
    assert found["advise"]["selected"] == best["relevance"]
    assert found["advise"]["scores"]["avx"] == best["scores"]["avx"]
    assert found["selected_units"] == [
        unit for unit, score in enumerate(found["unit_relevance"]) if score == best["relevance"]
    ]


def test_default_run_writes_a_panel(default_run):
    _, output = default_run
    assert files(output) == ["chelsea.json", "chelsea.png"]
    with Image.open(output / "chelsea.png") as panel:
        assert panel.width > 1500
        assert panel.width > 2 * panel.height
        assert np.asarray(panel.convert("L")).std() > 20


# --- pictures


def test_several_pictures_of_which_some_are_bad(cat, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "half.jpg").write_bytes(cat.read_bytes()[:9000])
    grey = tmp_path / "grey.png"
    Image.fromarray(data.camera()).save(grey)
    bad = ["missing.png", tmp_path / "notes.txt", tmp_path / "half.jpg", tmp_path]
    output = tmp_path / "out"
    assert explain(cat, *bad, grey, *SMALL, output=output) == 1
    printed = capsys.readouterr()
    assert files(output) == ["cat.json", "cat.png", "grey.json", "grey.png"]
    complaints = printed.err.splitlines()
    assert len(complaints) == 5
    for complaint, name in zip(complaints, bad, strict=False):
        assert complaint.startswith("error: ")
        assert str(name) in complaint
    assert complaints[-1] == "error: 4 of 6 pictures could not be explained."
    assert printed.out.count("AVX") == 2


def test_pictures_of_the_same_name_are_kept_apart(cat, tmp_path):
    for folder, shade in (("a", 30), ("B", 220)):
        (tmp_path / folder).mkdir()
        Image.new("L", (60, 60), shade).save(
            tmp_path / folder / f"{'cat' if shade < 99 else 'CAT'}.png"
        )
    output = tmp_path / "out"
    pictures = [cat, tmp_path / "a" / "cat.png", tmp_path / "B" / "CAT.png"]
    assert explain(*pictures, *SMALL, output=output) == 0
    names = ["cat", "cat-2", "CAT-3"]
    assert files(output) == sorted(f"{name}.{end}" for name in names for end in ("json", "png"))
    for name, picture in zip(names, pictures, strict=True):
        assert numbers(output / f"{name}.json")["picture"] == str(picture)


def test_a_picture_in_the_output_folder_is_not_replaced(tmp_path):
    picture = tmp_path / "grey.png"
    Image.fromarray(data.camera()).save(picture)
    before = picture.read_bytes()
    assert explain(picture, *SMALL, output=tmp_path) == 0
    assert picture.read_bytes() == before
    assert files(tmp_path) == ["grey-2.json", "grey-2.png", "grey.png"]


def test_a_failed_write_leaves_nothing_behind(cat, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    output = tmp_path / "out"
    assert explain(cat, *SMALL, output=output) == 1
    assert f"{output / 'cat.png'} cannot be written: No space left" in capsys.readouterr().err
    assert files(output) == []


# --- options


def test_target_by_name(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--target", "EGYPTIAN", output=tmp_path) == 0
    found = numbers(tmp_path / "cat.json")
    assert found["target"]["index"] == 285
    assert "explained: Egyptian cat (285)" in capsys.readouterr().out


def test_selection_of_scores(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--selection", "1,2", output=tmp_path) == 0
    found = numbers(tmp_path / "cat.json")
    kept = [unit for unit, score in enumerate(found["unit_relevance"]) if score in (1, 2)]
    assert found["selection"] == [1, 2]
    assert found["selected_units"] == kept
    assert f"{len(kept)} of 96 units" in capsys.readouterr().out


def test_selection_that_no_unit_has(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--selection", "99", output=tmp_path) == 0
    assert numbers(tmp_path / "cat.json")["advise"]["units"] == 0
    assert "no units kept: 0 of 96 units" in capsys.readouterr().out


def test_activation_range_and_confidence(cat, tmp_path):
    options = ("--activation-range", "minmax", "--selection", "confidence")
    assert explain(cat, *SMALL, *options, output=tmp_path) == 0
    found = numbers(tmp_path / "cat.json")
    least = min(group["scores"]["average_drop"] for group in found["groups"])
    assert (found["activation_range"], found["selection"]) == ("minmax", "confidence")
    assert found["advise"]["scores"]["average_drop"] == pytest.approx(least, abs=1e-6)


def test_weights_from_a_file(cat, tmp_path):
    seeded = zoo.load(SMALL[1], weights="random", seed=7)
    torch.save(seeded.model.state_dict(), tmp_path / "w.pth")
    options = (*SMALL[:2], "--weights", tmp_path / "w.pth")
    assert explain(cat, *options, output=tmp_path / "out") == 0
    found = numbers(tmp_path / "out" / "cat.json")
    with torch.no_grad():
        logits = seeded.model(seeded.transform(zoo.open_picture(cat)).unsqueeze(0))
    assert found["predicted"]["confidence"] == pytest.approx(logits.softmax(1).max().item(), 1e-5)
    assert found["weights"] == str(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "resnt50"), "did you mean resnet50"),
        (("--layer", "_conv_hed"), "did you mean _conv_head"),
        (("--target", "blob"), "no class 'blob'"),
        (("--target", "1000"), "0 to 999"),
        (("--selection", "best"), "--selection must be"),
        (("--selection", "-1"), "--selection must be"),
        (("--activation-range", "tanh"), "--activation-range must be"),
        (("--device", "gpu"), "device 'gpu'"),
        (("--weights", "missing.pth"), "no weights file missing.pth"),
        (("--colour", "red"), "--colour"),
        (("--model",), "--model"),
    ],
)
def test_bad_options(options, says, tmp_path, capsys):
    assert cli.main(["explain", "-o", str(tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (complaint,) = printed.err.splitlines()
    assert complaint.startswith("error: ")
    assert says in complaint
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert explain(output=tmp_path / "out") == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "out cannot be made" in complaint


def test_unknown_command(capsys):
    assert cli.main(["explian"]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "explian" in complaint


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"captum-advise {__version__}\n"
    assert cli.main([]) == 0
    assert "explain" in capsys.readouterr().out
    assert cli.main(["explain", "--help"]) == 0
    text = capsys.readouterr().out
    assert "captum-advise explain dog.jpg cat.png --output results\n" in text
    for option in ("model", "layer", "weights", "target", "selection", "output", "device"):
        assert f"--{option}" in text


@pytest.mark.parametrize("command", [[], ["explain"], ["evaluate"], ["sanity"], ["axioms"]])
def test_help_has_examples(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    examples = capsys.readouterr().out.split("Examples:")[1]
    assert f"  {' '.join(['captum-advise', *command])} " in examples


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("captum-advise ev", ["evaluate"]), ("captum-advise explain --model alex", ["alexnet"])],
)
def test_completion_in_bash(typed, completed):
    # What the script that --install-completion writes calls at every tab.
    done = subprocess.run(
        [sys.executable, "-c", "from captum_advise.cli import main; main()"],
        env={
            **os.environ,
            "_CAPTUM_ADVISE_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == completed, done.stderr


# --- messages


@pytest.mark.filterwarnings("always")
def test_warnings_are_one_line(cat, tmp_path, capsys, monkeypatch):
    load = zoo.load

    def warn(*arguments, **options):
        warnings.warn("Something\n  odd.", UserWarning, stacklevel=1)
        return load(*arguments, **options)

    monkeypatch.setattr(zoo, "load", warn)
    shown = warnings.showwarning
    assert explain(cat, *SMALL, output=tmp_path) == 0
    assert capsys.readouterr().err == "warning: Something odd.\n"
    assert warnings.showwarning is shown


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "captum_advise.cli")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r'typer: pip install "captum-advise\[demo\]"'):
        importlib.import_module("captum_advise.cli")


def test_bugs_are_not_hidden(cat, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise AttributeError("a bug")

    monkeypatch.setattr(zoo, "load", broken)
    with pytest.raises(AttributeError, match="a bug"):
        explain(cat, output=tmp_path)


def test_numbers_that_json_does_not_have():
    assert cli._finite({"a": [float("nan"), 1.0], "b": float("inf")}) == {
        "a": [None, 1.0],
        "b": None,
    }
