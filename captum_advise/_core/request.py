"""The arguments of one call in canonical form, and all checks of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from captum._utils.common import _format_additional_forward_args
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_advise._core.layer_pass import ReshapeTransform
from captum_advise._core.selection import Selection, selection_of
from captum_advise._utils.checks import check_count
from captum_advise.metrics import AVXProtocol
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
        arguments = _format_additional_forward_args(additional_forward_args)
        return cls(_tensors(inputs), arguments, attribute_to_layer_input, density)


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
    protocol: AVXProtocol
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
        _check_examples(layer.inputs)
        check_count("internal_batch_size", internal_batch_size, at_least=1)
        if not isinstance(protocol, AVXProtocol):
            raise TypeError(
                f"protocol must be a captum_advise.AVXProtocol, got {type(protocol).__name__}."
            )
        grad_kwargs = _grad_kwargs(grad_kwargs)
        selection = selection_of(unit_selection)
        return cls(layer, target, grad_kwargs, selection, baselines, protocol, internal_batch_size)


@dataclass(frozen=True)
class ImageRequest:
    """The arguments of ``GatedGradCam.attribute``.

    Attributes:
        inputs: As a tuple.
        target: As given, in any of Captum's forms.
        additional_forward_args: As a tuple, or None.
        attribute_to_layer_input: Whether the layers' inputs are meant.
        grad_kwargs: For ``torch.autograd.grad``.
        n_occlusions: How many occluded images correct the map.
        internal_batch_size: Occluded images in one forward pass.
        images: Indices of the inputs that hold images.
        size: Height and width of the images.
    """

    inputs: tuple[Tensor, ...]
    target: TargetType
    additional_forward_args: tuple[Any, ...] | None
    attribute_to_layer_input: bool
    grad_kwargs: dict[str, Any]
    n_occlusions: int
    internal_batch_size: int
    images: tuple[int, ...]
    size: tuple[int, int]

    @classmethod
    def of(
        cls,
        inputs: object,
        target: TargetType,
        additional_forward_args: Any,
        attribute_to_layer_input: bool,
        grad_kwargs: object,
        n_occlusions: int,
        internal_batch_size: int,
    ) -> ImageRequest:
        """Check and format the arguments.

        Raises:
            TypeError, ValueError: An argument is of the wrong type, or no input holds images.
        """
        tensors = _tensors(inputs)
        _check_examples(tensors)
        check_count("n_occlusions", n_occlusions, at_least=0)
        if n_occlusions % 2 or n_occlusions == 2:
            raise ValueError(
                f"n_occlusions must be 0, or an even number of at least 4, got {n_occlusions}."
            )
        check_count("internal_batch_size", internal_batch_size, at_least=1)
        images = tuple(
            index
            for index, tensor in enumerate(tensors)
            if tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel()
        )
        sizes = {(tensors[index].shape[2], tensors[index].shape[3]) for index in images}
        if len(sizes) != 1:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise ValueError(
                "GatedGradCam needs images N x C x H x W of one size among the inputs, and they "
                f"have the shapes {shapes}: use LayerAdvise for other inputs."
            )
        return cls(
            tensors,
            target,
            _format_additional_forward_args(additional_forward_args),
            attribute_to_layer_input,
            _grad_kwargs(grad_kwargs),
            n_occlusions,
            internal_batch_size,
            images,
            sizes.pop(),
        )


def _tensors(inputs: object) -> tuple[Tensor, ...]:
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        kinds = ", ".join(type(tensor).__name__ for tensor in tensors) or "nothing"
        raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {kinds}.")
    return cast("tuple[Tensor, ...]", tensors)


def _check_examples(inputs: tuple[Tensor, ...]) -> None:
    if any(tensor.dim() == 0 or len(tensor) == 0 for tensor in inputs):
        raise ValueError(
            "The inputs hold no example: dimension 0 of each is the batch, and it is empty or "
            "missing."
        )
    if any(tensor.is_meta for tensor in inputs):
        raise ValueError("The inputs are on the meta device, which holds no values.")


def _grad_kwargs(grad_kwargs: object) -> dict[str, Any]:
    if grad_kwargs is not None and not isinstance(grad_kwargs, dict):
        raise TypeError(
            "grad_kwargs must be a dict of arguments for torch.autograd.grad, got "
            f"{type(grad_kwargs).__name__}."
        )
    return grad_kwargs or {}


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
    _check_forward_func(forward_func)
    _check_layer("layer", layer)
    _check_pixel_space(pixel_space)
    if not callable(confidence):
        raise TypeError(f"confidence must be a function of a tensor, got {confidence!r}.")
    _check_reshape_transform(reshape_transform)


def several_layers(
    forward_func: object, layers: object, pixel_space: object, reshape_transform: object
) -> tuple[tuple[Module, ...], tuple[ReshapeTransform | None, ...]]:
    """Check and format the arguments of :class:`captum_advise.GatedGradCam` itself.

    Returns:
        The layers, and a ``reshape_transform`` for each.

    Raises:
        TypeError: One is of the wrong type.
        ValueError: There are fewer than two layers, one is named twice, or the numbers of layers
            and transforms differ.
    """
    _check_forward_func(forward_func)
    _check_pixel_space(pixel_space)
    # A Sequential can be iterated as well, and would silently mean its children.
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise TypeError(
            "layers must be a list of modules in the order of the forward pass, as in "
            f"[model.layer3, model.layer4], got {type(layers).__name__}."
        )
    for index, layer in enumerate(layers):
        _check_layer(f"layers[{index}]", layer)
    if len(layers) < 2:
        raise ValueError(
            f"layers has {len(layers)} modules and GatedGradCam needs feature maps at two "
            "resolutions: name the layer that Grad-CAM would explain last, and a finer one "
            "before it."
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
        _check_reshape_transform(transform)
    return tuple(layers), cast("tuple[ReshapeTransform | None, ...]", transforms)


def _check_forward_func(forward_func: object) -> None:
    check_not_exported(forward_func)
    if not callable(forward_func):
        raise TypeError(
            f"forward_func must be the model or a function, got {type(forward_func).__name__}."
        )


def _check_layer(name: str, layer: object) -> None:
    if not isinstance(layer, Module):
        raise TypeError(
            f"{name} must be a module of the model, as in model.layer4 or "
            f'model.get_submodule("layer4"), got {type(layer).__name__}.'
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            "The layer is a scripted or traced module, which calls no hooks: explain the model "
            "before torch.jit.script or torch.jit.trace."
        )


def _check_pixel_space(pixel_space: object) -> None:
    if pixel_space is not None and not isinstance(pixel_space, PixelSpace):
        raise TypeError(
            "pixel_space must be a captum_advise.PixelSpace or None, got "
            f"{type(pixel_space).__name__}."
        )


def _check_reshape_transform(reshape_transform: object) -> None:
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
