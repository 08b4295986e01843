from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from drawn import assert_legible, colour_bars, image_and_heat, rendered
from example_explanations import explanation as example
from example_explanations import setup_with, two_examples
from matplotlib.figure import Figure
from messages import one_sentence
from PIL import Image

from captum_advise import visualization

# --- overlay


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((7, 7), True), ((1, 1), True), ((1, 2), True), ((8, 9), True), ((9, 16), False)],
)
def test_a_map_of_another_aspect_is_told(recwarn, shape, fits):
    image, attribution = torch.rand(3, 63, 64), torch.rand(1, 1, *shape)
    visualization.overlay(image, attribution)
    visualization.overlays(image, {"map": attribution})
    told = [found.filename for found in recwarn if "of another aspect" in str(found.message)]
    assert told == ([] if fits else [__file__, __file__])


def test_overlays_tell_of_another_aspect_once(recwarn):
    maps = {str(side): torch.rand(2, 1, side, 2 * side) for side in (7, 8, 14)}
    visualization.overlays(torch.rand(2, 3, 64, 64), maps)
    assert len([found for found in recwarn if "of another aspect" in str(found.message)]) == 1


def test_heat_is_the_positive_part_stretched(image):
    values = np.linspace(-1, 3, 224 * 224).reshape(224, 224)
    _, axes = visualization.overlay(image, values)
    _, heat = image_and_heat(axes)
    assert np.allclose(heat, values.clip(0) / 3, atol=2e-3)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (3, 2), (6, 6)])
def test_heat_is_where_the_map_is(image, row, column):
    coarse = torch.zeros(1, 7, 7)
    coarse[0, row, column] = 5.0
    _, axes = visualization.overlay(image, coarse)
    _, heat = image_and_heat(axes)
    top = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.shape == (224, 224)
    assert (top[0] // 32, top[1] // 32) == (row, column)


def test_arrays_and_tensors_draw_the_same(image):
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()
    coarse = torch.rand(1, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    one, _ = visualization.overlay(tensor, coarse, title="heat")
    two, _ = visualization.overlay(image.astype(np.float32), coarse[0, 0].numpy(), title="heat")
    assert np.array_equal(rendered(one), rendered(two))


@pytest.mark.parametrize(("value", "expected"), [(-2.0, 0.0), (0.0, 0.0), (3.0, 1.0)])
def test_constant_maps(image, value, expected):
    figure, axes = visualization.overlay(image, torch.full((7, 7), value), title="flat")
    _, heat = image_and_heat(axes)
    assert np.allclose(heat, expected)
    assert axes.get_title() == "flat"
    rendered(figure)


def test_a_black_image_and_a_tiny_map():
    figure, _ = visualization.overlay(np.zeros((32, 48, 3)), 1e-30 * torch.rand(3, 3))
    rendered(figure)


def test_grey_images():
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    coarse = torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
    shown = [
        rendered(visualization.overlay(image, coarse)[0])
        for image in (grey, grey[..., None], torch.from_numpy(grey)[None])
    ]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])


def test_overlay_draws_on_the_given_axes(image):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert visualization.overlay(image, torch.rand(7, 7), ax=right) == (figure, right)
    assert not left.get_images()
    assert figure.axes == [left, right]


def test_a_new_figure_has_a_colour_bar(image):
    figure, _ = visualization.overlay(image, torch.rand(7, 7), title="heat")
    (bar,) = colour_bars(figure)
    assert [label.get_text() for label in bar.get_xticklabels()] == ["none", "most"]
    assert_legible(figure)


@pytest.mark.parametrize(
    ("image", "attribution", "message"),
    [
        (torch.rand(1, 3, 8, 8), torch.rand(2, 2), "pass one image of a batch"),
        (torch.rand(2, 8, 8), torch.rand(2, 2), r"\(3, H, W\)"),
        (np.zeros((8, 8, 4)), torch.rand(2, 2), r"\(H, W, 3\)"),
        (np.full((8, 8, 3), 200, np.uint8), torch.rand(2, 2), r"in \[0, 1\]"),
        (torch.randn(3, 8, 8), torch.rand(2, 2), "PixelSpace.to_pixels"),
        (torch.rand(3, 8, 8), torch.rand(2, 1, 2, 2), "pass one map of a batch"),
        (torch.rand(3, 8, 8), torch.rand(4), r"\(h, w\)"),
        (torch.rand(3, 8, 8), torch.full((2, 2), math.nan), "finite"),
    ],
)
def test_overlay_errors(image, attribution, message):
    with pytest.raises(ValueError, match=message):
        visualization.overlay(image, attribution)


# --- overlays


def test_overlays_of_maps(image):
    maps = {
        "fine": np.ones((2, 3, 7, 7)) * np.eye(7),
        "two": torch.stack([torch.zeros(1, 4, 5), torch.ones(1, 4, 5)]),
    }
    images = np.stack([image, image[::-1]])
    figure, axes = visualization.overlays(images, maps)
    assert axes.shape == (2, 3)
    titles = ["", "fine\n7 x 7 positions", "two\n4 x 5 positions"]
    assert [ax.get_title() for ax in axes[1]] == titles
    for row, pixels in zip(axes, images, strict=True):
        assert np.array_equal(row[0].get_images()[0].get_array(), pixels)
    # Maps of several channels are summed: all of this one lies on the diagonal.
    heat = image_and_heat(axes[0, 1])[1]
    assert heat[16, 16] > 0.9 > 0.1 > heat[16, 200]
    # Each image has its own map.
    assert [image_and_heat(row[2])[1].max() for row in axes] == [0, 1]
    assert len(colour_bars(figure)) == 1
    assert_legible(figure)


@pytest.mark.parametrize(
    "given",
    [
        lambda image: image,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: [image],
        lambda image: image[..., 0],
        lambda image: Image.fromarray((255 * image).astype(np.uint8)),
    ],
    ids=["array", "tensor", "list", "grey", "PIL"],
)
def test_overlays_of_one_image(image, given):
    figure, axes = visualization.overlays(given(image), {"own": torch.rand(1, 1, 9, 9)})
    assert axes.shape == (1, 2)
    assert axes[0, 1].get_title() == "own\n9 x 9 positions"
    assert_legible(figure)


def test_overlays_errors(image):
    one = torch.rand(1, 1, 7, 7)
    with pytest.raises(ValueError, match="2 images need as many maps of own, got 1"):
        visualization.overlays(np.stack([image] * 2), {"own": one})


# --- gallery


def test_gallery():
    both = two_examples()
    figure, axes = visualization.gallery(both)
    assert axes.shape == (2, 3)
    assert [ax.get_title() for ax in axes[1]] == [
        "class 285\nconfidence 90.0%",
        "LayerAdvise\n20 units, AVX 0.800",
        "Grad-CAM\nall 30 units",
    ]
    for row, pixels in zip(axes, both.images, strict=True):
        assert np.array_equal(row[0].get_images()[0].get_array(), pixels.permute(1, 2, 0))
    # The second map is the first one turned negative: evidence where the other has none.
    first, second = (image_and_heat(row[1])[1] for row in axes)
    assert first[0, 0] == 0 < second[0, 0]
    assert first[-1, -1] > 0 == second[-1, -1]
    assert len(colour_bars(figure)) == 1
    assert_legible(figure)


def test_the_recommended_map_comes_first():
    fine = torch.zeros(1, 1, 224, 224)
    fine[..., 30:40, 100:110] = 1
    several = example(gated_grad_cam=fine, my_own=fine)
    axes = visualization.gallery(several)[1][0, 1:]
    names = [ax.get_title().split("\n")[0] for ax in axes]
    assert names == ["GatedGradCam", "my-own", "LayerAdvise", "Grad-CAM"]
    assert axes[0].get_title() == "GatedGradCam\n224 x 224 positions"
    np.testing.assert_allclose(image_and_heat(axes[0])[1], fine[0, 0], atol=1e-6)


def test_what_was_selected_in_words(explanation):
    everything = torch.ones(1, 30, dtype=torch.bool)
    bare = dataclasses.replace(explanation, selected_units=everything, candidates=((),))
    assert "all units selected" in bare.describe_selection(0)
    lost = dataclasses.replace(bare, fallback=torch.tensor([True]))
    assert "no group has evidence" in lost.describe_selection(0)
    relevance = explanation.unit_relevance
    two = dataclasses.replace(bare, selected_units=(relevance == 1) | (relevance == 3))
    assert "1, 3 selected" in two.describe_selection(0)
    none = dataclasses.replace(bare, selected_units=relevance == 9)
    assert "no units selected" in none.describe_selection(0)


@pytest.mark.parametrize("size", [(224, 224), (160, 240), (300, 200)])
def test_nothing_is_clipped_or_overlaps(size):
    name = "white wolf, Arctic wolf, Canis lupus tundrarum, the longest of the names"
    several = dataclasses.replace(
        example(gated_grad_cam=torch.rand(1, 1, *size)),
        images=torch.rand(1, 3, *size),
        setup=setup_with([name] * 300),
    )
    figure, axes = visualization.gallery(several)
    assert axes[0, 0].get_title() == "white wolf, Arctic wolf, Ca…\nconfidence 42.0%"
    assert_legible(figure)


@pytest.mark.parametrize("draw", ["gallery", "page"])
def test_explanations_of_what_is_not_an_image(explanation, draw):
    without = dataclasses.replace(explanation, images=None)
    with pytest.raises(ValueError) as error:
        getattr(visualization, draw)(without)
    assert "has no images to draw" in one_sentence(error)
