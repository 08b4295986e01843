from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from captum_advise.evaluation.store import Appender, Image, RunFolder

from captum_advise.evaluation.curves import (
    CURVE_COLUMNS,
    curve_rows,
    merge_curves,
    read_curves,
    repair_curves,
)

METHODS = ("a", 'b, "quoted"')


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path, ("index", "file", "content", "method"), METHODS)


def rows_of(file, curves, method="a", content="c0"):
    """The curves of an image and a method, as the evaluator gives them."""
    return [{"file": file, "content": content, "method": method, "curves": curves}]


def append(folder, rows, rank=0):
    with Appender(folder.part("curves", rank), CURVE_COLUMNS) as appender:
        appender.append(curve_rows(rows))


def test_means_and_intervals_are_those_of_numpy_and_scipy(folder):
    values = np.random.default_rng(0).random((7, 5)).round(4)
    for i, curve in enumerate(values):
        for method in METHODS:
            append(folder, rows_of(f"{i}, ä.jpg", {"insertion": curve}, method), rank=i % 2)
    merge_curves(folder)
    images = {(f"{i}, ä.jpg", "c0"): i for i in range(7)}
    curves = read_curves(folder, images, {3})
    assert curves.means.keys() == {("insertion", method) for method in METHODS}
    found = curves.means[("insertion", "a")]
    assert found.images == 7
    np.testing.assert_allclose(found.mean, values.mean(0))
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(0), scipy.stats.sem(values))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    assert curves.single.keys() == {(3, method, "insertion") for method in METHODS}
    np.testing.assert_array_equal(curves.single[(3, "a", "insertion")], values[3])
    one = read_curves(folder, {("0, ä.jpg", "c0"): 0}, set()).means[("insertion", "a")]
    assert one.images == 1
    assert np.isnan(one.low).all()


def test_values_are_short(folder):
    (row,) = curve_rows(rows_of("x", {"road": torch.tensor([0.0, 1.0, 0.5, 1e-7, 0.12345])}))
    assert row["values"] == "0 1 0.5 0 0.1235"
    assert list(curve_rows([{"file": "x", "method": "a"}])) == []


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_truncated_file_is_repaired(folder, cut):
    append(folder, rows_of("first", {"insertion": [0, 0.25], "deletion": [1, 0.25]}))
    append(folder, rows_of("second", {"insertion": [0.5, 0.75]}))
    part = folder.part("curves", 0)
    part.write_bytes(part.read_bytes()[:-cut])
    repair_curves(folder, {Image(file, "c0"): {"a"} for file in ("first", "second")})
    append(folder, rows_of("second", {"insertion": [0.5, 0.75]}))
    merge_curves(folder)
    images = {("first", "c0"): 0, ("second", "c0"): 1}
    mean = read_curves(folder, images, set()).means[("insertion", "a")]
    np.testing.assert_array_equal(mean.mean, [0.25, 0.5] if mean.images == 2 else [0.5, 0.75])
    assert len(folder.curves.read_text().splitlines()) >= 2
    assert not folder.parts("curves")


def test_later_curves_replace_earlier_ones_and_others_stay(folder):
    append(folder, rows_of("x", {"insertion": [0, 0]}) + rows_of("y", {"insertion": [0.5, 0.5]}))
    merge_curves(folder)
    merge_curves(folder)  # nothing to do
    append(folder, rows_of("x", {"insertion": [1, 1]}))
    append(folder, rows_of("x", {"insertion": [0.25, 0.25]}, content="changed"))
    merge_curves(folder)
    curves = read_curves(folder, {("x", "c0"): 0, ("y", "c0"): 1}, set())
    np.testing.assert_array_equal(curves.means[("insertion", "a")].mean, [0.75, 0.75])
    changed = read_curves(folder, {("x", "changed"): 0}, set())
    np.testing.assert_array_equal(changed.means[("insertion", "a")].mean, [0.25, 0.25])


def test_curves_of_rows_that_are_computed_again_go(folder):
    rows = [*rows_of("x", {"insertion": [0, 1]}), *rows_of("x", {"insertion": [1, 1]}, "b")]
    append(folder, rows)
    repair_curves(folder, {Image("x", "c0"): {"a"}})
    merge_curves(folder)
    curves = read_curves(folder, {("x", "c0"): 0}, set())
    assert curves.means.keys() == {("insertion", "a")}


def test_a_run_without_curves_has_none(folder):
    assert read_curves(folder, {("x", "c0"): 0}, {0}).means == {}
    folder.curves.write_text("file,content,method,curve,values\nx,c0,a,insertion,not numbers\n")
    assert read_curves(folder, {("x", "c0"): 0}, {0}).means == {}
