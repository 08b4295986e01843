"""A :class:`Network` of a model that the caller built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_advise._core.arguments import check_not_exported
from captum_advise._utils.modes import in_eval_mode
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.images import to_rgb
from captum_advise.zoo.layer_probe import probe
from captum_advise.zoo.loading import (
    find_module,
    imagenet_or_numbers,
    layer_of,
    layers_of_advise,
    numbered,
    usable_device,
)
from captum_advise.zoo.network import Network, device_of
from captum_advise.zoo.recognition import (
    classifier_of,
    family,
    is_processor,
    normalization,
    processing,
    recognize,
    unwrapped,
)

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise.layouts import ReshapeTransform


def describe(
    model: nn.Module,
    *,
    layer: str | nn.Module | None = None,
    transform: Callable[..., Any] | None = None,
    pixel_space: PixelSpace | None = None,
    reshape_transform: ReshapeTransform | None = None,
    class_names: Sequence[str] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    device: torch.device | str | None = None,
) -> Network:
    """Find all that is needed to explain a classifier of timm, torchvision or Hugging Face.

    The layer is found by one forward and backward pass on noise, as in :func:`load`. Whatever is
    passed is not looked for. Any other image classifier needs ``transform``, and ``pixel_space``
    unless the transform holds a ``Normalize`` of torchvision. The model is left unchanged.

    Args:
        model: An image classifier. Compiled models and ``DataParallel`` are explained as the model
            in them.
        layer: The module to explain, or its dotted name.
        transform: PIL image to model input (3, H, W), or an image processor of Hugging Face. The
            default is that of timm's data configuration, of torchvision's default weights for this
            architecture, or of the checkpoint's image processor.
        pixel_space: Taken from the transform if None.
        reshape_transform: For a layer that is not (N, C, H, W).
        class_names: K names, in the order of the logits.
        input_shape: (C, H, W) of the inputs; found with the transform if None.
        device: Where the network goes. For another device than the model's, it gets a copy.

    Returns:
        Network: With ``weights="the model's"``, in the model's own mode.

    Raises:
        TypeError: ``model`` is not a module whose layers can be hooked.
        ValueError: The transform or the pixel space is not known, the model is not an image
            classifier, there is no such layer, or the number of class names differs.
        ImportError: A package of the model's family is missing.

    Example::

        >>> import torchvision
        >>> network = zoo.describe(torchvision.models.resnet18().eval())
        >>> network.layer_name, network.source
        ('layer4', "torchvision's transform for ResNet18_Weights.IMAGENET1K_V1")
    """
    model = _hookable(unwrapped(model))
    brand = family(model)
    name = type(model).__name__ if brand is None else f"{brand} {type(model).__name__}"
    layer_name = _name_of(layer, model, name)
    if device is not None and usable_device(device) != device_of(model):
        model = copy.deepcopy(model).to(device)
    classifier, own_names = classifier_of(model)
    inputs = _inputs(model, name, transform, pixel_space, input_shape)
    with in_eval_mode(model):
        probed = probe(
            model,
            inputs.size,
            name,
            layer=layer_name,
            channels=inputs.channels,
            forward=classifier.forward,
        )
    layer_name = layer_of(probed, name)
    if class_names is None and own_names is None and brand is not None:
        own_names = imagenet_or_numbers(probed.classes)
    return Network(
        name=name,
        model=classifier,
        layer=find_module(model, layer_name, name),
        layer_name=layer_name,
        pixel_space=inputs.pixel_space,
        transform=inputs.transform,
        class_names=_checked(class_names or own_names, probed.classes, name),
        weights="the model's",
        reshape_transform=reshape_transform or probed.layouts.get(layer_name),
        source=inputs.source,
        **layers_of_advise(model, probed),
    )


@dataclass(frozen=True)
class _Inputs:
    """How images become inputs of a model."""

    transform: Callable[[Image.Image], Tensor]
    pixel_space: PixelSpace
    channels: int
    size: tuple[int, int]
    source: str


def _inputs(
    model: nn.Module,
    name: str,
    transform: Callable[..., Any] | None,
    pixel_space: PixelSpace | None,
    input_shape: tuple[int, int, int] | None,
) -> _Inputs:
    source = "the caller"
    if transform is not None:
        pixel_space = pixel_space or normalization(transform)
        transform = processing(transform) if is_processor(transform) else transform
    elif input_shape is None or pixel_space is None:
        parts = recognize(model)
        if parts is None:
            raise ValueError(
                f"{name} is not a model of timm, torchvision or Hugging Face, so its transform and "
                "its normalisation are not known: pass transform, a function from a PIL image to a "
                "tensor (3, H, W), and pixel_space=PixelSpace(mean, std)."
            )
        transform, source = parts.transform, parts.source
        pixel_space = pixel_space or parts.pixel_space
    if pixel_space is None:
        raise ValueError(
            "The transform has no Normalize, so it is not known how the model's inputs relate to "
            "pixels: pass pixel_space, which is PixelSpace.identity() for inputs in [0, 1]."
        )
    whole = _no_transform if transform is None else _of_any_image(transform)
    if input_shape is None:
        pixels = whole(import_optional("PIL.Image", "zoo").new("RGB", (256, 256)))
        if not isinstance(pixels, Tensor) or pixels.dim() != 3:
            raise ValueError(
                "The transform must turn a PIL image into a tensor (3, H, W), got "
                f"{tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__}."
            )
        input_shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
    return _Inputs(whole, pixel_space, input_shape[0], input_shape[1:], source)


def _of_any_image(transform: Callable[..., Any]) -> Callable[[Image.Image], Tensor]:
    def of_any_image(image: Image.Image) -> Tensor:
        inputs: Tensor = transform(to_rgb(image))
        return inputs

    return of_any_image


def _no_transform(_image: Image.Image) -> Tensor:
    raise ValueError(
        "There is no transform from images to the inputs of this model: pass transform, or "
        "inputs (N, C, H, W) of the model."
    )


def _hookable(model: object) -> nn.Module:
    check_not_exported(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "A scripted or traced module calls no hooks: explain the model before torch.jit.script "
            "or torch.jit.trace."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module or a name of the zoo, got {type(model).__name__}."
        )
    return model


def _name_of(layer: str | nn.Module | None, model: nn.Module, name: str) -> str | None:
    if not isinstance(layer, nn.Module):
        return layer
    names: list[str] = [key for key, module in model.named_modules() if module is layer and key]
    if names:
        return names[0]
    raise ValueError(
        f"The layer {type(layer).__name__} is not part of {name}: take it from the model that is "
        "explained, or give its dotted name."
    )


def _checked(class_names: Sequence[str] | None, classes: int, name: str) -> tuple[str, ...]:
    if class_names is None:
        return numbered(classes)
    if len(class_names) != classes:
        raise ValueError(f"{name} has {classes} classes, got {len(class_names)} class names.")
    return tuple(class_names)
