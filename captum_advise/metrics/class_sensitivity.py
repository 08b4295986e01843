"""How much a map depends on the class that it explains."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, check_same_shape
from captum_advise.metrics._maps import check_finite


def class_sensitivity(maps: Tensor, runner_up_maps: Tensor) -> Tensor:
    """Pearson correlation of the maps of two classes. Smaller is better.

    The name is the ADVISE paper's (Dehshibi et al., https://arxiv.org/abs/2203.01289), and a *high*
    value means that the method is *not* sensitive to the class: at 1 both have the same map.

    Args:
        maps: (N, ...) maps of the target class.
        runner_up_maps: Maps of the class with the highest confidence apart from the target. They
            have the same shape and come from the same units.

    Returns:
        (N,) in [-1, 1]; zero where a map is constant, because the correlation is undefined.

    Raises:
        TypeError, ValueError: An argument is not a real tensor, the shapes differ, or the maps
            have no positions or are not finite.

    Example::

        >>> maps = torch.tensor([[0.0, 1.0, 2.0]])
        >>> class_sensitivity(maps, -maps)
        tensor([-1.])
    """
    check_real(maps=maps, runner_up_maps=runner_up_maps)
    check_same_shape(maps=maps, runner_up_maps=runner_up_maps)
    if maps.dim() < 2 or maps[:1].numel() == 0:
        raise ValueError(
            "maps must be (N, ...) with at least one example and one position, got "
            f"{tuple(maps.shape)}."
        )
    check_finite(maps, runner_up_maps)
    return correlation(maps, runner_up_maps)


def correlation(maps: Tensor, runner_up_maps: Tensor) -> Tensor:
    """:func:`class_sensitivity` of finite maps."""
    first, second = _centred(maps), _centred(runner_up_maps)
    covariance = (first * second).sum(1)
    scale = first.norm(dim=1) * second.norm(dim=1)
    correlation = covariance / torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.where(scale > 0, correlation, torch.zeros_like(scale)).clamp(-1, 1)


def _centred(maps: Tensor) -> Tensor:
    # Scaled first: the squares of huge values would overflow, those of tiny values vanish.
    flat = maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
    return flat - flat.mean(1, keepdim=True)
