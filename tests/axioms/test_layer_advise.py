"""What is particular to ADVISE: where it fulfils an axiom only under a condition."""

from __future__ import annotations

import pytest
import torch

from captum_advise.relevance import unit_relevance


@pytest.mark.parametrize("activation_range", ["unit", "minmax"])
def test_maps_of_two_positions_have_no_modes(activation_range):
    # Under "minmax" both samples lie at the ends, a whole span apart: no row has a density.
    maps = torch.tensor([[[0.25, 0.5], [3.0, -1.0], [0.0, 0.0]]])
    assert not unit_relevance(maps, activation_range=activation_range).any()
