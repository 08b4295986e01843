from __future__ import annotations

from itertools import pairwise

import captum.metrics
import pytest
import torch
from captum.attr import LayerGradCam, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_advise import PixelSpace
from captum_advise.metrics import (
    blurred,
    deletion_auc,
    infidelity,
    insertion_auc,
    sensitivity_max,
)

IDENTITY = nn.Identity()


def brightness(pictures):
    """A "classifier" whose confidence in class 1 is the mean pixel."""
    mean = pictures.mean((1, 2, 3))
    return torch.stack([1 - mean, mean], 1)


def sorted_share(maps, whole, n):
    """Mean confidence curve by hand: pixel by pixel, in Python."""
    order = sorted(range(n), key=lambda place: (-maps.flatten()[place].item(), place))
    values = whole.mean(1).flatten()
    curve = [0.0]
    for place in order:
        curve.append(curve[-1] + values[place].item() / n)
    return curve


@pytest.mark.parametrize("steps", [1, 3, 16])
def test_areas_of_a_mean_pixel_classifier_are_those_by_hand(steps):
    torch.manual_seed(0)
    inputs, maps = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    curve = sorted_share(maps, inputs, 16)
    taken = [curve[round(step * 16 / steps)] for step in range(steps + 1)]
    area = sum((a + b) / 2 for a, b in pairwise(taken)) / steps
    one = torch.tensor([1])
    black = torch.zeros(1, 3, 4, 4)
    options = {"steps": steps, "confidence": IDENTITY}
    inserted = insertion_auc(brightness, inputs, maps, one, baselines=black, **options)
    assert inserted.item() == pytest.approx(area, abs=1e-6)
    deleted = deletion_auc(brightness, inputs, maps, one, baselines=black, **options)
    assert deleted.item() == pytest.approx(curve[-1] - area, abs=1e-6)


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
    deleted = deletion_auc(
        brightness, inputs, maps, target, baselines=other, steps=steps, confidence=IDENTITY
    )
    inserted = insertion_auc(
        brightness,
        other,
        maps,
        target,
        baselines=inputs,
        steps=steps,
        confidence=IDENTITY,
        internal_batch_size=batch,
    )
    torch.testing.assert_close(deleted, inserted)


def test_several_maps_of_an_input_are_scored_as_each_alone():
    torch.manual_seed(0)
    inputs, maps, target = torch.rand(2, 3, 6, 5), torch.rand(2, 4, 6, 5), torch.tensor([0, 1])
    seen = []

    def counting(pictures):
        seen.append(len(pictures))
        return brightness(pictures)

    for area in (insertion_auc, deletion_auc):
        together = area(counting, inputs, maps, target, steps=5)
        alone = [area(brightness, inputs, maps[:, [m]], target, steps=5) for m in range(4)]
        torch.testing.assert_close(together, torch.stack(alone, 1))
    # The two ends of a curve are the same for all maps of an input.
    assert sum(seen) == 2 * (2 * 2 + 2 * 4 * 4)


def test_a_perfect_map_wins_over_its_reverse():
    inputs = torch.zeros(1, 3, 8, 8)
    inputs[..., :2, :2] = 1.0  # the only evidence
    maps = inputs[:, :1]
    one = torch.tensor([1])
    good, bad = (insertion_auc(brightness, inputs, m, one) for m in (maps, -maps))
    assert good > bad
    good, bad = (deletion_auc(brightness, inputs, m, one) for m in (maps, -maps))
    assert good < bad


def test_black_is_that_of_the_pixel_space_or_the_lowest_value():
    seen = []

    def watching(pictures):
        seen.append(pictures)
        return brightness(pictures)

    space = PixelSpace.imagenet()
    inputs, maps = torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    target = torch.tensor([0, 1])
    deletion_auc(watching, inputs, maps, target, pixel_space=space, steps=1)
    torch.testing.assert_close(space.to_pixels(seen[0][2:3]), torch.zeros(1, 3, 4, 4))
    deletion_auc(watching, inputs, maps, target, steps=1)
    torch.testing.assert_close(seen[1][3], inputs[1].min().expand(3, 4, 4))


def test_blur_is_the_gaussian_of_rise():
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    answer = blurred(impulse)[0, 0]
    offsets = torch.arange(-5.0, 6)
    window = torch.exp(-(offsets**2) / (2 * 5.0**2))
    window = window / window.sum()
    torch.testing.assert_close(answer[10:21, 10:21], window[:, None] * window, atol=1e-6, rtol=1e-4)
    assert answer.sum().item() == pytest.approx(1, abs=1e-5)
    assert blurred(torch.rand(1, 3, 2, 4)).shape == (1, 3, 2, 4)


def test_bad_arguments_are_named():
    inputs, target = torch.rand(1, 3, 4, 4), torch.tensor([1])
    with pytest.raises(ValueError, match=r"need maps of shape \(1, 1, 4, 4\)"):
        insertion_auc(brightness, inputs, torch.rand(1, 1, 2, 2), target)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        deletion_auc(brightness, inputs, torch.rand(1, 1, 4, 4), target, steps=0)


def test_infidelity_of_the_gradient_of_a_linear_model_is_zero():
    weights = torch.rand(1, 1, 4, 4)

    def linear(pictures):
        score = (pictures * weights).sum((1, 2, 3))
        return torch.stack([score, -score], 1)

    inputs, target = torch.rand(2, 3, 4, 4), torch.tensor([0, 0])
    torch.manual_seed(1)
    exact = infidelity(linear, inputs, weights.expand(2, -1, -1, -1), target)
    torch.testing.assert_close(exact, torch.zeros(2), atol=1e-6, rtol=0)
    wrong = infidelity(linear, inputs, torch.rand(2, 1, 4, 4), target)
    assert (wrong > 1e-4).all()


@pytest.mark.filterwarnings("ignore:Input Tensor 0")
def test_sensitivity_is_captums():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(16, 2)).eval()
    saliency = Saliency(model)
    inputs, target = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    torch.manual_seed(5)
    expected = captum.metrics.sensitivity_max(saliency.attribute, inputs, target=target)
    torch.manual_seed(5)
    found = sensitivity_max(saliency.attribute, inputs, target)
    torch.testing.assert_close(found, expected)
    seen = []

    def watching(pictures, classes):
        seen.append((len(pictures), classes.tolist()))
        return pictures

    sensitivity_max(watching, inputs[1:], target[1:], n_perturb_samples=3)
    assert seen == [(1, [1]), (3, [1, 1, 1])]
    layer_map = LayerGradCam(model, model[0]).attribute  # returns a tensor even for a tuple
    assert sensitivity_max(layer_map, inputs, target).shape == (2,)
    constant = sensitivity_max(lambda x, _: torch.ones(len(x), 1, 2, 2), inputs, target)
    assert not constant.any()
