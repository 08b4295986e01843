from __future__ import annotations

import errno
import os
import sys

import pandas as pd
import pytest
import torch

from captum_advise import zoo
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
    command = [str(argument) for argument in [*command, "--steps", "2"]]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "Failed images: 1" in shown.out.replace("\n", " ")
    assert "a second: 50,000" in shown.out.replace("\n", " ")
    results = pd.read_csv(output / "results.csv")
    assert results["file"].unique().tolist() == ["astronaut.png", "coffee.png"]
    failures = pd.read_csv(output / "failures.csv")
    assert failures["file"].tolist() == ["chelsea.png"]
    assert "truncated or damaged" in failures["reason"][0]
    # The same command again has only the torn image left.
    before = (output / "results.csv").read_bytes()
    assert main(command) == 0
    assert (output / "results.csv").read_bytes() == before
    capsys.readouterr()
    # Another one is refused.
    text = complaint(capsys, *command[1:-1], "3")
    assert "steps was 2 and is now 3" in text


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
    assert "steps must be at least 1" in complaint(capsys, *good, "--steps", 0)
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


@pytest.mark.slow
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
    names = [f"n{index:08d}" for index in range(1000)]
    for name in names:
        (tmp_path / "val" / name).mkdir(parents=True)
    zoo.example_image().save(tmp_path / "val" / names[285] / "chelsea.jpg")
    command = ["evaluate", "--data", tmp_path / "val", "--model", model, "--layer", layer]
    command += ["--weights", weights, "--output", tmp_path / "report", "--steps", 2]
    methods = "advise,advise-reference,grad-cam,guided-grad-cam,grad-cam++,xgrad-cam,layer-cam"
    assert main([*map(str, command), "--methods", f"{methods},random,gaussian"]) == 0
    results = pd.read_csv(tmp_path / "report" / "results.csv")
    assert len(results) == 9
    assert (results["target"] == 285).all()
    assert results.drop(columns=["file", "method"]).notna().all(axis=None)
