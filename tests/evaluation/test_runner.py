from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerGradCam
from scipy.integrate import trapezoid
from squares import SPACE, Squares, squares_network

from captum_advise.evaluation import (
    MethodError,
    MetricSettings,
    OutputError,
    evaluate,
)
from captum_advise.evaluation.columns import NOT_REPRODUCIBLE
from captum_advise.metrics import deletion_auc, insertion_auc

METHODS = ("layer-advise", "grad-cam", "lime", "random")
OPTIONS = {
    "pixel_space": SPACE,
    "method_settings": {"lime_samples": 20, "lime_grid": 3},
    "settings": MetricSettings(steps=3),
    "progress": False,
}
REPORT = {
    *("curves.csv", "report.html", "results.csv", "results.parquet", "rows.csv"),
    *("run.json", "summary.csv"),
}


def run(output, dataset=None, methods=METHODS, **options):
    network = squares_network()
    dataset = Squares() if dataset is None else dataset
    return evaluate(network, network[3], dataset, methods, output, **{**OPTIONS, **options})


def reproducible(folder):
    return pd.read_csv(Path(folder) / "results.csv", dtype=str).drop(columns=[*NOT_REPRODUCIBLE])


def same_curves(folder, other):
    return (Path(folder) / "curves.csv").read_bytes() == (other / "curves.csv").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run in one process."""
    return run(tmp_path_factory.mktemp("whole"))


class Interrupted(Squares):
    """Interrupted while the fourth image is read."""

    def __getitem__(self, index):
        if index == 3:
            raise KeyboardInterrupt
        return super().__getitem__(index)


class Unreadable(Squares):
    def __getitem__(self, index):
        if index in (0, 3):
            raise ValueError(f"The image {index} is damaged.")
        return super().__getitem__(index)


def test_the_results_are_those_of_the_metrics(whole):
    table = whole.results.set_index(["index", "method"])
    assert len(table) == 5 * len(METHODS)
    assert whole.evaluated == 5
    squares, network = Squares(), squares_network()
    for index, (inputs, label) in enumerate(squares):
        inputs = inputs[None]
        outputs = network(inputs).softmax(1)
        row = table.loc[(index, "grad-cam")]
        target = outputs.argmax(1) if label is None else torch.tensor([label])
        assert row["target"] == target
        assert row["predicted"] == outputs.argmax(1)
        assert row["confidence"] == pytest.approx(outputs[0, target].item(), rel=1e-5)
        assert row["file"] == squares.names[index]
        weights = network[7].weight[target].view(8, 3, 3)
        # The layer's values, by hand, and its gradients, by autograd on the rest of the network.
        values = network[:4](inputs).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(network[4:](values * 1)[0, target].sum(), values)
        maps = (gradients.mean((2, 3), keepdim=True) * values.detach()).sum(1, keepdim=True).relu()
        assert weights.shape == (8, 3, 3)
        maps = torch.nn.functional.interpolate(
            maps, (24, 24), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, maps.max())
        options = {"steps": 3}
        for metric, area in (
            ("insertion", insertion_auc(network, inputs, maps, target, **options)),
            (
                "deletion",
                deletion_auc(network, inputs, maps, target, pixel_space=SPACE, **options),
            ),
        ):
            assert row[metric] == pytest.approx(area.item(), rel=1e-4)


def test_the_report_is_complete(whole):
    assert {entry.name for entry in whole.folder.iterdir()} == {*REPORT, ".lock"}
    text = (whole.folder / "report.html").read_text()
    assert "favour layer-advise, which selects by AVX" in text
    assert text.index("insertion AUC") < text.index('"AVX"')
    assert '["steps","3"]' in text
    assert '"images":5,' in text
    information = json.loads((whole.folder / "run.json").read_text())
    assert information["configuration"]["methods"]["lime"]["lime_samples"] == 20
    assert information["configuration"]["layer"] == "3"
    assert information["configuration"]["format"] == 4
    assert information["versions"]["torch"] == metadata.version("torch")
    assert information["sessions"][0]["images"] == 5
    assert information["data"] == {"images": 5}
    assert whole.results["content"].str.fullmatch("[0-9a-f]{16}").all()
    means = whole.results.groupby("method")["deletion"].mean()
    summary = whole.summary.set_index(["metric", "method"])
    for method in METHODS:
        assert summary.loc[("deletion", method), "mean"] == pytest.approx(means[method], rel=1e-6)


def test_the_areas_and_means_of_the_stored_curves_are_the_metrics(whole):
    curves = pd.read_csv(whole.folder / "curves.csv")
    assert len(curves) == 5 * len(whole.results)
    results = whole.results.set_index(["file", "content", "method"])
    for row in curves.itertuples():
        values = [float(value) for value in row.values.split()]
        value = results.at[(row.file, row.content, row.method), row.curve]
        if row.curve == "road":
            assert len(values) == 9
            assert np.mean(values) == pytest.approx(value, abs=1e-4)
        else:
            assert len(values) == 4
            assert trapezoid(values, dx=1 / 3) == pytest.approx(value, abs=1e-4)


def test_the_page_has_the_run(whole):
    page = (whole.folder / "report.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["methods"] == list(METHODS)
    assert [image["file"] for image in data["gallery"]] == [f"square {i}" for i in range(5)]
    assert all(len(image["maps"]) == len(METHODS) for image in data["gallery"])
    *curves, road = data["curves"]
    assert (road["name"], road["start"], road["end"]) == ("road", 0.1, 0.9)
    names = ("insertion", "deletion", "insertion_black", "deletion_blurred")
    for curve, name in zip(curves, names, strict=True):
        for method, line in zip(METHODS, curve["lines"], strict=True):
            assert line["images"] == 5
            of_method = whole.results["method"] == method
            mean = whole.results.loc[of_method, name].mean()
            assert trapezoid(line["mean"], dx=1 / 3) == pytest.approx(mean, abs=1e-4)


def test_an_interrupted_run_continues_to_the_same_table(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Interrupted())
    assert not (tmp_path / "results.csv").exists()
    part = tmp_path / "results.rank0.csv"
    assert len(part.read_text().splitlines()) == 1 + 3 * len(METHODS)
    part.write_bytes(part.read_bytes()[:-40])
    resumed = run(tmp_path)
    assert resumed.evaluated == 3
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))
    assert same_curves(tmp_path, whole.folder)
    before = (tmp_path / "results.csv").read_bytes()
    assert run(tmp_path).evaluated == 0
    assert (tmp_path / "results.csv").read_bytes() == before


SCRIPT = """
import os, sys, time
sys.path[:0] = {path!r}
import torch
import test_runner

class Slow(test_runner.Squares):
    def __getitem__(self, index):
        time.sleep({pause})
        return super().__getitem__(index)

torch.set_num_threads(1)
if {write_pid}:
    with open(f"{{sys.argv[1]}}.{{os.environ['RANK']}}.pid", "w") as stream:
        stream.write(str(os.getpid()))
test_runner.run(sys.argv[1], Slow(){options})
"""


@pytest.fixture
def script(tmp_path):
    def written(pause, options="", write_pid=False):
        path = tmp_path / "script.py"
        tests = Path(__file__).parents[1]
        folders = [str(tests / name) for name in ("evaluation", "helpers")]
        path.write_text(
            SCRIPT.format(path=folders, pause=pause, options=options, write_pid=write_pid)
        )
        return path

    return written


def test_a_killed_run_continues_to_the_same_table(whole, tmp_path, script):
    output = tmp_path / "out"
    part = output / "results.rank0.csv"
    process = subprocess.Popen([sys.executable, script(pause=1), output])
    try:
        deadline = time.monotonic() + 300
        while not part.exists() or part.read_text().count("\n") < 1 + len(METHODS):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (output / "results.csv").exists()
    assert 0 < run(output).evaluated < 5
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    assert same_curves(output, whole.folder)


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed_continue_to_the_same_table(whole, tmp_path, script):
    output = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3"]
    command = [*launcher, "--standalone", str(script(pause=2, write_pid=True)), str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    victim, part = output.with_name("out.1.pid"), output / "results.rank1.csv"
    deadline = time.monotonic() + 300
    # Rank 1 has two images; it is killed between them.
    while not part.exists() or part.read_text().count("\n") < 1 + len(METHODS):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int(victim.read_text()), signal.SIGKILL)
    assert process.wait(timeout=300) != 0
    assert not (output / "results.csv").exists()
    assert "SIGKILL" in (tmp_path / "log").read_text()
    with (tmp_path / "log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, env=environment, timeout=300, check=True)
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    assert {entry.name for entry in output.iterdir()} == {*REPORT, ".lock"}
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert session["processes"] == 3
    assert session["reused"] >= 1
    assert session["reused"] + session["images"] == 5


def in_two_processes(script, output):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    before = Path(f"{output} before")
    if output.exists():
        shutil.copytree(output, before, dirs_exist_ok=True)
    for attempt in range(2):
        done = subprocess.run(
            [*launcher, "--standalone", script, output],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        # Rarely, a rank of torch.distributed aborts while it exits, after its work is done.
        if attempt == 0 and "terminate called without an active exception" in done.stderr:
            shutil.rmtree(output)
            if before.exists():
                shutil.copytree(before, output)
            continue
        break
    assert done.returncode == 0, done.stderr


def test_two_processes_give_the_table_of_one(whole, tmp_path, script):
    output = tmp_path / "out"
    in_two_processes(script(pause=0), output)
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    assert same_curves(output, whole.folder)
    assert {entry.name for entry in output.iterdir()} == {*REPORT, ".lock"}
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert session["processes"] == 2


@pytest.mark.slow
def test_two_processes_continue_and_restart(whole, tmp_path, script):
    output = tmp_path / "out"
    squares = Squares()
    for index in (1, 2):
        squares.inputs[index] = squares.inputs[index].flip(2)
    run(output, squares)
    in_two_processes(script(pause=0), output)
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    *_, session = json.loads((output / "run.json").read_text())["sessions"]
    counts = {name: session[name] for name in ("images", "reused", "changed", "left_out")}
    assert counts == {"images": 2, "reused": 3, "changed": 2, "left_out": 0}
    run(output, seed=1, restart=True)
    in_two_processes(script(pause=0, options=", restart=True"), output)
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert session["images"] == 5


def test_images_that_cannot_be_read_are_recorded(whole, tmp_path):
    evaluation = run(tmp_path, Unreadable())
    assert evaluation.failures.to_dict("records") == [
        {"index": "0", "file": "square 0", "reason": "The image 0 is damaged."},
        {"index": "3", "file": "square 3", "reason": "The image 3 is damaged."},
    ]
    expected = reproducible(whole.folder)
    expected = expected[~expected["index"].isin(["0", "3"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(reproducible(tmp_path), expected)
    text = (tmp_path / "report.html").read_text()
    assert '"failures":{"count":2,"shown":[["square 0","The image 0 is damaged."]' in text
    # A later run, which can read them, evaluates them.
    run(tmp_path)
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))
    assert not (tmp_path / "failures.csv").exists()


def test_dollars_in_names_are_no_formulas(tmp_path):
    data = Squares(2)
    data.names = ["cost $a_b_c$", "$x$"]
    methods = {"grad-cam": LayerGradCam, "a$b_c_d$": LayerGradCam}
    evaluation = run(tmp_path, data, methods, method_settings=None)
    assert "a$b_c_d$" in (evaluation.folder / "report.html").read_text()


def test_a_run_without_any_result_is_an_error(tmp_path):
    class Unavailable(Squares):
        def __getitem__(self, index):
            raise OSError("The disk is gone")

    with pytest.raises(ValueError, match=r"None of the 5 images .* square 0: The disk is gone"):
        run(tmp_path / "unavailable", Unavailable())
    assert (tmp_path / "unavailable" / "failures.csv").read_text().count("\n") == 6
    assert not (tmp_path / "unavailable" / "summary.csv").exists()

    def broken(*_):
        raise RuntimeError("no gradient")

    with pytest.raises(MethodError, match=r"images all fail.* method x failed: no gradient"):
        run(tmp_path / "broken", methods={"x": broken}, method_settings=None)


def test_metrics_on_request_have_columns(tmp_path):
    settings = MetricSettings(
        steps=1, on_request=frozenset({"infidelity", "sensitivity_max"}), n_perturb_samples=2
    )
    evaluation = run(tmp_path, Squares(2), ("integrated-gradients", "gaussian"), settings=settings)
    rows = evaluation.results.set_index(["index", "method"])
    assert (rows["infidelity"] >= 0).all()
    assert (rows.loc[(slice(None), "gaussian"), "sensitivity_max"] == 0).all()
    assert (rows.loc[(slice(None), "integrated-gradients"), "sensitivity_max"] > 0).all()
    assert "max-sensitivity" in (tmp_path / "report.html").read_text()


def test_another_run_in_the_same_folder_is_refused(whole):
    before = (whole.folder / "results.csv").read_bytes()
    with pytest.raises(ValueError, match=r"holds another run \(seed was 0 and is now 1\): give"):
        run(whole.folder, seed=1)
    assert (whole.folder / "results.csv").read_bytes() == before


def test_a_run_of_an_earlier_version_is_refused(whole, tmp_path):
    output = shutil.copytree(whole.folder, tmp_path / "earlier")
    information = json.loads((output / "run.json").read_text())
    configuration = information["configuration"]
    configuration["format"] = 2
    configuration["images"] = information.pop("data")["images"]
    configuration["data_sha256"] = "0"
    (output / "run.json").write_text(json.dumps(information))
    before = (output / "results.csv").read_bytes()
    with pytest.raises(ValueError, match="was written by an earlier version of captum-advise"):
        run(output)
    assert (output / "results.csv").read_bytes() == before


def test_a_full_disk_stops_the_run_with_a_sentence(tmp_path, monkeypatch, whole):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"results.rank0.csv cannot be written \(No space"):
            run(tmp_path)
    assert not (tmp_path / "results.csv").exists()
    run(tmp_path)
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))


def test_bad_arguments_are_named(tmp_path):
    network = squares_network()
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        evaluate(network.train(), network[3], Squares(), METHODS, tmp_path, **OPTIONS)
    network.eval()
    with pytest.raises(ValueError, match="The layer is not a module of the model"):
        evaluate(network, torch.nn.ReLU(), Squares(), METHODS, tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="no image in the data"):
        evaluate(network, network[3], Squares(0), METHODS, tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pandas is missing.*captum-advise\[evaluation"):
        run(tmp_path)
