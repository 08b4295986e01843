from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_advise import PixelSpace
from captum_advise.metrics import deletion_auc, insertion_auc
from captum_advise.metrics.insertion_deletion import blurred, curves_between

IDENTITY = nn.Identity()


def brightness(images):
    """A classifier whose confidence in class 1 is the mean pixel."""
    mean = images.mean((1, 2, 3))
    return torch.stack([1 - mean, mean], 1)


def brightness_curve(maps, image):
    """Brightness after each inserted pixel, by hand."""
    values = image.mean(1).flatten().tolist()
    importance = maps.flatten().tolist()
    curve = [0.0]
    for pixel in sorted(range(len(values)), key=lambda pixel: (-importance[pixel], pixel)):
        curve.append(curve[-1] + values[pixel] / len(values))
    return curve


@pytest.mark.parametrize("steps", [1, 3, 16])
def test_areas_under_the_brightness_are_those_by_hand(steps):
    torch.manual_seed(0)
    inputs, maps = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    curve = brightness_curve(maps, inputs)
    heights = [curve[round(step * 16 / steps)] for step in range(steps + 1)]
    area = sum((a + b) / 2 for a, b in pairwise(heights)) / steps
    target = torch.tensor([1])
    black = torch.zeros(1, 3, 4, 4)
    options = {"steps": steps, "confidence": IDENTITY}
    insertion = insertion_auc(brightness, inputs, maps, target, baselines=black, **options)
    assert insertion.item() == pytest.approx(area, abs=1e-6)
    deletion = deletion_auc(brightness, inputs, maps, target, baselines=black, **options)
    assert deletion.item() == pytest.approx(curve[-1] - area, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    examples=st.integers(1, 3),
    batch=st.integers(1, 9),
    steps=st.integers(1, 7),
)
def test_deleting_is_inserting_the_baseline(seed, examples, batch, steps):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(examples, 1, 5, 3, generator=generator)
    other = torch.rand(examples, 1, 5, 3, generator=generator)
    maps = torch.rand(examples, 1, 5, 3, generator=generator).round(decimals=1)
    target = torch.randint(2, (examples,), generator=generator)
    deletion = deletion_auc(
        brightness, inputs, maps, target, baselines=other, steps=steps, confidence=IDENTITY
    )
    insertion = insertion_auc(
        brightness,
        other,
        maps,
        target,
        baselines=inputs,
        steps=steps,
        confidence=IDENTITY,
        internal_batch_size=batch,
    )
    torch.testing.assert_close(deletion, insertion)


def test_several_maps_of_an_input_give_what_each_alone_gives():
    torch.manual_seed(0)
    inputs, maps, target = torch.rand(2, 3, 6, 5), torch.rand(2, 4, 6, 5), torch.tensor([0, 1])
    batch_sizes = []

    def counting(images):
        batch_sizes.append(len(images))
        return brightness(images)

    for area in (insertion_auc, deletion_auc):
        options = {"steps": 5, "confidence": IDENTITY}
        together = area(counting, inputs, maps, target, **options)
        alone = [area(brightness, inputs, maps[:, [m]], target, **options) for m in range(4)]
        torch.testing.assert_close(together, torch.stack(alone, 1))
    # The two ends of a curve are the same for all maps of an input.
    assert sum(batch_sizes) == 2 * (2 * 2 + 2 * 4 * 4)


def test_curves_together_give_what_each_alone_gives():
    torch.manual_seed(0)
    inputs, maps, target = torch.rand(2, 3, 6, 5), torch.rand(2, 2, 6, 5), torch.tensor([0, 1])
    black, other = torch.zeros(1, 3, 1, 1), torch.rand(2, 3, 6, 5)
    batch_sizes = []

    def counting(images):
        batch_sizes.append(len(images))
        return brightness(images)

    ends = {"whole": inputs, "black": black, "other": other}
    curves = [("other", "whole"), ("whole", "black"), ("black", "whole"), ("whole", "other")]
    options = {"steps": 5, "confidence": IDENTITY}
    together = curves_between(
        counting, ends, curves, maps, target, internal_batch_size=7, **options
    )
    # Three images of each input, and four inner points of four curves of two maps.
    assert sum(batch_sizes) == 2 * (3 + 4 * 4 * 2)
    # The curves by hand, for the mean of the pixels is the confidence in class 1.
    order = maps.flatten(2).argsort(2, descending=True)
    for curve, (first, last) in zip(together, curves, strict=True):
        before, after = (ends[name].expand_as(inputs).mean(1).flatten(1) for name in (first, last))
        for step in range(6):
            values = before[:, None].expand(-1, 2, -1).clone()
            changed = order[:, :, : step * 6]
            values.scatter_(2, changed, after[:, None].expand(-1, 2, -1).gather(2, changed))
            mean = values.mean(2)
            expected = torch.stack([1 - mean[0], mean[1]])
            torch.testing.assert_close(curve[:, :, step], expected)
    areas = [torch.trapezoid(curve, dx=1 / 5) for curve in together]
    for area, of_area, baselines in (
        (areas[0], insertion_auc, other),
        (areas[1], deletion_auc, black),
        (areas[2], insertion_auc, black),
        (areas[3], deletion_auc, other),
    ):
        expected = of_area(brightness, inputs, maps, target, baselines=baselines, **options)
        torch.testing.assert_close(area, expected)


def test_a_perfect_map_wins_over_its_reverse():
    inputs = torch.zeros(1, 3, 8, 8)
    inputs[..., :2, :2] = 1.0  # the only evidence
    maps = inputs[:, :1]
    target = torch.tensor([1])
    good, bad = (
        insertion_auc(brightness, inputs, m, target, confidence=IDENTITY) for m in (maps, -maps)
    )
    assert good > bad
    good, bad = (
        deletion_auc(brightness, inputs, m, target, confidence=IDENTITY) for m in (maps, -maps)
    )
    assert good < bad


def test_black_comes_from_the_pixel_space_or_is_the_lowest_value():
    batches = []

    def recording(images):
        batches.append(images)
        return brightness(images)

    space = PixelSpace.imagenet()
    inputs, maps = torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    target = torch.tensor([0, 1])
    deletion_auc(recording, inputs, maps, target, pixel_space=space, steps=1)
    torch.testing.assert_close(space.to_pixels(batches[0][2:3]), torch.zeros(1, 3, 4, 4))
    deletion_auc(recording, inputs, maps, target, steps=1)
    torch.testing.assert_close(batches[1][3], inputs[1].min().expand(3, 4, 4))


def test_blur_is_the_gaussian_of_rise():
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    response = blurred(impulse)[0, 0]
    offsets = torch.arange(-5.0, 6)
    window = torch.exp(-(offsets**2) / (2 * 5.0**2))
    window = window / window.sum()
    torch.testing.assert_close(
        response[10:21, 10:21], window[:, None] * window, atol=1e-6, rtol=1e-4
    )
    assert response.sum().item() == pytest.approx(1, abs=1e-5)
    assert blurred(torch.rand(1, 3, 2, 4)).shape == (1, 3, 2, 4)


def test_bad_arguments_are_named():
    inputs, target = torch.rand(1, 3, 4, 4), torch.tensor([1])
    with pytest.raises(ValueError, match=r"need maps of shape \(1, 1, 4, 4\)"):
        insertion_auc(brightness, inputs, torch.rand(1, 1, 2, 2), target)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        deletion_auc(brightness, inputs, torch.rand(1, 1, 4, 4), target, steps=0)
