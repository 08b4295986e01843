"""What is particular to ADVISE: where it fulfils an axiom only under a condition."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_advise import LayerAdvise
from captum_advise.relevance import unit_relevance


@pytest.mark.parametrize("activation_range", ["unit", "minmax"])
def test_maps_of_two_positions_have_no_modes(activation_range):
    # Under "minmax" both samples lie at the ends, a whole span apart: no row has a density.
    maps = torch.tensor([[[0.25, 0.5], [3.0, -1.0], [0.0, 0.0]]])
    assert not unit_relevance(maps, activation_range=activation_range).any()


@pytest.mark.parametrize("unit_selection", ["explainability", "confidence", 1, None])
def test_no_grad_of_the_caller(unit_selection):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    inputs = torch.rand(2, 3, 8, 8)
    advise = LayerAdvise(model, model[0])
    expected = advise.attribute(inputs, 1, unit_selection=unit_selection)
    with torch.no_grad():
        found = advise.attribute(inputs, 1, unit_selection=unit_selection)
        if unit_selection is None:
            torch.testing.assert_close(
                found, LayerGradCam(model, model[0]).attribute(inputs, 1), rtol=0, atol=0
            )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
