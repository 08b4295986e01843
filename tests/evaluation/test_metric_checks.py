from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from quick_runs import run
from squares import Squares

from captum_advise.evaluation import MetricSettings, get_methods


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("metric_checks")


def brightness(model, layer, inputs, target, context):
    return inputs


def results_of(script, output, method, steps):
    """The metrics of degraded maps on three squares."""
    settings = MetricSettings(steps=steps)
    return run(output, Squares(3), script.degraded(method), settings=settings).results


def table_of(script, *arguments):
    """The checks, by metric and change."""
    results = results_of(script, *arguments)
    return script.checks(script.rows_of(results)).set_index(["metric", "change"])


@pytest.fixture(scope="module")
def results(script, tmp_path_factory):
    return results_of(script, tmp_path_factory.mktemp("checks"), brightness, 2)


def test_the_table_is_that_of_the_results(script, results):
    rows = script.rows_of(results)
    table = script.checks(rows).set_index(["metric", "change"])
    for metric, sign in (("insertion", 1), ("deletion", -1), ("avx", 1)):
        values = results.pivot(index="index", columns="method", values=metric)
        for change in script.SHOWN:
            loss = sign * (values["original"] - values[change])
            row = table.loc[(metric, change)]
            assert row["worse"] == (loss > 0).mean()
            assert row["better"] == (loss < 0).mean()
            assert row["changed"] == pytest.approx(values[change].mean())
            assert row["images"] == 3
    text = script.table(rows)
    assert text.startswith("3 images, 0 of them in mosaics.")
    assert "| insertion AUC ↑ |" in text


def coarse_brightness(model, layer, inputs, target, context):
    return F.avg_pool2d(inputs, 4)


def test_monotone_changes_leave_the_order_of_small_maps(script, tmp_path):
    table = table_of(script, tmp_path, coarse_brightness, 4)
    for metric in ("insertion", "deletion", "insertion_black", "deletion_blurred", "road"):
        for change in (*script.MONOTONE, "shifted"):
            row = table.loc[(metric, change)]
            is_equal = row["changed"] == pytest.approx(row["original"], abs=1e-7)
            assert is_equal == (change != "shifted")


def test_ranks_alone_count_for_road_insertion_and_deletion(script, results):
    table = script.checks(script.rows_of(results)).set_index(["metric", "change"])
    for metric in ("insertion", "deletion", "road"):
        for change in script.MONOTONE:
            row = table.loc[(metric, change)]
            assert row["changed"] == pytest.approx(row["original"], abs=1e-4)
    # A square is sparser.
    assert table.loc[("sparseness", "square"), "better"] == 1
    assert table.loc[("sparseness", "root"), "worse"] == 1


def test_changes_keep_size_and_values(script):
    maps = torch.rand(1, 1, 7, 5)
    for name in ("shifted", "shuffled"):
        changed = script.WORSE[name](maps)
        assert not torch.equal(changed, maps)
        assert torch.equal(changed.flatten().sort().values, maps.flatten().sort().values)
    blurred = script.WORSE["blurred"](maps)
    assert blurred.shape == maps.shape
    assert blurred.std() < maps.std()
    for change in script.MONOTONE.values():
        assert torch.equal(change(maps).flatten().argsort(), maps.flatten().argsort())


def test_all_changes_start_from_one_random_map(script, tmp_path):
    table = table_of(script, tmp_path, get_methods(["random"])["random"], 3)
    for metric in ("insertion", "deletion", "road"):
        for change in script.MONOTONE:
            row = table.loc[(metric, change)]
            assert row["changed"] == pytest.approx(row["original"], abs=1e-7)
