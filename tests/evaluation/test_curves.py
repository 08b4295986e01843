from __future__ import annotations

import numpy as np
import scipy.stats

from captum_advise.evaluation.curves import mean_curves

METHODS = ("a", "b")


def test_means_and_intervals_are_those_of_numpy_and_scipy():
    values = np.random.default_rng(0).random((7, 5)).round(4)
    rows = [(method, {"insertion": curve.tolist()}) for curve in values for method in METHODS]
    curves = mean_curves(rows)
    assert curves.keys() == {("insertion", method) for method in METHODS}
    found = curves[("insertion", "a")]
    assert found.images == 7
    np.testing.assert_allclose(found.mean, values.mean(0))
    low, high = scipy.stats.t.interval(0.95, 6, values.mean(0), scipy.stats.sem(values))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    one = mean_curves(rows[:1])[("insertion", "a")]
    assert one.images == 1
    assert np.isnan(one.low).all()


def test_rows_without_curves_have_none():
    assert mean_curves([("a", {})]) == {}
