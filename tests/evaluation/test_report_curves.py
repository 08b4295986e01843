from __future__ import annotations

import numpy as np

from captum_advise.evaluation.columns import METRICS, get_metrics
from captum_advise.evaluation.report.curves import curve_figure, mean_curves

METHODS = ("a", "b")


def test_means_are_those_of_numpy():
    values = np.random.default_rng(0).random((7, 5)).round(4)
    rows = [(method, {"insertion_curve": curve.tolist()}) for curve in values for method in METHODS]
    curves = mean_curves(rows, METRICS)
    assert curves.keys() == {("insertion", method) for method in METHODS}
    np.testing.assert_allclose(curves["insertion", "a"], values.mean(0))


def test_rows_without_curves_have_none():
    assert mean_curves([("a", {"avx": 1.0})], METRICS) == {}


def test_curves_are_drawn_at_their_place_with_their_names():
    (road, *_) = get_metrics(["road"])
    curves = {name: np.array([0.1, 0.4, 0.2]) for name in ("$a_$", "_b", "grad-cam")}
    (ax,) = curve_figure(road, curves).axes
    for line in ax.lines:
        np.testing.assert_allclose(line.get_xydata(), [[0.1, 0.1], [0.5, 0.4], [0.9, 0.2]])
    texts = [text.get_text().strip() for text in ax.get_legend().get_texts()]
    assert texts == [r"\$a_\$", "_b", "grad-cam"]
