"""Settings that give a wrong result without an error, and the sentence that names them.

Each function returns a message, or None where nothing is suspicious.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_advise._core.candidates import has_relevance
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.targets import softmax_over_classes
from captum_advise.pixels import PixelSpace

# Bicubic resizing of tensors leaves [0, 1] by a little.
_PIXEL_MARGIN = 0.1
# A map whose aspect ratio differs from the image's by more is not a map of it.
_MOST_DISTORTION = 2.0


def warn_of(messages: Iterable[str | None], *, stacklevel: int) -> None:
    """Warn of what is suspicious, of each thing once.

    Args:
        messages: From the functions below.
        stacklevel: The user's call, counted from this function.
    """
    for message in dict.fromkeys(filter(None, messages)):
        warnings.warn(message, stacklevel=stacklevel)


def suspicious_mode(forward_func: object) -> str | None:
    """A model in training mode, whose batch norm or dropout makes explanations random."""
    if not isinstance(forward_func, Module) or not any(
        module.training
        and (isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0))
        for module in forward_func.modules()
    ):
        return None
    return (
        "The model is in training mode: batch norm and dropout make the explanation random, and "
        "batch norm changes its statistics. Call model.eval() first."
    )


def suspicious_pixels(images: Tensor | None, pixel_space: PixelSpace | None) -> str | None:
    """Model inputs (N, C, H, W) that the pixel space does not map into [0, 1]."""
    if pixel_space is None or images is None or not images.numel():
        return None
    pixels = pixel_space.to_pixels(images.detach())
    lowest, highest = float(pixels.min()), float(pixels.max())
    if lowest >= -_PIXEL_MARGIN and highest <= 1 + _PIXEL_MARGIN:
        return None
    return (
        f"Under this pixel_space the inputs are images with values from {lowest:.2f} to "
        f"{highest:.2f} instead of 0 to 1, so metrics and baselines are wrong: pass the PixelSpace "
        "with the mean and std by which the inputs were normalised, or None."
    )


def suspicious_confidence(outputs: Tensor, confidence: Callable[[Tensor], Tensor]) -> str | None:
    """Outputs (N, K, ...) that are probabilities already, under softmax."""
    if confidence is not softmax_over_classes or not _are_probabilities(outputs):
        return None
    return (
        "The outputs are probabilities already (they sum to 1 over dimension 1), and the default "
        "`confidence` applies softmax to them again: pass confidence=torch.nn.Identity()."
    )


def _are_probabilities(outputs: Tensor) -> bool:
    if outputs.dim() < 2 or outputs.shape[1] < 2:
        return False
    rounding = 16 * torch.finfo(outputs.dtype).eps
    sums_to_one = (outputs.sum(1) - 1).abs() <= rounding
    return bool((outputs >= 0).all() & sums_to_one.all())


def suspicious_layout(call: LayerCall, feature_maps: tuple[Tensor, ...]) -> str | None:
    """Tokens or channels-last tensors of an image, at a layer without ``reshape_transform``."""
    images = [
        tensor
        for tensor in call.inputs
        if tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel()
    ]
    if not images:
        return None
    height, width = images[0].shape[2:]
    transforms = call.reshape_transforms
    if len(transforms) != len(feature_maps):
        transforms = transforms[:1] * len(feature_maps)  # one layer with several tensors
    for feature_map, transform in zip(feature_maps, transforms, strict=True):
        shape = tuple(feature_map.shape)
        if transform is not None:
            continue
        if len(shape) == 3:
            return (
                f"The layer's tensor {shape} has one spatial dimension and the image has two: if "
                "it holds tokens N x T x C, pass "
                "reshape_transform=captum_advise.layouts.Tokens(n_prefix=1), with the number of "
                "tokens before the patches."
            )
        if (
            len(shape) == 4
            and feature_map.numel()
            and _distortion(shape[2], shape[3], height, width) > _MOST_DISTORTION
            and _distortion(shape[1], shape[2], height, width) < _MOST_DISTORTION
        ):
            return (
                f"The layer's tensor {shape} gives maps of {shape[2]} x {shape[3]} for images of "
                f"{height} x {width}: if it is channels last, N x H x W x C, pass "
                "reshape_transform=captum_advise.layouts.channels_last."
            )
    return None


def _distortion(height: int, width: int, image_height: int, image_width: int) -> float:
    ratio = height * image_width / (width * image_height)
    return max(ratio, 1 / ratio)


def missing_relevance(relevance: Tensor, values: Collection[int]) -> str | None:
    """Examples of which no unit has a relevance that was asked for.

    Args:
        relevance: int64 (N, C).
        values: What was asked for.
    """
    without = int((~has_relevance(relevance, values).any(1)).sum())
    if not without or not relevance.numel():
        return None
    return (
        f"{without} of {len(relevance)} examples have no unit with relevance "
        f"{' or '.join(map(str, sorted(values)))}, so their maps are zero: the units have "
        f"relevance {int(relevance.min())} to {int(relevance.max())}."
    )


def no_evidence(fallback: Tensor) -> str | None:
    """Examples without a group whose map holds evidence, bool (N,)."""
    if not bool(fallback.any()):
        return None
    return (
        f"{int(fallback.sum())} of {len(fallback)} examples have no group of units whose map holds "
        "any evidence for the target; all their units are selected, as in Grad-CAM."
    )
