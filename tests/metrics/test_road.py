from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence
from skimage import data
from torch import nn
from toy_networks import images, network

from captum_advise.metrics import road

IDENTITY = nn.Identity()


def photograph(size):
    image = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None] / 255
    return nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)


def smooth_map(size, seed=0):
    coarse = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (size, size), mode="bicubic")


def test_pytorch_grad_cam_gives_the_same():
    imputation = pytest.importorskip("pytorch_grad_cam.metrics.road")
    perturbation = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence")
    image, maps, model = photograph(48), smooth_map(48), network()
    imputer = imputation.NoisyLinearImputer(noise=0.0)
    result = road(model, image, maps, torch.tensor([2]), noise=0.0)
    assert result.value.shape == (1,)
    with torch.no_grad():
        for remover, shares, curve in (
            (perturbation.RemoveMostRelevantFirst, range(90, 0, -10), result.most_relevant_first),
            (perturbation.RemoveLeastRelevantFirst, range(90, 0, -10), result.least_relevant_first),
        ):
            for percentile, confidence in zip(shares, curve[0].tolist(), strict=True):
                # Its thresholds are percentiles, which can differ by one pixel.
                removed = remover(percentile, imputer)(image[0], maps[0, 0])
                expected = model(removed[None]).softmax(1)[0, 2].item()
                assert confidence == pytest.approx(expected, abs=2e-3)


def test_curves_by_hand():
    """The mean of the left half, whose removal the right half must fill."""
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 1.0
    maps = image.clone()

    def brightness(inputs):
        mean = inputs.mean((1, 2, 3))
        return torch.stack([1 - mean, mean], 1)

    result = road(
        brightness, image, maps, torch.tensor([1]), shares=(0.5,), noise=0.0, confidence=IDENTITY
    )
    # What remains is constant, and so is what is imputed.
    torch.testing.assert_close(result.most_relevant_first, torch.zeros(1, 1))
    torch.testing.assert_close(result.least_relevant_first, torch.ones(1, 1))
    torch.testing.assert_close(result.value, torch.ones(1))


def test_several_maps_of_an_input_give_what_each_alone_gives():
    inputs, maps, model = images(2), torch.rand(2, 3, 24, 24), network()
    target = torch.tensor([1, 4])

    def result(maps, **options):
        torch.manual_seed(5)
        return road(model, inputs, maps, target, shares=(0.2, 0.7), noise=0.1, **options)

    together = result(maps)
    assert together.value.shape == (2, 3)
    assert together.most_relevant_first.shape == (2, 3, 2)
    for m in range(3):
        alone = result(maps[:, [m]], internal_batch_size=5)
        for joint, single in zip(together, alone, strict=True):
            torch.testing.assert_close(joint[:, m], single, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 99), st.sampled_from([torch.exp, lambda m: m**3, lambda m: 5 * m - 2]))
def test_only_the_order_of_pixels_counts(seed, transform):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(2, 3, 8, 8, generator=generator)
    maps = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    target = torch.tensor([1, 4])
    model = network()
    first = road(model, inputs, maps, target, noise=0.0)
    second = road(model, inputs, transform(maps), target, noise=0.0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.value.abs().max() <= 1
    # Removing the least relevant of the reversed map is removing the most relevant.
    reverse = road(model, inputs, -maps, target, noise=0.0)
    torch.testing.assert_close(reverse.value, -first.value, atol=1e-5, rtol=0)
    swapped = road(model, inputs.flip(0), maps.flip(0), target.flip(0), noise=0.0)
    torch.testing.assert_close(swapped.value.flip(0), first.value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shares", [(), (0.0,), (0.5, 1.0)])
def test_shares_are_checked(shares):
    with pytest.raises(ValueError, match="between 0 and 1") as error:
        road(network(), images(1), torch.rand(1, 1, 24, 24), torch.tensor([1]), shares=shares)
    one_sentence(error)


def test_maps_are_checked():
    with pytest.raises(ValueError, match=r"need maps of shape \(1, 1, 24, 24\)"):
        road(network(), images(1), torch.rand(1, 1, 7, 7), torch.tensor([1]))
