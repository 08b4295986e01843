"""From feature maps to unit relevance: the number of modes of each unit's activation density."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, check_share
from captum_advise.density import adaptive_kde, count_modes
from captum_advise.pixels import normalize_maps

ActivationRange: TypeAlias = tuple[float, float] | Literal["minmax"]


@dataclass(frozen=True)
class DensityOptions:
    """How densities of activations are estimated; see :func:`unit_relevance`."""

    activation_range: ActivationRange = (0.0, 1.0)
    min_prominence: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation_range", _checked_range(self.activation_range))
        check_share("min_prominence", self.min_prominence)


def unit_relevance(
    feature_maps: Tensor,
    *,
    activation_range: ActivationRange = (0.0, 1.0),
    min_prominence: float = 1e-6,
) -> Tensor:
    r"""Count the modes of each unit's activation density on [0, 1].

    The density is :func:`captum_advise.adaptive_kde` on as many equally spaced points of [0, 1] as
    the unit has positions (section 3 of the ADVISE paper).

    Args:
        feature_maps: (N, C, \*spatial), C units with P positions each.
        activation_range: Two numbers, lowest and highest: only activations between them count,
            and they are mapped onto [0, 1]; (0, 1) is what the authors' program does.
            ``"minmax"`` maps each unit's own range onto [0, 1]: then relevance does not change if
            a unit is rescaled or shifted.
        min_prominence: The least prominence of a mode, as a share of the density's maximum: see
            :func:`captum_advise.count_modes`.

    Returns:
        int64 (N, C). Zero for a unit whose density is undefined (fewer than two activations in
        range, or a single position).

    Raises:
        TypeError, ValueError: ``feature_maps`` is not a real tensor with two dimensions or more, or
            an option is of the wrong type or out of its range.

    Example::

        >>> unit_relevance(torch.zeros(1, 4, 7, 7))
        tensor([[0, 0, 0, 0]])
    """
    check_real(feature_maps=feature_maps)
    return relevance_of(feature_maps, DensityOptions(activation_range, min_prominence))


def relevance_of(feature_maps: Tensor, options: DensityOptions) -> Tensor:
    """:func:`unit_relevance` with checked options."""
    densities = unit_densities(feature_maps, options)
    return modes_of(densities, options).to(feature_maps.device)


def modes_of(densities: Tensor, options: DensityOptions) -> Tensor:
    """int64 (N, C) modes of densities (N, C, P) of units."""
    return count_modes(densities, min_prominence=options.min_prominence)


def unit_densities(feature_maps: Tensor, options: DensityOptions) -> Tensor:
    r"""Densities of units on P points of [0, 1]; NaN where they are undefined.

    Returns:
        float64 (N, C, P), on the CPU if the device has no double precision.
    """
    if feature_maps.dim() < 2:
        raise ValueError(
            f"Feature maps must be (N, C, *spatial), got shape {tuple(feature_maps.shape)}."
        )
    positions = math.prod(feature_maps.shape[2:])
    units = feature_maps.detach().reshape(*feature_maps.shape[:2], positions)
    if not _has_float64(units.device):
        warnings.warn(
            f"The device {units.device} has no double precision: densities are estimated on the "
            "CPU.",
            stacklevel=2,
        )
        units = units.cpu()
    units = units.double()
    if positions < 2:
        return torch.full_like(units, torch.nan)
    if options.activation_range == "minmax":
        units = normalize_maps(units.flatten(0, -2)).view_as(units)
    else:
        low, high = options.activation_range
        # Subtracting 0 and dividing by 1 change nothing.
        units = (units - low) / (high - low)
    # On the CPU, where the checks of the grid do not wait for a GPU.
    grid = torch.linspace(0, 1, positions, dtype=torch.float64, device="cpu")
    # As many bandwidths as the authors' program tries.
    return adaptive_kde(units, grid, n_bandwidths=10).density


def counted_ranges(feature_maps: Tensor, activation_range: ActivationRange) -> Tensor:
    r"""(N, C, 2) lowest and highest activation that count, of maps (N, C, \*spatial)."""
    if activation_range == "minmax":
        units = feature_maps.flatten(2)
        return torch.stack([units.amin(2), units.amax(2)], 2)
    return feature_maps.new_tensor(activation_range).expand(*feature_maps.shape[:2], 2)


def _checked_range(value: object) -> ActivationRange:
    if value == "minmax":
        return "minmax"
    try:
        low, high = (float(number) for number in value)  # type: ignore[attr-defined]
        is_range = math.isfinite(low) and math.isfinite(high) and low < high
    # What unpacking and float raise depends on what they are given.
    except (TypeError, ValueError, RuntimeError, OverflowError):
        is_range = False
    if not is_range or isinstance(value, str):
        raise ValueError(
            'activation_range must be "minmax" or two finite numbers, the lower one first, as in '
            f"(0.0, 1.0), got {value!r}."
        )
    return low, high


def _has_float64(device: torch.device) -> bool:
    return device.type != "mps"
