"""Maps that do not depend on the model: what every method should exceed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import Context, MethodAt
from captum_advise.evaluation.methods.layers import NONE


def _random(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Uniform noise."""
    # As coarse as the map of a layer, so that it differs by its content alone. Drawn on the CPU,
    # so that a seed gives the same map on every device.
    size = [max(2, side // 32) for side in inputs.shape[-2:]]
    return torch.rand(len(inputs), 1, *size).to(inputs)


def _gaussian(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """A Gaussian at the centre, with a quarter of the side as standard deviation."""
    rows, columns = (
        torch.exp(-8 * (torch.linspace(-0.5, 0.5, side, device=inputs.device) ** 2))
        for side in inputs.shape[-2:]
    )
    return (rows[:, None] * columns).expand(len(inputs), 1, -1, -1)


random = MethodAt(NONE, _random)
gaussian = MethodAt(NONE, _gaussian)
