from __future__ import annotations

import dataclasses
import io
import math
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from captum_advise import visualization
from captum_advise.explanation import Candidate, Explanation
from captum_advise.metrics import VisualExplainability
from captum_advise.relevance import unit_relevance

PICTURE = data.chelsea()[:224, :224] / 255


def scores(avx: float) -> VisualExplainability:
    parts = {field.name: torch.tensor([0.5]) for field in dataclasses.fields(VisualExplainability)}
    parts |= {"avx": torch.tensor([avx]), "hit": torch.tensor([True])}
    return VisualExplainability(**parts)


def candidate(relevance, units, avx=None):
    return Candidate(
        relevance,
        torch.arange(units),
        torch.ones(units),
        scores(avx)[0] if avx is not None else None,
        torch.rand(1, 7, 7),
    )


@pytest.fixture
def explanation():
    """30 units of scores 0 to 3; those of score 0 have no map; score 2 is kept."""
    relevance = torch.tensor([[0] * 3 + [1] * 20 + [2] * 6 + [3]])
    return Explanation(
        attributions=torch.arange(49.0).reshape(1, 1, 7, 7) - 10,
        target=torch.tensor([285]),
        confidence=torch.tensor([0.42]),
        unit_relevance=relevance,
        selected=torch.tensor([2]),
        unit_weights=(relevance == 2).float(),
        fallback=torch.tensor([False]),
        scores=scores(0.71),
        candidates=((candidate(1, 20, 0.6), candidate(2, 6, 0.71), candidate(3, 1, 0.0)),),
    )


def doubled(explanation):
    """The same example twice; the second one keeps score 1 and has another map."""
    both = {
        name: torch.cat([getattr(explanation, name)] * 2)
        for name in ("target", "unit_relevance", "fallback")
    }
    relevance = both["unit_relevance"]
    return dataclasses.replace(
        explanation,
        **both,
        attributions=torch.cat([explanation.attributions, -explanation.attributions]),
        unit_weights=torch.stack([relevance[0] == 2, relevance[1] == 1]).float(),
        confidence=torch.tensor([0.1, 0.9]),
        selected=torch.tensor([2, 1]),
        scores=VisualExplainability.concatenate([scores(0.3), scores(0.8)]),
        candidates=explanation.candidates * 2,
    )


@pytest.fixture
def grad_cam(explanation):
    return dataclasses.replace(
        explanation,
        selected=torch.tensor([-1]),
        unit_weights=torch.ones(1, 30),
        scores=scores(0.55),
    )


@pytest.fixture(autouse=True)
def _no_pyplot_figures():
    yield
    assert plt.get_fignums() == []


def rendered(figure) -> np.ndarray:
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        return np.asarray(Image.open(file))


def assert_legible(figure):
    """Every title, label and tick label lies inside the figure, and no two titles touch."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    titles = [figure._suptitle, figure._supxlabel, *(axes.title for axes in figure.axes)]
    titles = [title for title in titles if title is not None and title.get_text()]
    labels = list(titles)
    for axes in figure.axes:
        labels += [axes.xaxis.label, axes.yaxis.label]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            if axes.axison:
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                labels += [label for tick in ticks for label in (tick.label1, tick.label2)]
    for label in labels:
        if label.get_text() and label.get_visible():
            box = label.get_window_extent(renderer)
            assert figure.bbox.containsx(box.x0), label.get_text()
            assert figure.bbox.containsx(box.x1), label.get_text()
            assert figure.bbox.containsy(box.y0), label.get_text()
            assert figure.bbox.containsy(box.y1), label.get_text()
    boxes = [title.get_window_extent(renderer) for title in titles]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


def drawn(axes) -> tuple[np.ndarray, np.ndarray]:
    picture, heat = (np.asarray(image.get_array()) for image in axes.get_images())
    return picture, heat


# --- overlay


def test_heat_is_the_positive_part_stretched():
    values = np.linspace(-1, 3, 224 * 224).reshape(224, 224)
    _, axes = visualization.overlay(PICTURE, values)
    _, heat = drawn(axes)
    assert np.allclose(heat, values.clip(0) / 3, atol=2e-3)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (3, 2), (6, 6)])
def test_heat_is_where_the_map_is(row, column):
    coarse = torch.zeros(1, 7, 7)
    coarse[0, row, column] = 5.0
    _, axes = visualization.overlay(PICTURE, coarse)
    _, heat = drawn(axes)
    top = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.shape == (224, 224)
    assert (top[0] // 32, top[1] // 32) == (row, column)


def test_arrays_and_tensors_draw_the_same():
    tensor = torch.from_numpy(PICTURE).permute(2, 0, 1).float()
    coarse = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    one, _ = visualization.overlay(tensor, coarse, title="heat")
    two, _ = visualization.overlay(PICTURE.astype(np.float32), coarse[0, 0].numpy(), title="heat")
    assert np.array_equal(rendered(one), rendered(two))


@pytest.mark.parametrize(("value", "expected"), [(-2.0, 0.0), (0.0, 0.0), (3.0, 1.0)])
def test_constant_maps(value, expected):
    figure, axes = visualization.overlay(PICTURE, torch.full((7, 7), value), title="flat")
    _, heat = drawn(axes)
    assert np.allclose(heat, expected)
    assert axes.get_title() == "flat"
    rendered(figure)


def test_a_black_picture_and_a_tiny_map():
    figure, _ = visualization.overlay(np.zeros((32, 48, 3)), 1e-30 * torch.rand(3, 3))
    rendered(figure)


def test_grey_pictures():
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    coarse = torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
    shown = [
        rendered(visualization.overlay(picture, coarse)[0])
        for picture in (grey, grey[..., None], torch.from_numpy(grey)[None])
    ]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])


def test_overlay_draws_on_the_given_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert visualization.overlay(PICTURE, torch.rand(7, 7), ax=right) == (figure, right)
    assert not left.get_images()


@pytest.mark.parametrize(
    ("picture", "attribution", "says"),
    [
        (torch.rand(1, 3, 8, 8), torch.rand(2, 2), "of a batch, give one picture"),
        (torch.rand(2, 8, 8), torch.rand(2, 2), r"\(3, H, W\)"),
        (np.zeros((8, 8, 4)), torch.rand(2, 2), r"\(H, W, 3\)"),
        (np.full((8, 8, 3), 200, np.uint8), torch.rand(2, 2), r"in \[0, 1\]"),
        (torch.randn(3, 8, 8), torch.rand(2, 2), "PixelSpace.to_pixels"),
        (torch.rand(3, 8, 8), torch.rand(2, 1, 2, 2), "of a batch, give one map"),
        (torch.rand(3, 8, 8), torch.rand(4), r"\(h, w\)"),
        (torch.rand(3, 8, 8), torch.full((2, 2), math.nan), "finite"),
    ],
)
def test_overlay_errors(picture, attribution, says):
    with pytest.raises(ValueError, match=says):
        visualization.overlay(picture, attribution)


# --- groups


def bars(axes) -> dict[int, tuple[int, str]]:
    return {
        round(bar.get_x() + bar.get_width() / 2): (
            int(bar.get_height()),
            colors.to_hex(bar.get_facecolor()),
        )
        for bar in axes.patches
    }


def points(axes) -> dict[int, float]:
    _, twin = axes.figure.axes
    (line,) = twin.get_lines()
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_groups(explanation):
    figure, axes = visualization.groups(explanation.candidates[0], selected=2)
    shown = bars(axes)
    assert {score: units for score, (units, _) in shown.items()} == {1: 20, 2: 6, 3: 1}
    assert shown[1][1] == shown[3][1] != shown[2][1]
    assert points(axes) == pytest.approx({1: 0.6, 2: 0.71, 3: 0.0})
    rendered(figure)


def test_groups_with_units_that_have_no_map(explanation):
    _, axes = visualization.groups(
        explanation.candidates[0], unit_relevance=explanation.unit_relevance[0]
    )
    units = {score: units for score, (units, _) in bars(axes).items()}
    assert units == {0: 3, 1: 20, 2: 6, 3: 1}
    assert 0 not in points(axes)


@pytest.mark.parametrize(
    "candidates", [(), (candidate(None, 30, 0.5),), (candidate(1, 30),)], ids=["none", "all", "one"]
)
def test_groups_without_scores(candidates):
    figure, axes = visualization.groups(candidates)
    assert axes.figure.axes == [axes]
    rendered(figure)


# --- panel


def texts(figure) -> str:
    titles = [axes.get_title() for axes in figure.axes]
    return "\n".join([figure.get_suptitle(), *titles])


def test_panel(explanation, grad_cam):
    figure, _ = visualization.panel(PICTURE, explanation, grad_cam, class_name="Egyptian cat")
    text = texts(figure)
    for part in (
        "Egyptian cat",
        "confidence 42.0%",
        "relevance score 2 kept",
        "Grad-CAM: 30 units, AVX 0.550",
        "ADVISE: 6 units, AVX 0.710",
    ):
        assert part in text
    seen = figure.axes[0].get_images()[0].get_array()
    assert np.array_equal(seen, PICTURE)


def test_panel_takes_one_example_of_a_batch(explanation, grad_cam):
    both = doubled(explanation)
    text = texts(visualization.panel(PICTURE, both, both, index=1)[0])
    assert "class 285, confidence 90.0%, relevance score 1 kept" in text
    assert "AVX 0.800" in text


def test_panel_of_other_sets_of_units(explanation, grad_cam):
    bare = dataclasses.replace(grad_cam, scores=None, candidates=((),))
    assert "all units kept" in texts(visualization.panel(PICTURE, bare, bare)[0])
    lost = dataclasses.replace(bare, fallback=torch.tensor([True]))
    assert "no group has evidence" in texts(visualization.panel(PICTURE, lost, lost)[0])
    relevance = explanation.unit_relevance
    two = dataclasses.replace(bare, unit_weights=((relevance == 1) | (relevance == 3)).float())
    figure, _ = visualization.panel(PICTURE, two, bare)
    assert "relevance scores 1, 3 kept" in texts(figure)
    shown = bars(figure.axes[3])
    assert shown[1][1] == shown[3][1] != shown[0][1] == shown[2][1]
    none = dataclasses.replace(bare, unit_weights=(relevance == 9).float())
    assert "no units kept" in texts(visualization.panel(PICTURE, none, bare)[0])


@pytest.mark.parametrize("size", [(224, 224), (160, 240), (300, 200)])
def test_nothing_is_clipped_or_overlaps(explanation, grad_cam, size):
    picture = np.resize(PICTURE, (*size, 3))
    name = "white wolf, Arctic wolf, Canis lupus tundrarum, the longest of the names"
    figure, _ = visualization.panel(picture, explanation, grad_cam, class_name=name)
    assert_legible(figure)


def test_panel_draws_on_the_given_axes(explanation, grad_cam):
    figure = Figure()
    given = figure.subplots(2, 2)
    found, axes = visualization.panel(PICTURE, explanation, grad_cam, axes=given)
    assert found is figure
    assert list(axes) == list(given.ravel())
    assert figure.get_suptitle() == ""


# --- overlays


def test_overlays_of_explanations_and_maps(explanation):
    both = doubled(explanation)
    maps = {"Grad-CAM": np.ones((2, 3, 7, 7)) * np.eye(7), "ADVISE": both}
    pictures = np.stack([PICTURE, PICTURE[::-1]])
    names = [str(index) for index in range(285)] + ["Egyptian cat"]
    figure, axes = visualization.overlays(pictures, maps, class_names=names)
    assert axes.shape == (2, 3)
    assert [ax.get_title() for ax in axes[1]] == [
        "Egyptian cat\nconfidence 90.0%",
        "Grad-CAM",
        "ADVISE\n20 units, AVX 0.800",
    ]
    for row, picture in zip(axes, pictures, strict=True):
        assert np.array_equal(row[0].get_images()[0].get_array(), picture)
    # Maps of several channels are summed: all of this one lies on the diagonal.
    heat = drawn(axes[0, 1])[1]
    assert heat[16, 16] > 0.9 > 0.1 > heat[16, 200]
    # The second map is the first one turned negative: evidence where the other has none.
    first, second = (drawn(row[2])[1] for row in axes)
    assert first[0, 0] == 0 < second[0, 0]
    assert first[-1, -1] > 0 == second[-1, -1]
    assert_legible(figure)


def test_a_picture_has_a_caption_only_where_all_explain_the_same(explanation):
    other = dataclasses.replace(explanation, target=torch.tensor([3]))
    _, axes = visualization.overlays(PICTURE, {"a": explanation, "b": explanation})
    assert axes[0, 0].get_title() == "class 285\nconfidence 42.0%"
    _, axes = visualization.overlays(PICTURE, {"a": explanation, "b": other})
    assert axes[0, 0].get_title() == ""


@pytest.mark.parametrize(
    "picture",
    [PICTURE, torch.from_numpy(PICTURE).permute(2, 0, 1), [PICTURE], PICTURE[..., 0]],
    ids=["array", "tensor", "list", "grey"],
)
def test_overlays_of_one_picture(explanation, picture):
    _, axes = visualization.overlays(picture, explanation)
    assert axes.shape == (1, 2)
    assert axes[0, 1].get_title() == "ADVISE\n6 units, AVX 0.710"


def test_overlays_errors(explanation):
    with pytest.raises(ValueError, match="2 pictures need as many maps of ADVISE, got 1"):
        visualization.overlays(np.stack([PICTURE] * 2), explanation)
    with pytest.raises(ValueError, match="1 x 2 axes are needed to draw on, got 3"):
        visualization.overlays(PICTURE, explanation, axes=Figure().subplots(1, 3))


def test_an_explanation_plots_itself(explanation):
    figure = Figure()
    given = figure.subplots(1, 2)
    found, axes = explanation.plot(PICTURE, axes=given)
    assert found is figure
    assert list(axes[0]) == list(given)
    assert drawn(given[1])[1].any()


# --- maps of groups


def test_group_maps(explanation):
    figure, axes = visualization.group_maps(PICTURE, explanation)
    assert [ax.get_title() for ax in axes] == [
        "score 1\n20 units, AVX 0.600",
        "score 2\n6 units, AVX 0.710",
        "score 3\n1 unit, AVX 0.000",
    ]
    assert len(figure.axes) == 3
    assert_legible(figure)


def test_the_kept_group_is_bold(explanation):
    found = (candidate(1, 20, 0.6), dataclasses.replace(candidate(2, 6, 0.71)))
    found[1].units.add_(23)  # units 23 to 28 have score 2
    shown = dataclasses.replace(explanation, candidates=(found,))
    _, axes = visualization.group_maps(PICTURE, shown)
    assert [ax.title.get_fontweight() for ax in axes] == ["normal", "bold"]


def test_group_maps_without_groups(explanation):
    with pytest.raises(ValueError, match="no groups"):
        visualization.group_maps(PICTURE, dataclasses.replace(explanation, candidates=((),)))


# --- densities


@pytest.fixture
def feature_maps():
    """Four units of 8 x 8 positions: two clusters, one cluster, all zero, all out of range."""
    draw = torch.Generator().manual_seed(0)
    spread = 0.01 * torch.randn(3, 64, generator=draw)
    two, one = spread[:2] + 0.5
    two[::2] -= 0.3
    two[1::2] += 0.3
    return torch.stack([two, one, torch.zeros(64), spread[2] + 7]).view(4, 8, 8)


@pytest.mark.parametrize("activation_range", ["unit", "minmax"])
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_modes_are_those_that_make_the_score(feature_maps, activation_range, kind):
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
        places = np.searchsorted(curve.get_xdata(), modes.get_xdata())
        density = curve.get_ydata()
        assert np.array_equal(density[places], modes.get_ydata())
    assert_legible(figure)


def test_the_modes_of_two_clusters_lie_on_them(feature_maps):
    _, (ax,) = visualization.densities(feature_maps, [0])
    assert ax.get_lines()[1].get_xdata() == pytest.approx([0.2, 0.8], abs=0.03)


def test_a_unit_out_of_range_says_so(feature_maps):
    _, (ax,) = visualization.densities(feature_maps, [3])
    assert [text.get_text() for text in ax.texts] == ["no activation in [0, 1]"]


def test_densities_errors(feature_maps):
    with pytest.raises(ValueError, match=r"\(4, 8, 8\) and the units \[4\]"):
        visualization.densities(feature_maps, [4])
    with pytest.raises(ValueError, match="no units"):
        visualization.densities(feature_maps, [])


# --- gallery of units


def test_units_with_the_most_evidence_come_first():
    contributions = -torch.ones(5, 2, 2)
    contributions[3, 0, 0] = 3.0
    contributions[1] = 0.25
    relevance = np.array([0, 1, 2, 3, 4])
    figure, axes = visualization.unit_gallery(PICTURE, contributions, unit_relevance=relevance)
    assert [ax.get_title() for ax in axes] == [
        "unit 3, score 3: 75.0%",
        "unit 1, score 1: 25.0%",
    ]
    assert_legible(figure)
    given = Figure().subplots(2, 2)
    _, one = visualization.unit_gallery(PICTURE, contributions[None].numpy(), count=1, axes=given)
    assert list(one) == [given[0, 0]]


def test_unit_gallery_errors():
    with pytest.raises(ValueError, match="no units with evidence"):
        visualization.unit_gallery(PICTURE, torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match=r"\(C, h, w\) for one example, got \(2, 5, 2, 2\)"):
        visualization.unit_gallery(PICTURE, torch.zeros(2, 5, 2, 2))
    with pytest.raises(ValueError, match="axes are needed to draw on, got 1"):
        visualization.unit_gallery(PICTURE, torch.ones(5, 2, 2), axes=[Figure().subplots()])


# --- matplotlib's state


def test_drawing_leaves_matplotlib_as_it_was(explanation, grad_cam, feature_maps):
    before = dict(matplotlib.rcParams), plt.get_backend()
    visualization.overlay(PICTURE, torch.rand(7, 7))
    visualization.overlays(PICTURE, explanation)
    visualization.groups(explanation.candidates[0])
    visualization.group_maps(PICTURE, explanation)
    visualization.densities(feature_maps, [0])
    visualization.unit_gallery(PICTURE, feature_maps)
    rendered(visualization.panel(PICTURE, explanation, grad_cam)[0])
    assert (dict(matplotlib.rcParams), plt.get_backend()) == before
    assert plt.get_fignums() == []


def test_drawing_needs_no_display_and_chooses_no_backend():
    program = """
import matplotlib, torch
from captum_advise.visualization import overlay
overlay(torch.rand(3, 8, 8), torch.rand(2, 2))[0].canvas.draw()
assert "matplotlib.backends.backend_tkagg" not in __import__("sys").modules
print(type(dict.get(matplotlib.rcParams, "backend")))  # asking politely chooses one
"""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    }
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout == "<class 'object'>\n"  # the mark of "not chosen yet"
