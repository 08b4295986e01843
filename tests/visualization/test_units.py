from __future__ import annotations

import pytest
from drawn import assert_legible, bars, rendered
from example_explanations import candidate

from captum_advise import visualization


def points(axes) -> dict[int, float]:
    _, twin = axes.figure.axes
    (line,) = twin.get_lines()
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_groups(explanation):
    figure, axes = visualization.groups(explanation.candidates[0], selected=2)
    shown = bars(axes)
    assert {relevance: units for relevance, (units, _) in shown.items()} == {1: 20, 2: 6, 3: 1}
    assert shown[1][1] == shown[3][1] != shown[2][1]
    assert points(axes) == pytest.approx({1: 0.6, 2: 0.71, 3: 0.0})
    assert_legible(figure)


def test_groups_with_units_that_have_no_map(explanation):
    _, axes = visualization.groups(
        explanation.candidates[0], unit_relevance=explanation.unit_relevance[0]
    )
    units = {relevance: units for relevance, (units, _) in bars(axes).items()}
    assert units == {0: 3, 1: 20, 2: 6, 3: 1}
    assert 0 not in points(axes)


@pytest.mark.parametrize(
    "candidates", [(), (candidate(None, 30, 0.5),), (candidate(1, 30),)], ids=["none", "all", "one"]
)
def test_groups_without_metrics(candidates):
    figure, axes = visualization.groups(candidates)
    assert axes.figure.axes == [axes]
    rendered(figure)
