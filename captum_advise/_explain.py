"""An explanation in one call: image in, explanation out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_advise import zoo
from captum_advise._core.arguments import choice_arguments
from captum_advise._core.unit_choice import UnitSelection
from captum_advise._utils.errors import did_you_mean, warn_caller
from captum_advise._utils.modes import in_eval_mode
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.explanation import GATED_GRAD_CAM, Explanation, Setup
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise
from captum_advise.layouts import ReshapeTransform, Tokens, channels_last
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.network import Network, place_of

if TYPE_CHECKING:
    from PIL import Image

    ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image"

__all__ = ["explain"]

# Options that go to the constructor of LayerAdvise; the others go to its explain.
_OF_LAYER_ADVISE = {"activation_range", "min_prominence", "protocol", "layer_run"}


def explain(
    image: ImageLike | Sequence[ImageLike] | Tensor,
    model: nn.Module | str | Network,
    target: int | str | Sequence[int | str] | None = None,
    *,
    layer: str | nn.Module | None = None,
    transform: Callable[..., Any] | None = None,
    pixel_space: PixelSpace | None = None,
    reshape_transform: ReshapeTransform | None = None,
    class_names: Sequence[str] | None = None,
    confidence: Callable[[Tensor], Tensor] | None = None,
    **options: Any,
) -> Explanation:
    """Explain the class that a classifier predicts for an image, or any other class.

    Returns the maps of :class:`GatedGradCam` (where the model has layers for it), of
    :class:`LayerAdvise` and of Grad-CAM, with the groups of units that :class:`LayerAdvise`
    compared. All maps share one forward pass. Metrics take one more per masked image.

    :func:`captum_advise.zoo.describe` finds the transform, the pixel space, the layers and their
    layout. Arguments replace what it would find. ``explanation.setup`` states all of it. The model
    runs in evaluation mode and is left unchanged.

    Args:
        image: One image, or a sequence of them: a path or a PIL image. A tensor (N, C, H, W) is
            taken as inputs of the model, which have gone through its transform already.
        model: An image classifier of timm, torchvision or Hugging Face, or the name of one or the
            :class:`captum_advise.zoo.Network` as of :func:`captum_advise.zoo.load`. Any other
            classifier needs ``transform``.
        target: The class to explain, by index or by name, or one per image. None: each image's
            predicted class.
        layer, transform, pixel_space, reshape_transform, class_names: As in
            :func:`captum_advise.zoo.describe`.
        confidence: As in :class:`LayerAdvise`.
        options: More arguments of :class:`LayerAdvise`, such as ``activation_range``, and of
            :meth:`LayerAdvise.explain`, such as ``unit_selection``.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: An image cannot be read. The model's
            layers cannot be hooked. A part of the setup is not known. An argument is out of its
            range. A package is missing. The message says what to do.

    Warns:
        UserWarning: Inputs (N, C, H, W) look like images that did not go through the transform; and
            as :meth:`LayerAdvise.explain`.

    Example::

        >>> explanation = explain("cat.jpg", "efficientnet-lite0", target="tiger cat")
        >>> explanation.class_name(), explanation.attributions.shape
        ('tiger cat', torch.Size([1, 1, 7, 7]))
        >>> {name: tuple(maps.shape[2:]) for name, maps in explanation.maps.items()}
        {'gated-grad-cam': (224, 224), 'layer-advise': (7, 7), 'grad-cam': (7, 7)}
    """
    known = inspect.signature(_explained).parameters.keys() - {"advise", "gated", "inputs"}
    known |= _OF_LAYER_ADVISE
    for name in options.keys() - known:
        raise TypeError(f"explain has no argument {name!r}{did_you_mean(name, known)}.")
    inputs = image if isinstance(image, Tensor) and image.dim() == 4 else None
    if inputs is not None:
        _check_inputs(inputs)
    if isinstance(model, str):
        model = zoo.load(model)
    network = zoo.describe(
        model,
        layer=layer,
        transform=transform,
        pixel_space=pixel_space,
        reshape_transform=reshape_transform,
        class_names=class_names,
        input_shape=None if inputs is None else (inputs.shape[1], inputs.shape[2], inputs.shape[3]),
    )
    if inputs is None:
        images: Any = image if isinstance(image, list | tuple) else [image]
        inputs = _stacked([network.transform(_as_pil(one)) for one in images])
    else:
        _warn_of_pixels(inputs, network.pixel_space)
    advise = LayerAdvise(
        network.model,
        network.layer,
        pixel_space=network.pixel_space,
        confidence=confidence,
        reshape_transform=network.reshape_transform,
        **{name: options.pop(name) for name in _OF_LAYER_ADVISE & options.keys()},
    )
    gated = None
    if network.layers:
        gated = GatedGradCam(
            network.model,
            network.layers,
            reshape_transform=network.reshape_transforms,
            layer_run=advise.layer_run,
        )
    # Under the caller's inference mode there would be no gradients.
    with in_eval_mode(network.model), torch.inference_mode(False):
        inputs = inputs.clone() if inputs.is_inference() else inputs
        inputs = inputs.to(*place_of(network.model))
        explanation = _explained(advise, gated, inputs, _target(target, network), **options)
    return replace(explanation, setup=setup_of(network, (inputs.shape[2], inputs.shape[3])))


def _explained(
    advise: LayerAdvise,
    gated: GatedGradCam | None,
    inputs: Tensor,
    target: Any,
    additional_forward_args: Any = None,
    *,
    unit_selection: UnitSelection = "avx",
    baselines: Any = None,
    internal_batch_size: int | None = None,
    with_metrics: bool = True,
    keep_units: bool = False,
) -> Explanation:
    """All maps from one forward pass, that of the layers of ``GatedGradCam`` if there are any."""
    how = choice_arguments(unit_selection, target, {}, baselines, internal_batch_size)
    # The last of its layers is the layer of LayerAdvise.
    attribution = advise if gated is None else gated
    call = attribution._layer_call(inputs, additional_forward_args, False)
    layer_pass = call.run()
    maps: dict[str, Tensor] = {}
    messages: list[str | None] = []
    if gated is not None:
        maps[GATED_GRAD_CAM], messages = gated._maps(layer_pass, target, {}, keep_graph=True)
    explanation = advise._explanation(
        layer_pass.at_last_layer(),
        how,
        with_metrics=with_metrics,
        keep_units=keep_units,
        with_grad_cam=with_metrics,
        messages=messages,
    )
    return replace(explanation, maps={**maps, **explanation.maps})


def setup_of(network: Network, input_size: tuple[int, int]) -> Setup:
    """A network in words."""
    layout = network.reshape_transform
    words = "N x C x H x W" if layout is None else f"reshaped by {layout!r}"
    if layout is channels_last:
        words = "N x H x W x C"
    elif isinstance(layout, Tokens):
        words = f"N x tokens x C, patches after {layout.n_prefix} tokens"
    return Setup(
        model=network.name,
        weights=network.weights,
        layer=network.layer_name,
        layout=words,
        gated_layers=network.layer_names,
        input_size=input_size,
        transform=network.source,
        pixel_space=network.pixel_space,
        class_names=network.class_names,
        device=str(network.device),
    )


def _as_pil(image: ImageLike) -> Image.Image:
    if isinstance(image, str | os.PathLike):
        return zoo.open_image(Path(image))
    if not isinstance(image, import_optional("PIL.Image", "zoo").Image):
        raise TypeError(
            "An image must be a path or a PIL image, or all of them inputs of the model, a tensor "
            f"(N, C, H, W), got {type(image).__name__}: PIL.Image.fromarray makes images of arrays."
        )
    whole: Image.Image = image
    return whole


def _stacked(inputs: Sequence[Tensor]) -> Tensor:
    if not inputs:
        raise ValueError("There is no image to explain: the sequence is empty.")
    shapes = sorted({tuple(one.shape) for one in inputs})
    if len(shapes) > 1:
        raise ValueError(
            f"The transform gives inputs of different shapes, {shapes[0]} and {shapes[1]}: explain "
            "one image at a time, or let the transform crop."
        )
    return torch.stack(list(inputs))


def _check_inputs(inputs: Tensor) -> None:
    if not inputs.is_floating_point():
        raise ValueError(
            f"A tensor (N, C, H, W) holds inputs of the model, got {inputs.dtype}: pass PIL images."
        )
    if not inputs.numel():
        raise ValueError(
            f"There is no image to explain in a tensor of shape {tuple(inputs.shape)}."
        )


def _warn_of_pixels(inputs: Tensor, pixel_space: PixelSpace) -> None:
    is_normalised = max(pixel_space.mean) > 0
    if is_normalised and bool((inputs >= 0).all() & (inputs <= 1).all()):
        warn_caller(
            "The inputs (N, C, H, W) lie in [0, 1] and the model's inputs are normalised: a tensor "
            "is taken as inputs of the model; pass PIL images, or "
            "pixel_space=PixelSpace.identity() if the model takes them like this."
        )


def _target(target: Any, network: Network) -> Any:
    if isinstance(target, str):
        return network.class_index(target)
    if isinstance(target, list | tuple):
        return [network.class_index(one) if isinstance(one, str) else one for one in target]
    return target
