from __future__ import annotations

import numpy as np
import scipy.stats

from captum_advise.evaluation.curves import read_curves

METHODS = ("a", "b")


def test_means_and_intervals_are_those_of_numpy_and_scipy():
    values = np.random.default_rng(0).random((7, 5)).round(4)
    rows = [
        (index, method, {"insertion": curve.tolist()})
        for index, curve in enumerate(values)
        for method in METHODS
    ]
    curves = read_curves(rows, {3})
    assert curves.means.keys() == {("insertion", method) for method in METHODS}
    found = curves.means[("insertion", "a")]
    assert found.images == 7
    np.testing.assert_allclose(found.mean, values.mean(0))
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(0), scipy.stats.sem(values))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    assert curves.single.keys() == {(3, method, "insertion") for method in METHODS}
    np.testing.assert_array_equal(curves.single[(3, "a", "insertion")], values[3])
    one = read_curves(rows[:1], set()).means[("insertion", "a")]
    assert one.images == 1
    assert np.isnan(one.low).all()


def test_rows_without_curves_have_none():
    assert read_curves([(0, "a", {})], {0}).means == {}
