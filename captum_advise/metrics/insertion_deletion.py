"""Insertion and deletion: the confidence while the most important pixels appear or disappear."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.metrics._maps import check_maps, pixel_ranks, single
from captum_advise.metrics._passes import target_confidences
from captum_advise.pixels import PixelSpace, black

_BLUR_KERNEL, _BLUR_SIGMA = 11, 5.0


def insertion_auc(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    baselines: Tensor | None = None,
    steps: int = 32,
    confidence: Callable[[Tensor], Tensor] | None = None,
    internal_batch_size: int = 32,
) -> Tensor:
    """Area under the confidence in the target while pixels are inserted, most important first.

    The curve starts at the baseline and ends at the whole image. The area follows the trapezoidal
    rule, and the share of inserted pixels runs from 0 to 1.

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018.

    Args:
        forward_func: (P, C, H, W) inputs to class scores (P, K).
        inputs: (N, C, H, W) model inputs.
        maps: (N, M, H, W) importance of each pixel, M maps for each input. Pixels of equal
            importance are taken row by row.
        target: (N,) int64 classes.
        baselines: What is shown before pixels are inserted, in the model's inputs; must broadcast
            to ``inputs``. Default: blurred inputs, as in RISE (Gaussian with a standard deviation
            of 5 pixels, cut to 11 x 11).
        steps: The number of equal shares into which the pixels are divided.
        confidence: Class scores to probabilities. None: that of ``forward_func`` if it is one of
            :mod:`captum_advise.targets`, else softmax.
        internal_batch_size: How many images go through the model at once.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; larger is better.

    Raises:
        TypeError, ValueError: The maps are not a real tensor of the inputs' size or not finite. The
            target does not hold int64 classes of the model. A number is out of its range.

    Warns:
        UserWarning: No confidence was given, and the outputs are probabilities already. Or the
            outputs depend on chance or on the batch, as in training mode.

    Example::

        >>> maps = torch.rand(2, 1, 32, 32)
        >>> insertion_auc(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_real(inputs=inputs)
    (curves,) = curves_between(
        forward_func,
        {"whole": inputs, "baseline": blurred(inputs) if baselines is None else baselines},
        [("baseline", "whole")],
        maps,
        target,
        steps=steps,
        confidence=confidence,
        internal_batch_size=internal_batch_size,
    )
    return _areas(curves)


def deletion_auc(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    baselines: Tensor | None = None,
    pixel_space: PixelSpace | None = None,
    steps: int = 32,
    confidence: Callable[[Tensor], Tensor] | None = None,
    internal_batch_size: int = 32,
) -> Tensor:
    """Area under the confidence in the target while pixels are deleted, most important first.

    As :func:`insertion_auc`, from the whole image to the baseline; smaller is better.

    Args:
        forward_func, inputs, maps, target, steps, confidence, internal_batch_size: As in
            :func:`insertion_auc`, also what is refused and warned of.
        baselines: What replaces deleted pixels, in the model's inputs; must broadcast to
            ``inputs``. Default: black.
        pixel_space: Defines black. None: the lowest value of each example is black.

    Example::

        >>> maps = torch.rand(2, 1, 32, 32)
        >>> deletion_auc(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    check_real(inputs=inputs)
    if baselines is None:
        baselines = black(inputs, pixel_space)
    (curves,) = curves_between(
        forward_func,
        {"whole": inputs, "baseline": baselines},
        [("whole", "baseline")],
        maps,
        target,
        steps=steps,
        confidence=confidence,
        internal_batch_size=internal_batch_size,
    )
    return _areas(curves)


def blurred(inputs: Tensor) -> Tensor:
    """Images without detail: a Gaussian blur of 5 pixels standard deviation, cut to 11 x 11 (RISE).

    Borders are mirrored. Images (N, C, H, W) with a side below 6 pixels use the largest window that
    mirroring allows.
    """
    # Here, so that the rest of the package works without torchvision.
    functional = import_optional("torchvision.transforms.v2.functional")
    window = min(_BLUR_KERNEL, *(2 * side - 1 for side in inputs.shape[-2:]))
    return cast(
        Tensor, functional.gaussian_blur(inputs, [window, window], [_BLUR_SIGMA, _BLUR_SIGMA])
    )


def _areas(curves: Tensor) -> Tensor:
    """Areas (N,) under one curve for each input, or (N, M)."""
    return single(torch.trapezoid(curves, dx=1 / (curves.shape[2] - 1)))


@torch.no_grad()
def curves_between(
    forward_func: Callable[[Tensor], Tensor],
    images: Mapping[str, Tensor],
    curves: Sequence[tuple[str, str]],
    maps: Tensor,
    target: Tensor,
    *,
    steps: int,
    confidence: Callable[[Tensor], Tensor] | None,
    internal_batch_size: int,
) -> list[Tensor]:
    """The confidence (N, M, steps + 1) while pixels change from one image to another, per curve.

    ``images`` are (N, C, H, W) by name, the first of full shape; the others broadcast to it. Each
    goes through the model once. Each of ``curves`` is the names of its first and last image.
    """
    names, whole = list(images), next(iter(images.values()))
    check_maps(whole, maps, target)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    n_examples, n_maps, height, width = maps.shape
    n_pixels = height * width
    ranks = pixel_ranks(maps)
    ends = torch.stack([image.expand_as(whole) for image in images.values()])
    changed = [round(step * n_pixels / steps) for step in range(1, steps)]
    # Rows (first image, last image, example, map, changed pixels): the ends, then the curves.
    rows = [(end, end, row, 0, 0) for end in range(len(names)) for row in range(n_examples)]
    for first, last in curves:
        between = itertools.product(range(n_examples), range(n_maps), changed)
        rows += [(names.index(first), names.index(last), *row) for row in between]

    table = torch.tensor(rows, dtype=torch.int64, device=maps.device).view(-1, 5)

    def shown() -> Iterator[Tensor]:
        for part in torch.split(table, internal_batch_size):
            first_end, last_end, example, map_index, count = part.T
            is_changed = ranks[example, map_index][:, None] < count.view(-1, 1, 1, 1)
            yield torch.where(is_changed, ends[last_end, example], ends[first_end, example])

    n_ends = len(names) * n_examples
    confidences = target_confidences(
        forward_func, confidence, shown(), table[:, 2], target, internal_batch_size
    )
    at_ends = confidences[:n_ends].view(len(names), n_examples, 1, 1).expand(-1, -1, n_maps, -1)
    inside = confidences[n_ends:].view(len(curves), n_examples, n_maps, steps - 1)
    return [
        torch.cat([at_ends[names.index(first)], inner, at_ends[names.index(last)]], 2)
        for (first, last), inner in zip(curves, inside, strict=True)
    ]
