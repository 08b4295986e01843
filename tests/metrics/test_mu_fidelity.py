from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence
from torch import nn
from toy_networks import images, network

from captum_advise import PixelSpace
from captum_advise.metrics import mu_fidelity

IDENTITY = nn.Identity()


def linear(weights):
    def forward(inputs):
        score = (inputs * weights).sum((1, 2, 3))
        return torch.stack([score, -score], 1)

    return forward


@given(st.integers(0, 99), st.integers(2, 20), st.floats(0.01, 100))
def test_contributions_to_a_linear_model_correlate_perfectly(seed, size, scale):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, 3, size, size, generator=generator)
    inputs = torch.rand(2, 3, size, size, generator=generator)
    pixel_space = PixelSpace(torch.rand(3, generator=generator), (1.0, 1.0, 1.0))
    maps = scale * (pixel_space.to_pixels(inputs) * weights).sum(1, keepdim=True)
    options = {"pixel_space": pixel_space, "confidence": IDENTITY}
    exact = mu_fidelity(linear(weights), inputs, maps, torch.tensor([0, 0]), **options)
    torch.testing.assert_close(exact, torch.ones(2), atol=1e-4, rtol=0)
    opposite = mu_fidelity(linear(weights), inputs, maps, torch.tensor([1, 0]), **options)
    torch.testing.assert_close(opposite, torch.tensor([-1.0, 1.0]), atol=1e-4, rtol=0)


def test_several_maps_share_their_passes():
    inputs, maps, target = images(2), torch.rand(2, 3, 24, 24), torch.tensor([1, 4])
    model, sizes = network(), []

    def counting(perturbed):
        sizes.append(len(perturbed))
        return model(perturbed)

    torch.manual_seed(1)
    together = mu_fidelity(counting, inputs, maps, target, n_subsets=10, internal_batch_size=7)
    assert sum(sizes) == 20
    assert max(sizes) == 7
    for m in range(3):
        torch.manual_seed(1)
        alone = mu_fidelity(model, inputs, maps[:, [m]], target, n_subsets=10)
        torch.testing.assert_close(together[:, m], alone, atol=1e-5, rtol=0)


def test_a_constant_map_has_zero():
    maps = torch.full((2, 1, 28, 28), 0.3)  # cells of one size
    inputs = images(2, height=28, width=28)
    values = mu_fidelity(network(), inputs, maps, torch.tensor([1, 4]))
    assert values.tolist() == [0, 0]


@pytest.mark.parametrize("options", [{"n_subsets": 1}, {"n_subsets": 2.0}])
def test_numbers_are_checked(options):
    with pytest.raises((ValueError, TypeError)) as error:
        mu_fidelity(network(), images(1), torch.rand(1, 1, 24, 24), torch.tensor([1]), **options)
    assert next(iter(options)) in one_sentence(error)
