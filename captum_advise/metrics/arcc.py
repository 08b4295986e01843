"""Complexity, coherency and faithfulness in one number: ARCC and ADCC."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise.metrics._maps import check_finite, floating
from captum_advise.metrics.class_sensitivity import class_sensitivity


def arcc(maps: Tensor, maps_of_masked: Tensor, road: Tensor) -> Tensor:
    """ARCC: the harmonic mean of coherency, one minus complexity, and ROAD.

    Coherency is the correlation of a map and of the map of the image that it masks, from 0 to 1.
    Complexity is the mean of the map. A map that shows everything or nothing has a value near 0.

    Source: Domeniconi, Stramiglio, Lombardi and Salti, "How to Evaluate and Refine your CAM", 2026,
    https://arxiv.org/abs/2605.14641.

    Args:
        maps: (N, ...) in [0, 1].
        maps_of_masked: Maps of the same method and class for the images that ``maps`` mask.
        road: (N,) values of :func:`captum_advise.metrics.road`; negative ones count as 0.

    Returns:
        (N,) from 0 to 1, which is best.

    Raises:
        TypeError, ValueError: An argument is not a real tensor, maps are not in [0, 1], shapes
            differ, or a value is not finite.

    Example::

        >>> maps = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> arcc(maps, maps, torch.tensor([1.0]))
        tensor([0.7500])
    """
    return _harmonic_mean(maps, maps_of_masked, road, least=-1)


def adcc(maps: Tensor, maps_of_masked: Tensor, average_drop: Tensor) -> Tensor:
    """ADCC: :func:`arcc` with one minus average drop in place of ROAD.

    Source: Poppi, Cornia, Baraldi and Cucchiara, "Revisiting The Evaluation of Class Activation
    Mapping for Explainability", CVPR workshops 2021, https://arxiv.org/abs/2104.10252

    Args:
        maps, maps_of_masked: As in :func:`arcc`, also what is refused.
        average_drop: (N,) values of :func:`captum_advise.metrics.average_drop`.

    Example::

        >>> maps = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> adcc(maps, maps, torch.tensor([0.0]))
        tensor([0.7500])
    """
    check_real(average_drop=average_drop)
    # Confidences in half precision may leave [0, 1].
    return _harmonic_mean(maps, maps_of_masked, 1 - average_drop, least=-0.1)


def _harmonic_mean(
    maps: Tensor, maps_of_masked: Tensor, faithfulness: Tensor, *, least: float
) -> Tensor:
    check_real(faithfulness=faithfulness)
    coherency = (class_sensitivity(maps, maps_of_masked).double() + 1) / 2
    if faithfulness.shape != (len(maps),):
        raise ValueError(
            f"There must be one value per map, ({len(maps)},), got {tuple(faithfulness.shape)}."
        )
    check_finite(faithfulness)
    if not bool(((faithfulness >= least) & (faithfulness <= 1)).all()):
        raise ValueError("Pass the values of road or average_drop, which are at most 1.")
    if maps.numel() and not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(
            "The maps must be in [0, 1]: stretch them with captum_advise.pixels.normalize_maps."
        )
    simplicity = 1 - maps.flatten(1).double().mean(1)
    parts = torch.stack([coherency, simplicity, faithfulness.double().clamp(0, 1)])
    # Zero where a part is zero.
    return (3 / (1 / parts).sum(0)).to(floating(maps))
