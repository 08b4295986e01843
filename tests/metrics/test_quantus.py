"""Quantus as a second implementation. Its import takes several seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_networks import images, network

from captum_advise import PixelSpace
from captum_advise.metrics import (
    energy_pointing_game,
    mu_fidelity,
    pointing_game,
    sparseness,
)

pytestmark = pytest.mark.slow
QUIET = {"disable_warnings": True, "display_progressbar": False}


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus")


def test_sparseness(quantus):
    maps = torch.rand(3, 1, 9, 7) ** 3
    expected = quantus.Sparseness(**QUIET).evaluate_batch(
        x_batch=maps.numpy(), a_batch=maps.numpy().copy()
    )
    # It adds 1e-7 to every pixel.
    np.testing.assert_allclose(sparseness(maps).numpy(), expected, atol=1e-5)


def test_localisation(quantus):
    maps, masks = torch.rand(20, 1, 6, 5), torch.rand(20, 1, 6, 5) > 0.5
    batch = {"a_batch": maps.numpy(), "s_batch": masks.numpy()}
    hits = quantus.PointingGame(**QUIET).evaluate_batch(**batch)
    assert pointing_game(maps, masks, tolerance=0).tolist() == hits.tolist()
    mass = quantus.RelevanceMassAccuracy(**QUIET).evaluate_batch(**batch)
    np.testing.assert_allclose(energy_pointing_game(maps, masks).numpy(), mass, rtol=1e-5)


def test_mu_fidelity(quantus, monkeypatch):
    inputs, maps, model = images(1, height=12, width=12), torch.rand(1, 1, 12, 12), network()
    hidden_images = []

    def recording(perturbed):
        hidden_images.append(perturbed)
        return model(perturbed)

    found = mu_fidelity(
        recording,
        inputs,
        maps,
        torch.tensor([2]),
        pixel_space=PixelSpace((1.0,) * 3, (1.0,) * 3),  # black is -1
        n_subsets=20,
        confidence=nn.Identity(),
    )
    # The subsets as Quantus draws them: indices of the flat inputs, all channels.
    subsets = iter([np.flatnonzero((x == -1).numpy()) for x in torch.cat(hidden_images)])
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(subsets))
    expected = quantus.FaithfulnessCorrelation(
        subset_size=87,
        nr_runs=20,
        perturb_baseline=-1.0,
        abs=False,
        normalise=False,
        return_aggregate=False,
        **QUIET,
    )(
        model=model,
        x_batch=inputs.numpy(),
        y_batch=np.array([2]),
        a_batch=maps.numpy(),
        channel_first=True,
        softmax=False,
        device="cpu",
    )
    assert found.item() == pytest.approx(expected[0], abs=1e-4)
