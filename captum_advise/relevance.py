"""From feature maps to unit relevance: the number of modes of each unit's activation density."""

from __future__ import annotations

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from captum_advise.density import adaptive_kde, count_modes
from captum_advise.pixels import normalize_maps
from captum_advise.validation import check_real

ActivationRange = Literal["unit", "minmax"]

# Time and memory of the density estimate grow with the square of the positions.
_MAX_POSITIONS = 128 * 128


def unit_relevance(
    feature_maps: Tensor,
    *,
    n_bandwidths: int = 10,
    activation_range: ActivationRange = "unit",
    tolerance: float = 0.0,
) -> Tensor:
    r"""Relevance score of each unit: modes of the density of its activations on [0, 1].

    The density is :func:`captum_advise.adaptive_kde` on as many equally spaced points of [0, 1] as
    the unit has positions (section 3 of the ADVISE paper).

    Args:
        feature_maps: (N, C, \*spatial), C units with P positions each.
        n_bandwidths: Candidate bandwidths of the density estimate.
        activation_range: ``"unit"``: activations as they are, those outside [0, 1] do not count
            (the authors' program). ``"minmax"``: each unit's activations are first mapped onto
            [0, 1], which makes the score invariant to rescaling and shifting a unit.
        tolerance: Zero is exact; a larger one, 0.1 say, is faster and changes few scores: see
            :func:`captum_advise.adaptive_kde`.

    Returns:
        int64 (N, C). A unit whose density is undefined (fewer than two activations in range, or a
        single position) scores zero.

    Raises:
        TypeError: ``feature_maps`` is not a real tensor.
        ValueError: Fewer than two dimensions, or an argument out of its range.

    Warns:
        UserWarning: The device has no double precision, as MPS; the CPU estimates the densities.

    Example::

        >>> unit_relevance(torch.zeros(1, 4, 7, 7))
        tensor([[0, 0, 0, 0]])
    """
    check_real(feature_maps=feature_maps)
    check_activation_range(activation_range)
    if feature_maps.dim() < 2:
        raise ValueError(
            f"Feature maps must be (N, C, *spatial), got shape {tuple(feature_maps.shape)}."
        )
    positions = math.prod(feature_maps.shape[2:])
    if positions > _MAX_POSITIONS:
        raise ValueError(
            f"The layer has {positions} positions, {tuple(feature_maps.shape[2:])}, and densities "
            f"are estimated for at most {_MAX_POSITIONS}, as their cost grows with the square: "
            "name a deeper layer, or make the inputs smaller."
        )
    units = feature_maps.detach().reshape(*feature_maps.shape[:2], positions)
    if positions < 2:
        return units.new_zeros(units.shape[:2], dtype=torch.int64)
    device = units.device
    if not _has_float64(device):
        warnings.warn(
            f"The device {device} has no double precision: densities are estimated on the CPU.",
            stacklevel=2,
        )
        units = units.cpu()
    units = units.double()
    if activation_range == "minmax":
        units = normalize_maps(units.flatten(0, 1)).view_as(units)
    grid = torch.linspace(0, 1, positions, dtype=torch.float64, device=units.device)
    density = adaptive_kde(units, grid, n_bandwidths=n_bandwidths, tolerance=tolerance).density
    return count_modes(density).to(device)


def check_activation_range(value: object) -> None:
    """ValueError for what is no :data:`ActivationRange`."""
    if value not in get_args(ActivationRange):
        raise ValueError(f'activation_range must be "unit" or "minmax", got {value!r}.')


def _has_float64(device: torch.device) -> bool:
    return device.type != "mps"
