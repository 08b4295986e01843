from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import numpy
import pandas as pd
import pytest
import timm
import torch

from captum_advise import zoo
from captum_advise.cli import main
from captum_advise.evaluation import report

QUICK = ("--methods", "grad-cam,random", "--steps", "2", "--limit", "2")


def complaint(capsys, *arguments):
    """The one sentence on stderr of a command that fails."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1
    assert text[0].startswith("error: ")
    assert text[0].endswith(".")
    return text[0]


def test_a_folder_with_a_torn_image(photos, tmp_path, capsys):
    torn = photos / "chelsea.png"
    torn.write_bytes(torn.read_bytes()[:999])
    output = tmp_path / "report"
    command = ["evaluate", "--data", photos, "--output", output, "--methods", "grad-cam,random"]
    command += ["--model", "timm/test_resnet", "--weights", "random"]
    command = [str(argument) for argument in [*command, "--steps", "2"]]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "3/3" not in shown.err  # no bar without a terminal
    assert "Failed images: 1" in shown.out.replace("\n", " ")
    assert "reused" not in shown.out
    assert "a second: 50,000" in shown.out.replace("\n", " ")
    results = pd.read_csv(output / "results.csv")
    assert results["file"].unique().tolist() == ["astronaut.png", "coffee.png"]
    failures = pd.read_csv(output / "failures.csv")
    assert failures["file"].tolist() == ["chelsea.png"]
    assert "truncated or damaged" in failures["reason"][0]
    # The same command again has only the torn image left.
    before = (output / "results.csv").read_bytes()
    assert main(command) == 1
    assert (output / "results.csv").read_bytes() == before
    assert "Images: 2 reused from the earlier run, 0 evaluated now." in capsys.readouterr().out
    # Another one is refused.
    text = complaint(capsys, *command[1:-1], "3")
    assert "steps was 2 and is now 3" in text


SMALL = ("--model", "timm/test_resnet", "--weights", "random", "--methods", "random,gaussian")


@pytest.mark.filterwarnings("ignore:.* no group")
def test_a_continued_run_says_what_it_reuses(photos, tmp_path, capsys, monkeypatch):
    output = tmp_path / "report"

    def run(data, *options, status=0):
        command = ["evaluate", "--data", data, "--output", output, *SMALL, "--steps", "1", *options]
        assert main(list(map(str, command))) == status
        return capsys.readouterr().out

    assert "reused" not in run(photos)
    shutil.copy(photos / "coffee.png", photos / "astronaut.png")
    (photos / "coffee.png").unlink()
    text = run(photos)
    assert (
        "Images: 1 reused from the earlier run, 1 evaluated now (1 because it has changed), "
        "1 left out because it is not in the data." in text
    )
    # The folder in other words, and elsewhere.
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / "moved")
    assert "Images: 2 reused from the earlier run, 0 evaluated now, 1 left" in run("./moved/")
    text = complaint(
        capsys, "--data", "moved", "--output", output, *SMALL, "--steps", 1, "--seed", 1
    )
    assert "the weights of the model have changed" in text  # which are random
    assert "seed was 0 and is now 1" in text
    assert "--restart" in text
    text = run("moved", "--limit", "1")
    assert "1 reused from the earlier run, 0 evaluated now, 2 left out because they are" in text
    more = ("--methods", "random,gaussian,grad-cam")
    text = run("moved", *more)
    assert "0 reused from the earlier run, 2 evaluated now (2 only with the methods that" in text
    assert "a second" not in text
    assert "reused" not in run("moved", *more, "--seed", "1", "--recompute")
    assert "reused" not in run("moved", "--seed", "1", "--restart")
    assert json.loads((output / "run.json").read_text())["configuration"]["seed"] == 1


def test_weights_are_known_by_their_content(photos, tmp_path, monkeypatch):
    network = zoo.load("timm/test_resnet", weights="random")
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--data", "photos", "--output", "report", "--model", "timm/test_resnet"]
    command += ["--steps", "1", "--methods", "random", "--limit", "1", "--weights"]
    for path in ("weights.pth", "copy.pth", str(tmp_path / "weights.pth")):
        torch.save(network.model.state_dict(), path)
        assert main([*command, path]) == 0
    information = json.loads(Path("report/run.json").read_text())
    assert len(information["sessions"]) == 1
    assert information["weights"] == str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--batch-size", 0),
        ("--steps", 0),
        ("--limit", 0),
        ("--limit", -5),
        ("--seed", -1),
        ("--mosaics", 1),
        ("--n-mosaics", 0),
        ("--integrated-gradients-steps", 0),
        ("--expected-gradients-samples", 0),
        ("--smooth-grad-samples", 0),
        ("--rise-masks", 0),
        ("--lime-samples", 0),
        ("--lime-grid", 0),
        ("--occlusion-windows", 0),
        ("--smooth-grad-cam-samples", 0),
        ("--is-cam-samples", 0),
    ],
)
def test_numbers_are_refused_before_anything_is_loaded(
    option, value, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(zoo, "load", None)
    command = ["--data", photos, "--output", tmp_path / "out", option, value]
    assert main(["evaluate", *map(str, command)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: Invalid value for '{option}'")


def test_an_output_in_the_data_is_refused_before_anything_is_loaded(
    photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(zoo, "load", None)
    (tmp_path / "link").symlink_to(photos)
    for output in (photos, photos / "report", tmp_path / "link" / "report"):
        text = complaint(capsys, "--data", photos, "--output", output, *QUICK)
        assert "is in the data" in text
        assert "another output folder" in text


def test_a_stopped_run_ends_with_130(photos, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "load", stopped)
    assert main(["evaluate", "--data", str(photos), "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "Stopped; the same command continues.\n"


def test_bad_input_is_one_sentence(photos, tmp_path, capsys, monkeypatch):
    output = tmp_path / "report"
    good = ("--data", photos, "--output", output, *QUICK)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "There is no image in" in complaint(capsys, "--data", empty, "--output", output, *QUICK)
    (empty / "notes.txt").write_text("")
    assert "There is no image in" in complaint(capsys, "--data", empty, "--output", output, *QUICK)
    assert "no method 'gradcam' (did you mean grad-cam" in complaint(
        capsys, "--data", photos, "--output", output, "--methods", "gradcam"
    )
    assert "cannot be written (Not a directory)" in complaint(
        capsys, "--data", photos, "--output", empty / "notes.txt" / "report", *QUICK
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchcam", None)
        text = complaint(capsys, *good, "--methods", "layer-cam")
        assert 'pip install "captum-advise[peers]"' in text
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "scipy.stats", None)
        text = complaint(capsys, *good)
        assert 'pip install "captum-advise[evaluation]"' in text
    assert not output.exists()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "cannot be written (No space left on device)" in complaint(capsys, *good)
    assert [entry.name for entry in output.iterdir()] == [".lock"]


@pytest.mark.filterwarnings("ignore:.* no group")
def test_maps_from_files(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "gallery", lambda *_: None)
    monkeypatch.setattr(report, "to_png", lambda _: b"")
    maps = tmp_path / "maps"
    maps.mkdir()
    output = tmp_path / "report"
    command = ["--data", photos, "--output", output, "--model", "timm/test_resnet", "--steps", 1]
    command += ["--weights", "random", "--methods", "grad-cam"]
    for wrong, sentence in (
        ("maps", "--maps takes NAME=FOLDER, got 'maps'"),
        (f"mine={maps / 'none'}", "There is no folder of maps"),
        (f"mine={maps}", "There is no map in"),
    ):
        assert sentence in complaint(capsys, *command, "--maps", wrong)
    for name in ("astronaut", "coffee"):
        numpy.save(maps / f"{name}.npy", numpy.random.default_rng(0).random((5, 6)))
    assert "grad-cam is the name of a method" in complaint(
        capsys, *command, "--maps", f"grad-cam={maps}"
    )
    twice = ("--maps", f"mine={maps}", "--maps", f"mine={maps}")
    assert "--maps names mine twice" in complaint(capsys, *command, *twice)
    command += ["--maps", f"mine={maps}", "--maps", f"again={maps}"]
    assert main(["evaluate", *map(str, command)]) == 1
    capsys.readouterr()
    results = pd.read_csv(output / "results.csv")
    assert results["method"].tolist() == ["grad-cam", "mine", "again"] * 2
    failures = pd.read_csv(output / "failures.csv")
    assert failures["reason"].tolist() == [
        f"There is no map of chelsea.png in {maps}: save it as chelsea.npy, .npz or .png."
    ]
    # Maps alone are enough, and are added later.
    numpy.save(maps / "chelsea.npy", numpy.ones((3, 3)))
    assert main(["evaluate", *map(str, command)]) == 0
    assert "2 reused from the earlier run, 1 evaluated now" in capsys.readouterr().out
    alone = ["evaluate", *map(str, command), "--restart", "--methods", ""]
    assert main(alone) == 0
    capsys.readouterr()
    assert "Name at least one method, with --methods or --maps" in complaint(
        capsys, "--data", photos, "--output", output, "--methods", ""
    )


@pytest.mark.filterwarnings("ignore:.* no group")
def test_metrics_are_checked_with_the_first_method(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "gallery", lambda *_: None)
    monkeypatch.setattr(report, "to_png", lambda _: b"")
    torn = photos / "chelsea.png"
    torn.write_bytes(torn.read_bytes()[:999])
    output = tmp_path / "checks"
    command = ["--data", photos, "--output", output, *SMALL[:4], "--methods", "gaussian,grad-cam"]
    command += ["--steps", "4", "--check-metrics"]
    assert main(["evaluate", *map(str, command)]) == 1
    shown = capsys.readouterr().out
    for text in ("Degraded maps", "Monotone changes", "other class", "Failed images: 1"):
        assert text in shown
    assert "metric_checks.md" in shown.replace("\n", "")
    results = pd.read_csv(output / "results.csv").set_index(["file", "method"])
    table = pd.read_csv(output / "metric_checks.csv").set_index(["metric", "change"])
    # The centred Gaussian map depends neither on the class nor on the image.
    assert table.loc[("insertion", "other class"), "worse"] == 0
    for file in ("astronaut.png", "coffee.png"):
        for change in ("original", "other class"):
            assert results.loc[(file, change), "sparseness"] == pytest.approx(0.424, abs=2e-3)
    row, _ = (line for line in shown.splitlines() if line.startswith("│ sparseness"))
    cells = [cell.strip().rstrip("*") for cell in row.strip("│").split("│")]
    assert cells[4] == f"{table.loc[('sparseness', 'other class'), 'worse']:.0%}" == "0%"
    maps = ("--maps", f"mine={photos}")
    assert "leave --maps out" in complaint(capsys, *command, *maps)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:999 of the 1000 folders")
@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("alexnet", "features.10"),
        ("vgg16", "features.28"),
        ("resnet50", "layer4"),
        ("xception", "conv4.pointwise"),
    ],
)
def test_the_paper_s_networks_run_from_weights_files(model, layer, tmp_path):
    weights = tmp_path / "random-weights.pth"
    torch.save(zoo.load(model, weights="random", seed=1).model.state_dict(), weights)
    names = timm.data.ImageNetInfo().label_names()
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
    zoo.example_image().save(tmp_path / "val" / names[285] / "chelsea.jpg")
    command = ["evaluate", "--data", tmp_path / "val", "--model", model, "--layer", layer]
    command += ["--weights", weights, "--output", tmp_path / "report", "--steps", 2]
    methods = "layer-advise,layer-advise-reference,grad-cam,guided-grad-cam,grad-cam++"
    methods += ",xgrad-cam,layer-cam"
    assert main([*map(str, command), "--methods", f"{methods},random,gaussian"]) == 0
    results = pd.read_csv(tmp_path / "report" / "results.csv")
    assert len(results) == 9
    assert (results["target"] == 285).all()
    assert results.drop(columns=["file", "method"]).notna().all(axis=None)
