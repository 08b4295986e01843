from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from captum_advise.evaluation.metric_checks import _MONOTONE, _WORSE
from squares import SPACE, Squares, squares_network

from captum_advise.evaluation import MetricSettings, SavedMaps, check_metrics


def brightness(model, layer, inputs, target, context):
    return inputs


def table_of(output, method, steps):
    """The checks of a method on three squares, by metric and change."""
    network = squares_network()
    table = check_metrics(
        network,
        network[3],
        Squares(3),
        output,
        method=method,
        pixel_space=SPACE,
        settings=MetricSettings(steps=steps),
        progress=False,
    )
    return table.set_index(["metric", "change"])


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    """The folder and the table of a check."""
    output = tmp_path_factory.mktemp("checks")
    return output, table_of(output, brightness, steps=2)


def test_the_table_is_that_of_the_results(checks):
    output, table = checks
    results = pd.read_csv(output / "results.csv")
    for metric, sign in (("insertion", 1), ("deletion", -1), ("avx", 1)):
        values = results.pivot(index="index", columns="method", values=metric)
        for change in (*_WORSE, *_MONOTONE):
            loss = sign * (values["original"] - values[change])
            row = table.loc[(metric, change)]
            assert row["worse"] == (loss > 0).mean()
            assert row["better"] == (loss < 0).mean()
            assert row["changed"] == pytest.approx(values[change].mean())
            assert row["images"] == 3
    written = pd.read_csv(output / "metric_checks.csv")
    assert len(written) == len(table)
    text = (output / "metric_checks.md").read_text()
    assert "| insertion |" in text
    assert "can be gamed" in text


def coarse_brightness(model, layer, inputs, target, context):
    return F.avg_pool2d(inputs, 4)


def test_monotone_changes_leave_the_order_of_small_maps(tmp_path):
    table = table_of(tmp_path, coarse_brightness, steps=4)
    for metric in ("insertion", "deletion", "insertion_black", "deletion_blurred", "road"):
        for change in (*_MONOTONE, "shifted"):
            row = table.loc[(metric, change)]
            is_equal = row["changed"] == pytest.approx(row["original"], abs=1e-7)
            assert is_equal == (change != "shifted")


def test_ranks_alone_count_for_road_insertion_and_deletion(checks):
    _, table = checks
    for metric in ("insertion", "deletion", "road"):
        for change in _MONOTONE:
            row = table.loc[(metric, change)]
            assert row["changed"] == pytest.approx(row["original"], abs=1e-4)
    # A square is sparser.
    assert table.loc[("sparseness", "square"), "better"] == 1
    assert table.loc[("sparseness", "root"), "worse"] == 1


def test_changes_keep_size_and_values():
    maps = torch.rand(1, 1, 7, 5)
    for name in ("shifted", "shuffled"):
        changed = _WORSE[name](maps)
        assert not torch.equal(changed, maps)
        assert torch.equal(changed.flatten().sort().values, maps.flatten().sort().values)
    blurred = _WORSE["blurred"](maps)
    assert blurred.shape == maps.shape
    assert blurred.std() < maps.std()
    for change in _MONOTONE.values():
        assert torch.equal(change(maps).flatten().argsort(), maps.flatten().argsort())


def test_all_changes_start_from_one_random_map(tmp_path):
    table = table_of(tmp_path, "random", steps=3)
    for metric in ("insertion", "deletion", "road"):
        for change in _MONOTONE:
            row = table.loc[(metric, change)]
            assert row["changed"] == pytest.approx(row["original"], abs=1e-7)


def test_maps_in_files_cannot_be_checked(tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "square 0.npy", np.eye(4))
    with pytest.raises(ValueError, match="none of another class"):
        table_of(tmp_path / "out", SavedMaps(tmp_path / "maps"), steps=1)
