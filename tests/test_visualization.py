from __future__ import annotations

import dataclasses
import io
import math

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

PICTURE = data.chelsea()[:224, :224] / 255


def scores(avx: float) -> VisualExplainability:
    parts = {field.name: torch.tensor([0.5]) for field in dataclasses.fields(VisualExplainability)}
    parts |= {"avx": torch.tensor([avx]), "hit": torch.tensor([True])}
    return VisualExplainability(**parts)


def candidate(relevance, units, avx=None):
    return Candidate(relevance, torch.arange(units), scores(avx)[0] if avx is not None else None)


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
        selected_units=relevance == 2,
        fallback=torch.tensor([False]),
        scores=scores(0.71),
        candidates=((candidate(1, 20, 0.6), candidate(2, 6, 0.71), candidate(3, 1, 0.0)),),
    )


@pytest.fixture
def grad_cam(explanation):
    return dataclasses.replace(
        explanation,
        selected=torch.tensor([-1]),
        selected_units=torch.ones(1, 30, dtype=torch.bool),
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


def test_overlay_draws_on_the_given_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert visualization.overlay(PICTURE, torch.rand(7, 7), ax=right) == (figure, right)
    assert not left.get_images()


@pytest.mark.parametrize(
    ("picture", "attribution", "says"),
    [
        (torch.rand(1, 3, 8, 8), torch.rand(2, 2), "of a batch, give one picture"),
        (torch.rand(1, 8, 8), torch.rand(2, 2), r"\(3, H, W\)"),
        (np.zeros((8, 8)), torch.rand(2, 2), r"\(H, W, 3\)"),
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
    figure = visualization.panel(PICTURE, explanation, grad_cam, class_name="Egyptian cat")
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
    both = dataclasses.replace(
        explanation,
        **{
            name: torch.cat([getattr(explanation, name)] * 2)
            for name in ("attributions", "target", "unit_relevance", "fallback")
        },
        selected_units=torch.cat(
            [explanation.unit_relevance == score for score in (2, 1)],
        ),
        confidence=torch.tensor([0.1, 0.9]),
        selected=torch.tensor([2, 1]),
        scores=VisualExplainability.concatenate([scores(0.3), scores(0.8)]),
        candidates=explanation.candidates * 2,
    )
    text = texts(visualization.panel(PICTURE, both, both, index=1))
    assert "class 285, confidence 90.0%, relevance score 1 kept" in text
    assert "AVX 0.800" in text


def test_panel_of_other_sets_of_units(explanation, grad_cam):
    bare = dataclasses.replace(grad_cam, scores=None, candidates=((),))
    assert "all units kept" in texts(visualization.panel(PICTURE, bare, bare))
    lost = dataclasses.replace(bare, fallback=torch.tensor([True]))
    assert "no group has evidence" in texts(visualization.panel(PICTURE, lost, lost))
    relevance = explanation.unit_relevance
    two = dataclasses.replace(bare, selected_units=(relevance == 1) | (relevance == 3))
    figure = visualization.panel(PICTURE, two, bare)
    assert "relevance scores 1, 3 kept" in texts(figure)
    shown = bars(figure.axes[3])
    assert shown[1][1] == shown[3][1] != shown[0][1] == shown[2][1]
    none = dataclasses.replace(bare, selected_units=relevance == 9)
    assert "no units kept" in texts(visualization.panel(PICTURE, none, bare))


@pytest.mark.parametrize("size", [(224, 224), (160, 240), (300, 200)])
def test_nothing_is_clipped_or_overlaps(explanation, grad_cam, size):
    """Every title, label and tick label lies inside the figure, and no two titles touch."""
    picture = np.resize(PICTURE, (*size, 3))
    name = "white wolf, Arctic wolf, Canis lupus tundrarum, the longest of the names"
    figure = visualization.panel(picture, explanation, grad_cam, class_name=name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    labels = [figure._suptitle, figure._supxlabel]
    for axes in figure.axes:
        labels += [axes.title, axes.xaxis.label, axes.yaxis.label]
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
    titles = [
        figure._suptitle,
        figure._supxlabel,
        *(axes.title for axes in figure.axes if axes.get_title()),
    ]
    boxes = [title.get_window_extent(renderer) for title in titles]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
