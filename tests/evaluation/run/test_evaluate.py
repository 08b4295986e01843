"""A run: its tables, its failures, its processes, and what kills leave."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerGradCam
from messages import one_sentence
from method_names import OF_CONVOLUTIONS
from quick_runs import (
    METHODS,
    QUICK_SETTINGS,
    REPORT,
    bright,
    counts,
    dark,
    edited,
    reproducible,
    run,
    table,
)
from scipy import stats
from scipy.integrate import trapezoid
from squares import SIZE, SPACE, Squares, squares_network
from torchvision.transforms import v2

from captum_advise import zoo
from captum_advise._utils.probabilities import HasConfidence
from captum_advise.evaluation import (
    Context,
    MethodError,
    MetricSettings,
    OutputError,
    evaluate,
    get_methods,
    image_dataset,
)
from captum_advise.evaluation.run import steps
from captum_advise.evaluation.run.store import FILE, Store
from captum_advise.metrics import deletion_auc, insertion_auc
from captum_advise.pixels import normalize_maps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run in one process."""
    return run(tmp_path_factory.mktemp("whole"))


class Unreadable(Squares):
    def __getitem__(self, index):
        if index in (0, 3):
            raise ValueError(f"The image {index} is damaged.")
        return super().__getitem__(index)


def test_the_results_are_those_of_the_metrics(whole):
    results = whole.results.set_index(["index", "method"])
    assert len(results) == 5 * len(METHODS)
    assert counts(whole) == (0, 20, {"new image": 20})
    squares, network = Squares(), squares_network()
    for index, (inputs, label) in enumerate(squares):
        inputs = inputs[None]
        outputs = network(inputs).softmax(1)
        row = results.loc[(index, "grad-cam")]
        target = outputs.argmax(1) if label is None else torch.tensor([label])
        assert row["target"] == target
        assert row["predicted"] == outputs.argmax(1)
        assert row["confidence"] == pytest.approx(outputs[0, target].item(), rel=1e-5)
        assert row["file"] == squares.names[index]
        # The layer's values, by hand, and its gradients, by autograd on the rest of the network.
        values = network[:4](inputs).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(network[4:](values * 1)[0, target].sum(), values)
        maps = (gradients.mean((2, 3), keepdim=True) * values.detach()).sum(1, keepdim=True).relu()
        maps = torch.nn.functional.interpolate(
            maps, (24, 24), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, maps.max())
        of_insertion = insertion_auc(network, inputs, maps, target, steps=3)
        of_deletion = deletion_auc(network, inputs, maps, target, pixel_space=SPACE, steps=3)
        assert row["insertion"] == pytest.approx(of_insertion.item(), rel=1e-4)
        assert row["deletion"] == pytest.approx(of_deletion.item(), rel=1e-4)


def test_the_report_is_complete(whole):
    assert {entry.name for entry in whole.folder.iterdir()} == REPORT
    information = json.loads((whole.folder / "run.json").read_text())
    assert information["configuration"]["lime_samples"] == 20
    assert information["configuration"]["layer"] == "3"
    assert information["configuration"]["steps"] == 3
    assert information["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert information["computed"] == 20
    assert information["data"] == {"images": 5, "path": None}
    assert whole.results["content"].str.fullmatch("[0-9a-f]{16}").all()
    means = whole.results.groupby("method")["deletion"].mean()
    summary = whole.summary.set_index(["metric", "method"])
    for method in METHODS:
        assert summary.loc[("deletion", method), "mean"] == pytest.approx(means[method], rel=1e-6)
    written = pd.read_csv(whole.folder / "results.csv")
    numbers = ["index", "insertion", "avx", "hit", "forward_passes"]
    expected = whole.results[numbers]
    pd.testing.assert_frame_equal(written[numbers], expected, check_dtype=False, rtol=1e-6)
    types = whole.results.dtypes
    assert {str(types[name]) for name in ("index", "target", "predicted", "hit")} == {"int64"}
    assert {str(types[name]) for name in ("avx", "insertion", "seconds")} == {"float64"}


def test_the_report_has_the_run(whole, tmp_path, monkeypatch):
    reports, write = [], steps.write_report

    def recorded(folder, report, shown):
        reports.append(report)
        return write(folder, report, shown)

    monkeypatch.setattr(steps, "write_report", recorded)
    run(tmp_path)
    (report,) = reports
    assert (report.methods, report.images) == (METHODS, list(range(5)))
    sources = pictures_of(tmp_path)
    assert [alt for alt, _ in sources].count("The map of grad-cam") == 5
    shown = [alt for alt, _ in sources if alt.startswith("The image")]
    assert shown == [f"The image square {i}" for i in range(5)]


def test_the_store_has_the_curves(whole):
    with closing(sqlite3.connect(whole.folder / "results.sqlite")) as store:
        found = [json.loads(values) for (values,) in store.execute('SELECT "values" FROM rows')]
    assert len(found) == len(whole.results)
    for values in found:
        for name in ("insertion", "deletion", "insertion_black", "deletion_blurred", "road"):
            curve = values[f"{name}_curve"]
            area = np.mean(curve) if name == "road" else trapezoid(curve, dx=1 / 3)
            assert area == pytest.approx(values[name], abs=1e-4)


def pictures_of(folder):
    """The alternative text and the source of each picture of a report."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return [(alt, source) for source, alt in re.findall(r'<img src="([^"]+)" alt="([^"]+)">', page)]


class Interrupted(Squares):
    """Interrupted while the fourth image is read."""

    def __getitem__(self, index):
        if index == 3:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_run_continues_to_the_same_table(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Interrupted())
    assert not (tmp_path / "results.csv").exists()
    assert counts(run(tmp_path)) == (12, 8, {"new image": 8})
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))
    before = (tmp_path / "results.csv").read_bytes()
    again = run(tmp_path)
    assert counts(again) == (20, 0, {})
    assert (tmp_path / "results.csv").read_bytes() == before
    pd.testing.assert_frame_equal(table(again), table(whole))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not POSIX")
@pytest.mark.usefixtures("no_report")
def test_kills_at_any_moment_change_nothing(tmp_path):
    quick = ("grad-cam", "lime", "random")  # no numba, which does not survive a fork
    expected = run(tmp_path / "whole", methods=quick)
    start = time.perf_counter()
    run(tmp_path / "timed", methods=quick)  # the first run is slower
    seconds = time.perf_counter() - start
    moments = random.Random(0)
    shares = set()
    for attempt in range(60):
        if attempt >= 12 and len(shares) > 2:
            break  # more attempts only where load moves the moments
        output = tmp_path / str(attempt)
        child = os.fork()
        if child == 0:
            try:
                run(output, methods=quick)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0, 1.3 * max(seconds, 0.5)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        continued = run(output, methods=quick)
        shares.add(continued.reused)
        assert continued.reused + continued.computed == 15
        assert continued.reused % 3 == 0  # whole images
        pd.testing.assert_frame_equal(table(continued), table(expected))
    assert len(shares) > 2


SCRIPT = """
import os, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
import torch
import quick_runs

class Slow(quick_runs.Squares):
    def __getitem__(self, index):
        time.sleep({pause})
        return super().__getitem__(index)

torch.set_num_threads(1)
Path(f"{{sys.argv[1]}}.{{os.environ['RANK']}}.pid").write_text(str(os.getpid()))
quick_runs.run(Path(sys.argv[1]), Slow())
"""


@pytest.fixture
def in_processes(tmp_path):
    """Starts a run in several processes."""
    folders = [str(Path(__file__).parents[2] / "helpers")]

    def started(output, count, *, pause=0.0):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT.format(path=folders, pause=pause))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return subprocess.Popen(
            [*launcher, f"--nproc-per-node={count}", str(path), str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return started


def finished(process):
    text, _ = process.communicate(timeout=300)
    # Rarely, a rank of torch.distributed aborts while it exits, after its work is done.
    assert process.returncode == 0 or "terminate called without an active" in text, text


def test_two_processes_give_the_table_of_one(whole, tmp_path, in_processes):
    output = tmp_path / "out"
    finished(in_processes(output, 2))
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    assert {entry.name for entry in output.iterdir()} == REPORT
    session = json.loads((output / "run.json").read_text())
    assert (session["processes"], session["computed"]) == (2, 20)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_processes_of_which_one_is_killed_continue_to_the_same_table(
    count, whole, tmp_path, in_processes
):
    output = tmp_path / "out"
    process = in_processes(output, count, pause=2)
    part, deadline = output / "results.rank1.sqlite", time.monotonic() + 300
    # Rank 1 has two images; it is killed between them.
    while not (part.exists() and rows_in(output)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int(output.with_name("out.1.pid").read_text()), signal.SIGKILL)
    text, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "SIGKILL" in text
    assert not (output / "results.csv").exists()
    finished(in_processes(output, count))
    pd.testing.assert_frame_equal(reproducible(output), reproducible(whole.folder))
    assert {entry.name for entry in output.iterdir()} == REPORT
    session = json.loads((output / "run.json").read_text())
    assert session["reused"] >= 4
    assert session["reused"] + session["computed"] == 20


def rows_in(folder):
    with closing(Store(folder, 1)) as store:
        return store._own.execute("SELECT count(*) FROM rows").fetchone()[0]


def test_rows_that_killed_processes_left_are_used(whole, tmp_path):
    (tmp_path / "out").mkdir()
    for rank, names in enumerate((["square 0", "square 1"], ["square 3", "other"])):
        squares = Squares(5)
        indices = [squares.names.index(name) if name in squares.names else 2 for name in names]
        parts = {
            "inputs": [squares.inputs[index] for index in indices],
            "targets": [squares.targets[index] for index in indices],
        }
        run(tmp_path / str(rank), edited(2, names=names, **parts))
        (tmp_path / str(rank) / FILE).rename(tmp_path / "out" / f"results.rank{rank}.sqlite")
    continued = run(tmp_path / "out")
    assert continued.reused == 12
    pd.testing.assert_frame_equal(table(continued), table(whole))
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == REPORT


def test_images_that_cannot_be_read_are_recorded(whole, tmp_path):
    evaluation = run(tmp_path, Unreadable())
    assert evaluation.failures.to_dict("records") == [
        {"index": 0, "file": "square 0", "reason": "The image 0 is damaged."},
        {"index": 3, "file": "square 3", "reason": "The image 3 is damaged."},
    ]
    expected = reproducible(whole.folder)
    expected = expected[~expected["index"].isin(["0", "3"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(reproducible(tmp_path), expected)
    assert "2 images could not be evaluated" in (tmp_path / "report.html").read_text()
    # A later run, which can read them, evaluates them.
    run(tmp_path)
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))
    assert not (tmp_path / "failures.csv").exists()


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
        run(tmp_path / "broken", methods={"x": broken})


@pytest.mark.usefixtures("no_report")
class TestMetrics:
    def test_they_are_chosen_and_the_same_alone(self, tmp_path):
        every = run(tmp_path / "all", Squares(2), metrics=["all"])
        for names in (["road"], ["deletion", "avx"], ["mu_fidelity", "sparseness"]):
            some = run(tmp_path / names[0], Squares(2), metrics=names)
            chosen = [*every.results.columns[:8], *names, "forward_passes"]
            assert set(some.results) == {*chosen, "seconds"}
            pd.testing.assert_frame_equal(some.results[chosen], every.results[chosen])

    def test_those_on_request(self, tmp_path):
        evaluation = run(
            tmp_path,
            Squares(2),
            ("integrated-gradients", "gaussian"),
            settings=MetricSettings(steps=1),
            metrics=["default", "arcc", "adcc"],
        )
        rows = evaluation.results.set_index(["index", "method"])
        assert rows["arcc"].between(0, 1).all()
        # A map that is the same for the masked image: coherency 1.
        floor = rows.loc[(slice(None), "gaussian"), :]
        gaussian = get_methods(["gaussian"])["gaussian"]
        network = squares_network()
        maps = gaussian(network, network[3], torch.zeros(1, 3, 24, 24), None, Context())
        shown = 1 - float(normalize_maps(maps).mean())
        parts = {"arcc": floor["road"].clip(0, 1), "adcc": 1 - floor["average_drop"]}
        for name, faithfulness in parts.items():
            expected = 3 / (1 + 1 / shown + 1 / faithfulness)
            np.testing.assert_allclose(floor[name], expected, rtol=1e-3)
        assert "mu_fidelity" not in rows
        assert "avx" in rows

    def test_unknown_ones_are_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"no metric 'rod' \(did you mean road") as error:
            run(tmp_path / "out", metrics=["rod"])
        one_sentence(error)
        with pytest.raises(ValueError, match="at least one metric"):
            run(tmp_path / "out", metrics=[])
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_report")
def test_a_full_disk_stops_the_run_with_a_sentence(whole, tmp_path, monkeypatch):
    add, calls = Store.add, []

    def full(store, *arguments):
        calls.append(1)
        if len(calls) == 3:
            store._own.execute("PRAGMA max_page_count = 1")
        add(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        # Bytes enough for new pages.
        with pytest.raises(OutputError, match=r"results.sqlite cannot be written \(database or"):
            run(tmp_path)
    assert not (tmp_path / "results.csv").exists()
    assert run(tmp_path).reused >= 8
    pd.testing.assert_frame_equal(reproducible(tmp_path), reproducible(whole.folder))


def test_bad_arguments_are_named(tmp_path):
    network = squares_network()
    options = {"progress": False}
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        evaluate(network.train(), network[3], Squares(), METHODS, tmp_path, **options)
    network.eval()
    with pytest.raises(ValueError, match="The layer is not a module of the model"):
        evaluate(network, torch.nn.ReLU(), Squares(), METHODS, tmp_path, **options)
    with pytest.raises(ValueError, match="no image in the data"):
        evaluate(network, network[3], Squares(0), METHODS, tmp_path, **options)
    with pytest.raises(TypeError, match=r"model is a function, not a torch.nn.Module"):
        evaluate(lambda x: network(x), network[3], Squares(), METHODS, tmp_path, **options)
    loader = torch.utils.data.DataLoader(Squares())
    with pytest.raises(TypeError, match=r"are a DataLoader.* loader.dataset"):
        evaluate(network, network[3], loader, METHODS, tmp_path, **options)
    with pytest.raises(TypeError, match="a list_iterator without a length"):
        evaluate(network, network[3], iter([1]), METHODS, tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"internal_batch_size": 0}, "internal_batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"methods": {}}, "at least one method"),
        ({"methods": {"a\nb": bright}}, "one line"),
        ({"methods": {"": bright}}, "one line"),
        ({"recompute": ["grad-kam"]}, "grad-kam cannot be computed again, because it is not among"),
        ({"dataset": edited(names=["a", "b"])}, "2 names for 3 images"),
    ],
)
def test_bad_values_are_refused_before_any_work(options, what, tmp_path):
    with pytest.raises(ValueError, match=what):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_types_are_checked(tmp_path):
    with pytest.raises(TypeError, match="internal_batch_size must be an int, got float"):
        run(tmp_path / "out", internal_batch_size=2.5)
    with pytest.raises(TypeError, match="steps must be an int, got float"):
        MetricSettings(steps=2.5)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        MetricSettings(steps=0)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pandas is missing.*captum-advise\[evaluation"):
        run(tmp_path)


def test_suspicious_inputs_are_named_once(tmp_path):
    squares = edited(inputs=[image * 255 for image in Squares(3).inputs])
    with pytest.warns(UserWarning, match="pixel_space") as caught:
        run(tmp_path, squares)
    assert len([w for w in caught if "pixel_space" in str(w.message)]) == 1


def states():
    python = random.getstate()
    return python, np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("no_report")
def test_random_states_are_left_as_they_are(tmp_path):
    network = squares_network()
    before = states()
    run(
        tmp_path,
        Squares(1),
        OF_CONVOLUTIONS,
        network,
        method_settings=QUICK_SETTINGS,
        settings=MetricSettings(steps=1),
        metrics=["all"],
    )
    assert [now == then for now, then in zip(states(), before, strict=True)] == [True] * 3


@pytest.mark.parametrize("name", ["lime", "kernel-shap"])
@pytest.mark.usefixtures("no_report")
def test_the_caller_s_random_numbers_change_nothing(name, tmp_path):
    tables = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        tables.append(table(run(tmp_path / str(seed), Squares(2), [name])))
    pd.testing.assert_frame_equal(*tables)


def test_inputs_that_require_gradients(whole, tmp_path):
    squares = Squares()
    squares.inputs = [image.clone().requires_grad_() for image in squares.inputs]
    pd.testing.assert_frame_equal(table(run(tmp_path, squares)), table(whole))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_in_bfloat16(whole, tmp_path):
    network = squares_network().bfloat16()
    small = {
        "integrated_gradients_steps": 2,
        "lime_samples": 20,
        "lime_grid": 3,
        "occlusion_windows": 2,
        "rise_masks": 8,
    }
    names = OF_CONVOLUTIONS
    evaluation = run(tmp_path, Squares(1), names, network, method_settings=small)
    # With noise that methods and metrics add.
    settings = MetricSettings(steps=1)
    run(tmp_path, Squares(1), ["grad-cam"], network, settings=settings, metrics=["all"])
    assert evaluation.failures.empty
    assert set(evaluation.results["method"]) == set(names)
    rows, exact = (
        found.results.set_index(["index", "method"]).loc[[(0, "grad-cam")]]
        for found in (evaluation, whole)
    )
    for column in ("confidence", "insertion", "deletion", "average_drop"):
        # bfloat16 has eight bits of precision.
        np.testing.assert_allclose(rows[column], exact[column], atol=2**-7)


class Independent(torch.nn.Sequential, HasConfidence):
    confidence = staticmethod(torch.sigmoid)


@pytest.mark.usefixtures("no_report")
def test_the_confidence_is_the_model_s_own(tmp_path):
    network = Independent(*squares_network()).eval()
    (row,) = run(tmp_path, Squares(1), ["random"], network).results.to_dict("records")
    outputs = network(Squares(1).inputs[0][None])[0]
    assert row["confidence"] == pytest.approx(outputs[row["target"]].sigmoid().item())
    again = run(tmp_path, Squares(1), ["random"], network, confidence=torch.sigmoid)
    assert counts(again) == (1, 0, {})


@pytest.mark.usefixtures("no_report")
def test_one_hot_classes(whole, tmp_path):
    squares = Squares()
    squares.targets = [None if label is None else torch.eye(7)[label] for label in squares.targets]
    pd.testing.assert_frame_equal(table(run(tmp_path / "a", squares)), table(whole))
    squares.targets[0] = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0])
    failures = run(tmp_path / "b", squares).failures
    assert failures["file"].tolist() == ["square 0"]
    assert "a vector of 7 numbers that is not one-hot: give the index" in failures["reason"][0]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("no_report")
def test_passes_of_a_compiled_model_are_those_of_the_model(tmp_path):
    names = ["layer-advise", "gated-grad-cam-occlusion", "occlusion", "lime", "random"]
    methods = get_methods(names, {"lime_samples": 10, "occlusion_windows": 2})
    inner = squares_network()
    passes = []
    for number, model in enumerate((inner, torch.compile(inner, backend="eager"))):
        found = evaluate(
            model, inner[3], Squares(2), methods, tmp_path / str(number), progress=False,
            pixel_space=SPACE, metrics=["sparseness"],
        ).results  # fmt: skip
        passes.append(found.pivot(index="index", columns="method", values="forward_passes"))
    pd.testing.assert_frame_equal(*passes)
    assert passes[0]["layer-advise"].min() >= 1
    assert passes[0]["gated-grad-cam-occlusion"].tolist() == [33, 33]


def test_names_are_no_formulas_of_spreadsheets(tmp_path):
    names = ["=1+1.png", "+x", "-y.jpg", "@cmd", "plain", "a\nb"]
    run(tmp_path, edited(6, names=names), {"=own": LayerGradCam, "grad-cam": LayerGradCam})
    written = pd.read_csv(tmp_path / "results.csv")
    assert written["file"].unique().tolist() == [
        *("'=1+1.png", "'+x", "'-y.jpg", "'@cmd", "plain", "a b"),
    ]
    assert written["method"].unique().tolist() == ["'=own", "grad-cam"]
    assert (written["layer"] == 3).all()


def test_the_report_shows_the_maps_without_making_them_again(tmp_path, monkeypatch):
    shown = []

    def recorded(folder, report, images):
        shown.append([images(index) for index in report.images])
        return report.comparison

    monkeypatch.setattr(steps, "write_report", recorded)
    run(tmp_path, Squares(3), {"dark": dark, "bright": bright})
    monkeypatch.setattr(steps.ImageEvaluator, "rows", None)
    run(tmp_path, Squares(3), {"dark": dark, "bright": bright})
    for once, again, inputs in zip(*shown, Squares(3).inputs, strict=True):
        torch.testing.assert_close(once[0], SPACE.to_pixels(inputs[None])[0].clamp(0, 1))
        assert once[1].keys() == again[1].keys() == {"dark", "bright"}
        expected = normalize_maps(bright(None, None, inputs[None], None, None))
        found = torch.nn.functional.interpolate(once[1]["bright"] / 255, (24, 24), mode="area")
        assert (found - expected).abs().mean() < 0.05
        assert torch.equal(once[1]["bright"], again[1]["bright"])


def test_unusual_methods_have_no_part_in_other_rows(tmp_path):
    alone = run(tmp_path / "alone", Squares(2), {"dark": dark})
    both = run(tmp_path / "both", Squares(2), {"bright": bright, "dark": dark})
    of_dark = table(both)[both.results["method"] == "dark"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_dark, table(alone))


def test_a_file_with_several_classes_is_one_image(photos, tmp_path):
    names = sorted(path.name for path in photos.iterdir())
    rows = ["file,class", *(f"{name},{label}" for name in names for label in (0, 2))]
    (photos / "classes.csv").write_text("\n".join(rows))
    (tmp_path / "more").mkdir()
    shutil.copy(photos / "coffee.png", tmp_path / "more")
    model = squares_network()
    to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    transform = v2.Compose([v2.Resize((SIZE, SIZE)), to_float])
    network = zoo.describe(model, transform=transform, pixel_space=SPACE)
    data = image_dataset(photos / "classes.csv", network)
    # Another folder may have another image of the same name.
    data += image_dataset(tmp_path / "more", network)
    methods = ["grad-cam", "gaussian"]
    found = evaluate(model, model[1], data, methods, tmp_path / "out", metrics=["insertion_black"])
    assert len(found.results) == 2 * 7
    summary = found.summary.set_index(["method", "metric"]).loc["gaussian", "insertion_black"]
    own = found.results.assign(image=[0] * 4 + [1] * 4 + [2] * 4 + [3] * 2)
    values = own.pivot_table("insertion_black", "image", "method")
    assert summary["images"] == 4
    assert summary["mean"] == pytest.approx(values["gaussian"].mean())
    gain = values["gaussian"] - values["grad-cam"]
    assert summary["p_value"] == pytest.approx(stats.wilcoxon(gain).pvalue)
