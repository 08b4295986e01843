"""The arguments of one call in canonical form, and all checks of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from captum._utils.common import _format_additional_forward_args
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_advise._core.selection import Selection, selection_of
from captum_advise._utils.checks import check_count
from captum_advise.metrics import Protocol
from captum_advise.pixels import PixelSpace
from captum_advise.relevance import DensityOptions


@dataclass(frozen=True)
class LayerRequest:
    """What is needed to reach the layer.

    Attributes:
        inputs: As a tuple.
        additional_forward_args: As a tuple, or None.
        attribute_to_layer_input: Whether the layer's input is meant.
        density: How densities of activations are estimated.
    """

    inputs: tuple[Tensor, ...]
    additional_forward_args: tuple[Any, ...] | None
    attribute_to_layer_input: bool
    density: DensityOptions

    @classmethod
    def of(
        cls,
        inputs: object,
        additional_forward_args: Any,
        attribute_to_layer_input: bool,
        density: DensityOptions,
    ) -> LayerRequest:
        """Check and format the arguments.

        Raises:
            TypeError: ``inputs`` is neither a tensor nor a tuple of tensors.
        """
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
            kinds = ", ".join(type(tensor).__name__ for tensor in tensors) or "nothing"
            raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {kinds}.")
        tensors = cast("tuple[Tensor, ...]", tensors)
        arguments = _format_additional_forward_args(additional_forward_args)
        return cls(tensors, arguments, attribute_to_layer_input, density)


@dataclass(frozen=True)
class Request:
    """The arguments of ``attribute`` or ``explain``.

    Attributes:
        layer: What is needed to reach the layer.
        target: As given, in any of Captum's forms.
        grad_kwargs: For ``torch.autograd.grad``.
        selection: Which units make the map.
        baselines: As given.
        protocol: Reading of the protocol.
        internal_batch_size: Masked examples in one forward pass.
    """

    layer: LayerRequest
    target: TargetType
    grad_kwargs: dict[str, Any]
    selection: Selection
    baselines: BaselineType
    protocol: Protocol
    internal_batch_size: int

    @classmethod
    def of(
        cls,
        layer: LayerRequest,
        target: TargetType,
        grad_kwargs: object,
        unit_selection: object,
        baselines: BaselineType,
        protocol: object,
        internal_batch_size: int,
    ) -> Request:
        """Check and format the arguments.

        Raises:
            TypeError, ValueError: An argument is of the wrong type or out of its range.
        """
        if any(tensor.dim() == 0 or len(tensor) == 0 for tensor in layer.inputs):
            raise ValueError(
                "The inputs hold no example: dimension 0 of each is the batch, and it is empty or "
                "missing."
            )
        if any(tensor.is_meta for tensor in layer.inputs):
            raise ValueError("The inputs are on the meta device, which holds no values.")
        check_count("internal_batch_size", internal_batch_size, at_least=1)
        if not isinstance(protocol, Protocol):
            raise TypeError(
                f"protocol must be a captum_advise.Protocol, got {type(protocol).__name__}."
            )
        if grad_kwargs is not None and not isinstance(grad_kwargs, dict):
            raise TypeError(
                "grad_kwargs must be a dict of arguments for torch.autograd.grad, got "
                f"{type(grad_kwargs).__name__}."
            )
        selection = selection_of(unit_selection)
        return cls(
            layer, target, grad_kwargs or {}, selection, baselines, protocol, internal_batch_size
        )


def check_constructor(
    forward_func: object,
    layer: object,
    pixel_space: object,
    confidence: object,
    reshape_transform: object,
) -> None:
    """Check the arguments of :class:`captum_advise.LayerAdvise` itself.

    Raises:
        TypeError: One is of the wrong type.
    """
    check_not_exported(forward_func)
    if not callable(forward_func):
        raise TypeError(
            f"forward_func must be the model or a function, got {type(forward_func).__name__}."
        )
    if not isinstance(layer, Module):
        raise TypeError(
            "layer must be a module of the model, as in model.layer4 or "
            f'model.get_submodule("layer4"), got {type(layer).__name__}.'
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            "The layer is a scripted or traced module, which calls no hooks: explain the model "
            "before torch.jit.script or torch.jit.trace."
        )
    if pixel_space is not None and not isinstance(pixel_space, PixelSpace):
        raise TypeError(
            "pixel_space must be a captum_advise.PixelSpace or None, got "
            f"{type(pixel_space).__name__}."
        )
    if not callable(confidence):
        raise TypeError(f"confidence must be a function of a tensor, got {confidence!r}.")
    if reshape_transform is not None and not callable(reshape_transform):
        raise TypeError(
            f"reshape_transform must be a function of a tensor, got {reshape_transform!r}."
        )


def check_not_exported(model: object) -> None:
    """Refuse what ``torch.export`` makes.

    Raises:
        TypeError: It is an exported program, or its module.
    """
    if isinstance(model, torch.export.ExportedProgram) or (
        # Its module keeps the names of layers and does not call them.
        isinstance(model, torch.fx.GraphModule)
        and not {n.target for n in model.graph.nodes if n.op == "call_module"} - {"_guards_fn"}
    ):
        raise TypeError(
            "An exported program calls no layers, so no hook can see one: explain the model before "
            "torch.export."
        )


def warn_of_training_mode(forward_func: Callable[..., Any], *, stacklevel: int) -> None:
    """Warn if batch norm or dropout makes explanations of the model random."""
    if isinstance(forward_func, Module) and any(
        module.training
        and (isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0))
        for module in forward_func.modules()
    ):
        warnings.warn(
            "The model is in training mode: batch norm and dropout make the explanation random, "
            "and batch norm changes its statistics. Call model.eval() first.",
            stacklevel=stacklevel + 1,
        )
