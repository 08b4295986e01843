from __future__ import annotations

import numpy as np
import pytest
from drawn import assert_legible, bars, rendered
from example_explanations import candidate

from captum_advise import visualization
from captum_advise.relevance import unit_relevance

# --- groups


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


# --- densities


@pytest.mark.parametrize("activation_range", [(0.0, 1.0), "minmax"])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_modes_are_those_that_make_the_relevance(feature_maps, activation_range, kind):
    expected = unit_relevance(feature_maps[None], activation_range=activation_range)[0]
    given = {"tensor": feature_maps, "array": feature_maps.numpy()}
    figure, axes = visualization.densities(
        given[kind], [0, 1, 2, 3], activation_range=activation_range
    )
    for unit, ax in enumerate(axes):
        curve, modes, _ = ax.get_lines()
        assert len(modes.get_xdata()) == expected[unit]
        assert ax.get_title().startswith(f"unit {unit}: {int(expected[unit])} mode")
        # Each mode lies on the curve, above its neighbours.
        positions = np.searchsorted(curve.get_xdata(), modes.get_xdata())
        density = curve.get_ydata()
        assert np.array_equal(density[positions], modes.get_ydata())
    assert_legible(figure)


def test_the_modes_of_two_clusters_lie_on_them(feature_maps):
    _, (ax,) = visualization.densities(feature_maps, [0])
    assert ax.get_lines()[1].get_xdata() == pytest.approx([0.2, 0.8], abs=0.03)


def test_a_unit_out_of_range_is_marked(feature_maps):
    _, (ax,) = visualization.densities(feature_maps, [3])
    assert [text.get_text() for text in ax.texts] == ["no activation in [0, 1]"]


def test_densities_errors(feature_maps):
    with pytest.raises(ValueError, match=r"\(4, 8, 8\) and the units \[4\]"):
        visualization.densities(feature_maps, [4])
    with pytest.raises(ValueError, match=r"and the units \[\]"):
        visualization.densities(feature_maps, [])
