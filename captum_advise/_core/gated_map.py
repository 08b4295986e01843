"""The map of several layers: evidence of finer layers, gated by Grad-CAM at the deepest one.

The constant of :class:`captum_advise.GatedGradCam` is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._core.grad_cam import are_finite, check_finite, combine_units, unit_contributions
from captum_advise.pixels import normalize_maps

# Side of the box, in positions of its layer, over which evidence is averaged.
EVIDENCE_BOX = 3


def gated_map(
    feature_maps: Sequence[Tensor], gradients: Sequence[Tensor], size: tuple[int, int]
) -> Tensor:
    """Maps (N, 1, height, width), from zero up, in at least single precision.

    The last of the feature maps (N, C, h, w) gives the gate. The gradients are those of the target
    with respect to them.
    """
    *finer, (deepest, deepest_gradients) = (
        (_precise(feature_map), _precise(gradient))
        for feature_map, gradient in zip(feature_maps, gradients, strict=True)
    )
    gate = _gate(deepest, deepest_gradients, size)
    evidence = torch.zeros_like(gate)
    for feature_map, gradient in finer:
        evidence += _evidence(feature_map, gradient, size).to(gate.device)
    return gate * evidence


def _precise(tensor: Tensor) -> Tensor:
    # Sums of many units overflow in half precision, and interpolation has no kernel for it.
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _gate(feature_map: Tensor, gradients: Tensor, size: tuple[int, int]) -> Tensor:
    contributions = unit_contributions(feature_map, gradients)
    check_finite(are_finite(contributions))
    grad_cam = combine_units(contributions, None, relu=True)
    # antialias selects a = -0.5 (Keys 1981), as everywhere in this package.
    larger = F.interpolate(_scaled(grad_cam), size, mode="bicubic", antialias=True)
    return normalize_maps(larger)


def _evidence(feature_map: Tensor, gradients: Tensor, size: tuple[int, int]) -> Tensor:
    contributions = feature_map * gradients
    check_finite(are_finite(contributions))
    positive = combine_units(contributions, None, relu=True)
    # At the border, over the part of the box that is in the map.
    averaged = F.avg_pool2d(
        positive, EVIDENCE_BOX, stride=1, padding=EVIDENCE_BOX // 2, count_include_pad=False
    )
    larger = F.interpolate(_scaled(averaged), size, mode="bilinear", align_corners=False)
    return normalize_maps(larger)


def _scaled(maps: Tensor) -> Tensor:
    """Maps from zero up, divided by their maximum, so that no tiny map loses its digits."""
    highest = maps.amax((2, 3), keepdim=True)
    return maps / torch.where(highest > 0, highest, torch.ones_like(highest))
