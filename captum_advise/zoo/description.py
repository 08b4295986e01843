"""A :class:`Network` of a model that the caller built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_advise._core.arguments import check_not_exported
from captum_advise._utils.errors import reason
from captum_advise._utils.modes import in_eval_mode
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.images import to_rgb
from captum_advise.zoo.layer_probe import probe
from captum_advise.zoo.loading import imagenet_or_numbers, numbered
from captum_advise.zoo.network import Network, place_of
from captum_advise.zoo.recognition import (
    Inputs,
    check_head,
    classifier_of,
    family,
    measure,
    processed,
    recognize,
    unwrapped,
)

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise.layouts import ReshapeTransform


def describe(
    model: nn.Module | Network,
    *,
    layer: str | nn.Module | None = None,
    transform: Callable[..., Any] | None = None,
    pixel_space: PixelSpace | None = None,
    reshape_transform: ReshapeTransform | None = None,
    class_names: Sequence[str] | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> Network:
    """Find all that is needed to explain a classifier of timm, torchvision or Hugging Face.

    The layer is found by one forward and backward pass on noise, as in :func:`load`. The pixel
    space of a transform is measured: black, grey, white and red images go through it. Whatever is
    passed is not looked for. The model is left unchanged.

    Args:
        model: An image classifier. Compiled models, ``DataParallel``, ``AveragedModel`` and models
            of PEFT are explained as the model in them; :class:`captum_advise.targets.Output` takes
            the scores out of what a model returns. A :class:`Network`, of which what is passed
            changes.
        layer: The module to explain, or its dotted name.
        transform: PIL image to model input (C, H, W), or an image processor of Hugging Face. The
            default is that of timm's data configuration, of torchvision's default weights for this
            architecture, or of the checkpoint's image processor; of grey images for a model of one
            channel. Any other model needs it.
        pixel_space: That of the transform if None.
        reshape_transform: For a layer that is not (N, C, H, W).
        class_names: K names, in the order of the logits.
        input_shape: (C, H, W) of the inputs; found with the transform if None.

    Returns:
        Network: With ``weights="the model's"``, in the model's own mode. Its transform gives
        inputs of the model's dtype.

    Raises:
        TypeError, ValueError, ImportError: The model is not an image classifier, or its layers
            cannot be hooked. Its transform or pixel space is not known. It has no such layer. The
            number of class names differs. A package of its family is missing.

    Example::

        >>> import torchvision
        >>> network = zoo.describe(torchvision.models.resnet18().eval())
        >>> network.layer_name, network.source
        ('layer4', "torchvision's transform for ResNet18_Weights.IMAGENET1K_V1")
    """
    if isinstance(model, Network):
        known = model
        changes = (transform, pixel_space, reshape_transform, class_names)
        if layer in (None, known.layer_name) and not any(changes):
            return known
        network = describe(
            known.model,
            layer=known.layer_name if layer is None else layer,
            transform=transform or known.transform,
            pixel_space=pixel_space or (known.pixel_space if transform is None else None),
            reshape_transform=reshape_transform
            or (known.reshape_transform if layer is None else None),
            class_names=class_names or known.class_names,
            input_shape=input_shape,
        )
        source = known.source if transform is None else network.source
        return replace(network, name=known.name, source=source, weights=known.weights)
    inner = _hookable(unwrapped(model))
    brand = family(inner)
    name = type(inner).__name__ if brand is None else f"{brand} {type(inner).__name__}"
    layer_name = _name_of(layer, inner, name, dict(model.named_modules()))
    check_head(inner, name)
    classifier, own_names = classifier_of(model)
    inputs = _inputs(inner, name, transform, pixel_space, input_shape)
    try:
        with in_eval_mode(classifier):
            probed = probe(
                inner,
                inputs.shape,
                name,
                layer=layer_name,
                forward=classifier,
                reshape_transform=reshape_transform,
            )
    except RuntimeError as error:
        raise ValueError(
            f"{name} fails on inputs of the shape {tuple(inputs.shape)}, from {inputs.source}: "
            f"{reason(error)}; pass transform if it takes others."
        ) from error
    names = class_names or own_names
    # A head that was replaced leaves the names of the classes before.
    if names is None or (not class_names and len(names) != probed.classes):
        names = (numbered if brand is None else imagenet_or_numbers)(probed.classes)
    elif len(names) != probed.classes:
        raise ValueError(f"{name} has {probed.classes} classes, got {len(names)} class names.")
    return Network(
        name=name,
        model=classifier,
        pixel_space=inputs.pixel_space,
        transform=inputs.transform,
        class_names=tuple(names),
        weights="the model's",
        source=inputs.source,
        **probed.layers_of(inner),
    )


def _inputs(
    model: nn.Module,
    name: str,
    transform: Callable[..., Any] | None,
    pixel_space: PixelSpace | None,
    shape: tuple[int, int, int] | None,
) -> Inputs:
    source = "the caller"
    if transform is None and (shape is None or pixel_space is None):
        known = recognize(model, pixel_space)
        if known is None:
            raise ValueError(
                f"{name} is not a model of timm, torchvision or Hugging Face, so its transform is "
                "not known: pass transform, a function from a PIL image to a tensor (3, H, W)."
            )
        transform, source = known.transform, known.source
        pixel_space, shape = pixel_space or known.pixel_space, shape or known.shape
    elif hasattr(transform, "image_mean"):  # an image processor of Hugging Face
        transform = partial(processed, transform)
    whole: Callable[[Image.Image], Tensor] = _no_transform
    if transform is not None:
        # Not a function in a function, which could not be sent to worker processes.
        whole = partial(_of_any_image, transform, place_of(model)[1])
    if pixel_space is None or shape is None:
        measured, pixel_space = measure(whole, pixel_space)
        shape = shape or measured
    return Inputs(whole, shape, pixel_space, source)


def _of_any_image(transform: Callable[..., Any], dtype: torch.dtype, image: Image.Image) -> Tensor:
    inputs: Any = transform(to_rgb(image))
    return inputs.to(dtype) if isinstance(inputs, Tensor) else inputs


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


def _name_of(
    layer: object, model: nn.Module, name: str, modules: dict[str, nn.Module]
) -> str | None:
    """The layer's name in the model. ``modules`` are those of what is wrapped around it, too."""
    if isinstance(layer, str):
        layer = modules.get(layer, layer)
    if layer is None or isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"layer must be a module of the model or its dotted name, got {type(layer).__name__}."
        )
    names: list[str] = [key for key, module in model.named_modules() if module is layer and key]
    if names:
        return names[0]
    raise ValueError(
        f"The layer {type(layer).__name__} is not part of {name}: take it from the model that is "
        "explained, or give its dotted name."
    )
