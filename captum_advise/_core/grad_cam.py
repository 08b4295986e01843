"""What each unit contributes to a Grad-CAM map, and the map of some units.

Selvaraju et al., "Grad-CAM", ICCV 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_contributions(feature_map: Tensor, gradients: Tensor) -> Tensor:
    r"""alpha_u A_u, (N, C, \*spatial). Their sum over all units is the Grad-CAM map."""
    if gradients.dim() > 2:
        gradients = gradients.mean(tuple(range(2, gradients.dim())), keepdim=True)
    return gradients * feature_map


def combine_units(
    contributions: Tensor, units: Tensor | None, *, summed: bool = True, relu: bool = False
) -> Tensor:
    r"""Attributions from the contributions (N, C, \*spatial) of units.

    They are (N, 1, \*spatial) if ``summed``, from zero up after ``relu``. ``units``, bool (N, C),
    says which units count; None stands for all.
    """
    if contributions.dim() < 2:
        raise ValueError(
            "The layer must be (N, C, *spatial), and one of its tensors has shape "
            f"{tuple(contributions.shape)}: name another layer, or give reshape_transform."
        )
    if units is not None:
        units = units.view(*units.shape, *(1,) * (contributions.dim() - 2))
        # Other units add nothing, even where their contributions are not finite.
        contributions = torch.where(units, contributions, contributions.new_zeros(()))
    attributions = contributions.sum(1, keepdim=True) if summed else contributions
    return F.relu(attributions) if relu else attributions


def are_finite(contributions: Tensor) -> Tensor:
    """Bool (N,), whether every map that units of an example can make is finite."""
    flat = contributions.abs().flatten(1).sum(1) if contributions.dim() > 1 else contributions
    return flat.isfinite()


def check_finite(finite: Tensor) -> None:
    """Require examples, bool (N,), all of which have finite contributions."""
    if not bool(finite.all()):
        examples = (finite == 0).nonzero().flatten().tolist()
        more = f", ... ({len(examples)} in all)" if len(examples) > 5 else ""
        raise ValueError(
            f"Activations or gradients of the layer are NaN, infinite or overflow for examples "
            f"{', '.join(map(str, examples[:5]))}{more}: leave them out, or run the model in "
            "float32 or float64, and check its inputs and weights."
        )
