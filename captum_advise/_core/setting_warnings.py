"""Settings that give a wrong result without an error, and the sentence that names them.

Each function returns a message, or None where nothing is suspicious.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from captum_advise._core.candidates import has_relevance
from captum_advise._utils.probabilities import are_probabilities
from captum_advise._utils.probabilities import suspicious_confidence as suspicious_confidence
from captum_advise.pixels import PixelSpace

# Bicubic resizing of tensors leaves [0, 1] by a little.
_PIXEL_MARGIN = 0.1
# A map whose aspect ratio differs from the image's by more is not a map of it.
_MOST_DISTORTION = 2.0


def suspicious_pixels(images: Tensor, pixel_space: PixelSpace | None) -> str | None:
    """Model inputs (N, C, H, W) that the pixel space does not map into [0, 1]."""
    if pixel_space is None or not images.numel():
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


def suspicious_scores(outputs: Tensor) -> str | None:
    """Outputs (N, K) that are probabilities already, where occlusion's evidence needs logits."""
    if not are_probabilities(outputs):
        return None
    return (
        "The outputs are probabilities already (they sum to 1 over dimension 1), and "
        "`n_occlusions` applies softmax to them again: pass a forward_func that "
        "returns the scores before softmax."
    )


def suspicious_layout(
    inputs: tuple[Tensor, ...], feature_maps: tuple[Tensor, ...], reshape_transform: Any
) -> str | None:
    """Tokens or channels-last tensors of an image without ``reshape_transform``."""
    images = [
        tensor
        for tensor in inputs
        if tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel()
    ]
    if reshape_transform is not None or not images:
        return None
    height, width = images[0].shape[2:]
    for feature_map in feature_maps:
        shape = tuple(feature_map.shape)
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
