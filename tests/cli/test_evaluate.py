from __future__ import annotations

import shutil
import sys
from functools import partial

import pandas as pd
import pytest
import timm
from PIL import Image

from captum_advise import evaluation, zoo
from captum_advise.cli import main

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
    assert "Rows: 0 reused, 4 computed (new image: 4)." in shown.out
    results = pd.read_csv(output / "results.csv")
    assert results["file"].unique().tolist() == ["astronaut.png", "coffee.png"]
    failures = pd.read_csv(output / "failures.csv")
    assert failures["file"].tolist() == ["chelsea.png"]
    assert "truncated or damaged" in failures["reason"][0]
    # The same command again has only the torn image left.
    before = (output / "results.csv").read_bytes()
    assert main(command) == 1
    assert (output / "results.csv").read_bytes() == before
    text = capsys.readouterr().out
    assert "Rows: 4 reused, 0 computed." in text
    # Another one is computed.
    assert main([*command[:-1], "3"]) == 1
    text = capsys.readouterr().out
    assert "0 reused, 4 computed (the settings of metrics changed: 4)." in text


SMALL = ("--model", "timm/test_resnet", "--weights", "random", "--methods", "random,gaussian")


@pytest.mark.filterwarnings("ignore:.* no group")
def test_a_continued_run_says_what_it_reuses(photos, tmp_path, capsys, monkeypatch):
    output = tmp_path / "report"

    def run(data, *options):
        command = ["evaluate", "--data", data, "--output", output, *SMALL, "--steps", "1", *options]
        assert main(list(map(str, command))) == 0
        return capsys.readouterr().out

    assert "Rows: 0 reused, 6 computed (new image: 6)." in run(photos)
    shutil.copy(photos / "coffee.png", photos / "astronaut.png")
    (photos / "coffee.png").unlink()
    text = run(photos)
    assert "Rows: 2 reused, 2 computed (the image changed: 2)." in text
    # The folder in other words, and elsewhere.
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / "moved")
    assert "Rows: 4 reused, 0 computed." in run("./moved/")
    text = run("moved", "--seed", "1")  # random weights depend on it
    assert "0 reused, 4 computed (the weights and the seed changed: 4)." in text
    assert "Rows: 2 reused, 0 computed." in run("moved", "--limit", "1")
    text = run("moved", "--methods", "random,gaussian,grad-cam")
    assert "Rows: 4 reused, 2 computed (new method: 2)." in text
    text = run("moved", "--metrics", "default,mu_fidelity")
    assert "Rows: 0 reused, 4 computed (new metric: 4)" in text
    text = run("moved", "--recompute", "random", "--prune")
    assert "Rows: 2 reused, 2 computed (asked for again: 2)." in text


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


@pytest.mark.parametrize("name", ["lime_samples", "rise_masks"])
def test_settings_are_refused_before_anything_is_loaded(
    name, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(zoo, "load", None)
    command = ("--data", photos, "--output", tmp_path / "out", "--set")
    assert f"{name} must be at least 1" in complaint(capsys, *command, f"{name}=0")
    assert "a whole one, such as rise_masks" in complaint(capsys, *command, f"{name}=1.5")
    twice = (*command, f"{name}=1", "--set", f"{name}=2")
    assert f"setting {name} is given twice" in complaint(capsys, *twice)
    assert f"no setting '{name}_' (did you mean {name}" in complaint(capsys, *command, f"{name}_=1")
    assert "A setting is NAME=NUMBER" in complaint(capsys, *command, name)


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

    assert "no metric 'rod' (did you mean road" in complaint(capsys, *good, "--metrics", "rod")
    assert "shap cannot be computed again" in complaint(capsys, *good, "--recompute", "shap")
    output.mkdir()
    (output / "results.sqlite").write_text("mine")
    assert "results.sqlite is damaged, or not a file" in complaint(capsys, *good)
    assert (output / "results.sqlite").read_text() == "mine"


def test_an_empty_list_of_methods_is_refused(photos, tmp_path, capsys):
    assert "Name at least one method, with --methods." in complaint(
        capsys, "--data", photos, "--output", tmp_path / "report", "--methods", ""
    )


@pytest.mark.filterwarnings("ignore:.* no group")
def test_mosaics_are_added_to_the_images(tmp_path, capsys, monkeypatch):
    labels = tmp_path / "labels.csv"
    lines = ["file,class"]
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number}")
    labels.write_text("\n".join(lines))
    command = ["--data", labels, "--output", tmp_path / "out", *SMALL, "--steps", "1"]
    text = complaint(capsys, *command, "--mosaics", "2")
    assert "needs 4 classes in which the model has a confidence above 0.7" in text
    sure = partial(evaluation.mosaic_dataset, threshold=-1.0)
    monkeypatch.setattr(evaluation, "mosaic_dataset", sure)
    command += ["--mosaics", "2", "--n-mosaics", "1"]
    assert main(["evaluate", *map(str, command)]) == 0
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert results["file"].str.startswith("mosaic 1, cell").sum() == 4 * 2
    assert results["grid_top"].notna().sum() == 4 * 2
    assert results["road"].notna().sum() == 4 * 2


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
def test_the_paper_s_networks(model, layer, tmp_path):
    names = timm.data.ImageNetInfo().label_names()
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
    zoo.example_image().save(tmp_path / "val" / names[285] / "chelsea.jpg")
    command = ["evaluate", "--data", tmp_path / "val", "--model", model, "--layer", layer]
    command += ["--weights", "random", "--output", tmp_path / "report", "--steps", 2]
    methods = "layer-advise,layer-advise-reference,grad-cam,guided-grad-cam,grad-cam++"
    methods += ",xgrad-cam,layer-cam"
    assert main([*map(str, command), "--methods", f"{methods},random,gaussian"]) == 0
    results = pd.read_csv(tmp_path / "report" / "results.csv")
    assert len(results) == 9
    assert (results["target"] == 285).all()
    assert results.drop(columns=["file", "method"]).notna().all(axis=None)


def test_scenes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no folder of that name
    command = ["evaluate", "--data", "scenes", "--output", "report", "--limit", "1"]
    command += ["--methods", "grad-cam,random", "--metrics", "top_pixels,energy_against"]
    assert main([*command, "--model", "scenes-vit"]) == 0
    assert "Rows: 0 reused, 4 computed (new image: 4)." in capsys.readouterr().out
    results = pd.read_csv("report/results.csv")
    assert sorted(results["file"].unique()) == ["object 1: scene 0", "object 2: scene 0"]
    assert results[["top_pixels", "energy_against"]].notna().all(axis=None)
    text = complaint(capsys, *command[1:], "--model", "efficientnet-lite0", "--weights", "random")
    assert "take a network that was trained on scenes, such as scenes-resnet" in text
    text = complaint(capsys, *command[1:], "--model", "scenes-resnet", "--mosaics", "2")
    assert "leave --mosaics out" in text
