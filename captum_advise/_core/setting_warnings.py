"""Settings that give a wrong result without an error, and the sentence that names them.

Each function returns a message, or None where nothing is suspicious.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from captum_advise._core.layer_pass import LayerCall, LayerPass
from captum_advise._core.masked_model import images_of
from captum_advise._core.scoring import MapScorer
from captum_advise._core.unit_choice import Candidates, has_relevance, on_host
from captum_advise._utils.errors import warn_caller
from captum_advise._utils.probabilities import score_traits, suspicious_confidence
from captum_advise._utils.randomness import RANDOM_OUTPUTS, unsteady
from captum_advise.pixels import PixelSpace

# Bicubic resizing of tensors leaves [0, 1] by a little.
_PIXEL_MARGIN = 0.1
# Units of a layer that could be heads of attention.
_MOST_HEADS = 64
# A map whose aspect ratio differs from the image's by more is not a map of it.
_MOST_DISTORTION = 2.0
# Of a map that reshape_transform made, which knows rows and columns. Padding may add a row.
_MOST_DISTORTION_OF_TRANSFORMS = 1.5


def warn_of(messages: Iterable[str | None]) -> None:
    """Warn of what is suspicious, of each thing once."""
    for message in dict.fromkeys(filter(None, messages)):
        warn_caller(message)


def pass_messages(layer_pass: LayerPass) -> list[str | None]:
    """What to warn of, after a forward pass."""
    call = layer_pass.call
    layout = suspicious_layout(call, layer_pass.feature_maps)
    return [several_runs(call, layer_pass.runs), layout, random_outputs(layer_pass)]


def choice_messages(
    layer_pass: LayerPass,
    how: dict[str, Any],
    scorer: MapScorer | None,
    candidates: Candidates,
    contributions: Tensor,
    unexplained: Tensor,
    confidence: Callable[[Tensor], Tensor] | None,
) -> list[str | None]:
    """What to warn of, after a choice. A confidence that the caller gave is None: it is right."""
    by_avx, images, nothing = how["selection"] == "avx", None, contributions[:0]
    pixel_space = None if scorer is None else scorer.pixel_space
    needs_black = by_avx or (how["selection"] == "average_drop" and how["baselines"] is None)
    if scorer is not None and (pixel_space is not None or needs_black):
        images = images_of(layer_pass, scorer.maskable)
    fallback, contribute, unexplained, traits, extremes = on_host(
        candidates.fallback,
        contributions.flatten(1).any(1),
        unexplained,
        nothing if scorer is None else score_traits(scorer.outputs),
        nothing if images is None else extreme_pixels(images, pixel_space),
    )
    messages = pass_messages(layer_pass)
    messages += [no_evidence(fallback, contribute), no_explanation(unexplained, by_avx)]
    if scorer is not None and confidence is not None:
        messages.append(suspicious_confidence(layer_pass.outputs, confidence, traits))
    if images is not None:
        messages.append(suspicious_pixels(extremes, pixel_space))
    return messages


def several_runs(call: LayerCall, runs: tuple[int, ...]) -> str | None:
    """A layer that ran more than once, of which no run was asked for."""
    most = max(runs)
    if most < 2 or call.layer_run is not None:
        return None
    return (
        f"The layer ran {most} times in the forward pass, and the map explains its last run: "
        f"pass layer_run, 0 for the first run to {most - 1} for the last."
    )


def random_outputs(layer_pass: LayerPass) -> str | None:
    """A model that is random in evaluation mode. Where it draws numbers, a second pass tells."""
    call = layer_pass.call
    if not layer_pass.draws or unsteady(call.forward_func, *call.layers):
        return None
    return None if torch.equal(call.outputs(), layer_pass.outputs) else RANDOM_OUTPUTS


def extreme_pixels(images: Tensor, pixel_space: PixelSpace | None) -> Tensor:
    """Lowest and highest pixel (2,) of model inputs (N, C, H, W); without a pixel space, inputs."""
    pixels = images.detach() if pixel_space is None else pixel_space.to_pixels(images.detach())
    return torch.stack(pixels.aminmax())


def suspicious_pixels(extremes: Tensor, pixel_space: PixelSpace | None) -> str | None:
    """:func:`extreme_pixels` of inputs that the pixel space does not map into [0, 1].

    Without one, of images with values below 0, whose black is not known.
    """
    lowest, highest = extremes.tolist()
    if pixel_space is None:
        if not lowest < -_PIXEL_MARGIN:
            return None
        return (
            f"The inputs hold values from {lowest:.2f} to {highest:.2f}, as normalised images do, "
            "and without pixel_space the darkest value of each image counts as black: pass "
            "pixel_space=PixelSpace.imagenet(), or the PixelSpace with the mean and std by which "
            "they were normalised."
        )
    if lowest >= -_PIXEL_MARGIN and highest <= 1 + _PIXEL_MARGIN:
        return None
    return (
        f"Under this pixel_space the inputs are images with values from {lowest:.2f} to "
        f"{highest:.2f} instead of 0 to 1, so metrics and baselines are wrong: pass the PixelSpace "
        "with the mean and std by which the inputs were normalised, or None."
    )


def suspicious_layout(call: LayerCall, feature_maps: tuple[Tensor, ...]) -> str | None:
    """Tensors of an image that are tokens, channels last, attention, or of another aspect."""
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
        if len(shape) == 3 and transform is None:
            return (
                f"The layer's tensor {shape} has one spatial dimension and the image has two: if "
                "it holds tokens N x T x C, pass "
                "reshape_transform=captum_advise.layouts.Tokens(n_prefix=1), with the number of "
                "tokens before the patches."
            )
        if len(shape) != 4 or not feature_map.numel():
            continue
        if _is_attention(feature_map):
            return (
                f"The layer's tensor {shape} holds attention weights (non-negative rows that sum "
                "to 1), not feature maps: name the layer whose tokens are attended to, such as "
                "the norm before the attention."
            )
        distortion = _distortion(shape[2], shape[3], height, width)
        if transform is not None and distortion > _MOST_DISTORTION_OF_TRANSFORMS:
            return (
                f"reshape_transform gives maps of {shape[2]} x {shape[3]} for images of {height} x "
                f"{width}, which have another aspect: give it the number of rows and columns of "
                "the patches, rows first, as in Tokens(n_prefix=1, size=(rows, columns))."
            )
        if (
            transform is None
            and distortion > _MOST_DISTORTION
            and _distortion(shape[1], shape[2], height, width) < _MOST_DISTORTION
        ):
            return (
                f"The layer's tensor {shape} gives maps of {shape[2]} x {shape[3]} for images of "
                f"{height} x {width}: if it is channels last, N x H x W x C, pass "
                "reshape_transform=captum_advise.layouts.channels_last."
            )
    return None


def _is_attention(feature_map: Tensor) -> bool:
    rows, columns = feature_map.shape[2:]
    is_square = rows == columns and rows > 1
    if not is_square or feature_map.shape[1] > _MOST_HEADS or bool((feature_map < 0).any()):
        return False
    return bool(((feature_map.detach().float().sum(3) - 1).abs() < 1e-2).all())


def _distortion(height: int, width: int, image_height: int, image_width: int) -> float:
    ratio = height * image_width / (width * image_height)
    return max(ratio, 1 / ratio)


def missing_relevance(relevance: Tensor, values: Collection[int]) -> str | None:
    """Examples of which no unit has a relevance that was asked for."""
    without = int((~has_relevance(relevance, values).any(1)).sum())
    if not without or not relevance.numel():
        return None
    return (
        f"{without} of {len(relevance)} examples have no unit with relevance "
        f"{' or '.join(map(str, sorted(values)))}, so their maps are zero: the units have "
        f"relevance {int(relevance.min())} to {int(relevance.max())}."
    )


def no_evidence(fallback: Tensor, contribute: Tensor) -> str | None:
    """Examples (N,) without a group whose map holds evidence, and those with contributions."""
    if not bool(fallback.any()):
        return None
    message = (
        f"{int(fallback.sum())} of {len(fallback)} examples have no group of units whose map holds "
        "any evidence for the target; all their units are selected, as in Grad-CAM"
    )
    if bool((fallback * contribute).any()):
        return f"{message}."
    return (
        f"{message}: no unit contributes anything, so the map is zero; if the scores do not depend "
        "on this layer's tensor, as on the patches after the last attention of a transformer, "
        "name a layer before it."
    )


def no_explanation(unexplained: Tensor, is_by_avx: bool) -> str | None:
    """Examples whose groups are all as bad as can be, bool (N,)."""
    if not bool(unexplained.any()):
        return None
    criterion = "AVX 0" if is_by_avx else "average drop 1"
    return (
        f"{int(unexplained.sum())} of {len(unexplained)} examples have no group of units that "
        f"explains the prediction ({criterion} for all of them); the lowest relevance is selected: "
        "pass unit_selection=None for the map of all units, or a relevance."
    )
