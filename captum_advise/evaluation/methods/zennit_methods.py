"""Attributors of the package Zennit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import Context, Method, MethodAt
from captum_advise.evaluation.methods.layers import INPUT


def from_zennit_class(attributor_class: Callable[..., Any], composite: Any = None) -> Method:
    """A method from a class of attributors, with a composite of rules or without."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        return _attributed(attributor_class(model, composite), inputs, target)

    return MethodAt(INPUT, method)


def from_zennit_object(attributor: Any) -> Method:
    """A method from an attributor."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        return _attributed(attributor, inputs, target)

    return MethodAt(INPUT, method)


def _attributed(attributor: Any, inputs: Tensor, target: Tensor) -> Tensor:
    def of_target(outputs: Tensor) -> Tensor:
        return torch.zeros_like(outputs).scatter(1, target[:, None], 1)

    _, attributions = attributor(inputs.detach().clone(), of_target)
    maps: Tensor = attributions.detach()
    return maps
