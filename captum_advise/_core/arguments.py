"""Checks of arguments, and their canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList

from captum_advise._core.unit_choice import as_selection
from captum_advise._utils.checks import check_count
from captum_advise.layouts import ReshapeTransform
from captum_advise.metrics import AVXProtocol
from captum_advise.pixels import PixelSpace


def as_tensors(inputs: object) -> tuple[Tensor, ...]:
    """Inputs as a tuple."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        kinds = ", ".join(type(tensor).__name__ for tensor in tensors) or "nothing"
        raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {kinds}.")
    return tensors


def check_examples(inputs: tuple[Tensor, ...]) -> None:
    """Require at least one example."""
    if not any(tensor.dim() and len(tensor) for tensor in inputs):
        raise ValueError(
            "The inputs hold no example: dimension 0 of each is the batch, and it is empty or "
            "missing."
        )
    if any(tensor.is_meta for tensor in inputs):
        raise ValueError("The inputs are on the meta device, which holds no values.")


def as_grad_kwargs(grad_kwargs: object) -> dict[str, Any]:
    """Arguments for ``torch.autograd.grad``."""
    if grad_kwargs is not None and not isinstance(grad_kwargs, dict):
        raise TypeError(
            "grad_kwargs must be a dict of arguments for torch.autograd.grad, got "
            f"{type(grad_kwargs).__name__}."
        )
    return grad_kwargs or {}


def check_batch_size(internal_batch_size: int | None) -> None:
    if internal_batch_size is not None:
        check_count("internal_batch_size", internal_batch_size, at_least=1)


def choice_arguments(
    unit_selection: object,
    target: TargetType,
    grad_kwargs: object,
    baselines: BaselineType,
    internal_batch_size: int | None,
) -> dict[str, Any]:
    """The arguments of a choice in canonical form, by name."""
    check_batch_size(internal_batch_size)
    return {
        "selection": as_selection(unit_selection),
        "target": target,
        "grad_kwargs": as_grad_kwargs(grad_kwargs),
        "baselines": baselines,
        "internal_batch_size": internal_batch_size,
    }


def check_setup(
    forward_func: object, pixel_space: object, confidence: object, layer_run: object
) -> None:
    """Check what every attribution of this package takes."""
    check_not_exported(forward_func)
    if not callable(forward_func):
        raise TypeError(
            f"forward_func must be the model or a function, got {type(forward_func).__name__}."
        )
    if pixel_space is not None and not isinstance(pixel_space, PixelSpace):
        raise TypeError(
            "pixel_space must be a captum_advise.PixelSpace or None, got "
            f"{type(pixel_space).__name__}."
        )
    if confidence is not None and not callable(confidence):
        raise TypeError(f"confidence must be a function of a tensor, got {confidence!r}.")
    if layer_run is not None and (not isinstance(layer_run, int) or isinstance(layer_run, bool)):
        raise TypeError(f"layer_run must be an int or None, got {layer_run!r}.")


def check_layer(name: str, layer: object) -> None:
    """Require a module that calls hooks."""
    if not isinstance(layer, Module):
        raise TypeError(
            f"{name} must be a module of the model, as in model.layer4 or "
            f'model.get_submodule("layer4"), got {type(layer).__name__}.'
        )
    # Some ModuleDicts of torchvision have a forward of their own.
    is_container = isinstance(layer, ModuleList | ModuleDict)
    if is_container and type(layer).forward is Module.forward:
        raise TypeError(
            f"{name} is a {type(layer).__name__}, which is never called itself, so no hook sees "
            "it: name one of the modules in it."
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            "The layer is a scripted or traced module, which calls no hooks: explain the model "
            "before torch.jit.script or torch.jit.trace."
        )


def check_reshape_transform(reshape_transform: object) -> None:
    """Require a function or None."""
    if reshape_transform is not None and not callable(reshape_transform):
        raise TypeError(
            f"reshape_transform must be a function of a tensor, got {reshape_transform!r}."
        )


def check_protocol(protocol: object) -> None:
    """Require a :class:`captum_advise.AVXProtocol`."""
    if not isinstance(protocol, AVXProtocol):
        raise TypeError(
            f"protocol must be a captum_advise.AVXProtocol, got {type(protocol).__name__}."
        )


def check_not_exported(model: object) -> None:
    """Refuse what ``torch.export`` makes."""
    if isinstance(model, torch.export.ExportedProgram) or (
        # Its module keeps the names of layers and does not call them.
        isinstance(model, torch.fx.GraphModule)
        and not {n.target for n in model.graph.nodes if n.op == "call_module"} - {"_guards_fn"}
    ):
        raise TypeError(
            "An exported program calls no layers, so no hook can see one: explain the model before "
            "torch.export."
        )


def several_layers(
    layers: object, reshape_transform: object
) -> tuple[tuple[Module, ...], tuple[ReshapeTransform | None, ...]]:
    """The layers of :class:`captum_advise.GatedGradCam`, and their transforms, as tuples."""
    # A Sequential can be iterated as well, and would silently mean its children.
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise TypeError(
            "layers must be a list of modules in the order of the forward pass, as in "
            f"[model.layer3, model.layer4], got {type(layers).__name__}."
        )
    for index, layer in enumerate(layers):
        check_layer(f"layers[{index}]", layer)
    if len(layers) < 2:
        raise ValueError(
            f"layers has {len(layers)} modules and GatedGradCam needs feature maps at two "
            "resolutions: name the layer that Grad-CAM would explain last, and a finer one "
            "before it; for a vision transformer, which has one resolution, generic-attention of "
            "captum_advise.evaluation was found best."
        )
    if len(set(layers)) < len(layers):
        raise ValueError("layers names a module twice: give each module once.")
    if isinstance(reshape_transform, Sequence):
        transforms = tuple(reshape_transform)
        if len(transforms) != len(layers):
            raise ValueError(
                f"There are {len(layers)} layers and {len(transforms)} reshape transforms: give "
                "one function for all layers, or one (or None) per layer."
            )
    else:
        transforms = (reshape_transform,) * len(layers)
    for transform in transforms:
        check_reshape_transform(transform)
    return tuple(layers), cast("tuple[ReshapeTransform | None, ...]", transforms)
