"""What a transform does to colours, measured: no transform says it in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    from PIL import Image

# As a share of the range from black to white; 8-bit images are exact to half of 1/255.
_TOLERANCE = 0.02


def measure(
    transform: Callable[[Image.Image], Any], pixel_space: PixelSpace | None = None
) -> tuple[tuple[int, int, int], PixelSpace]:
    """The shape (C, H, W) of a transform's results, and how they relate to images in [0, 1].

    Images of one colour go through it: black, dark grey, white and red. Where grey is not where
    black and white say, as after a normalisation of each image by itself, it is a ValueError.
    """
    pil = import_optional("PIL.Image", "zoo")
    colours = ((0, 0, 0), (51, 51, 51), (255, 255, 255), (255, 0, 0))
    results = [transform(pil.new("RGB", (256, 256), colour)) for colour in colours]
    first = results[0]
    if not isinstance(first, Tensor) or first.dim() != 3:
        raise ValueError(
            "The transform must turn a PIL image into a tensor (3, H, W), got "
            f"{tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__}."
        )
    channels, height, width = first.shape
    if pixel_space is not None:
        return (channels, height, width), pixel_space
    # In double precision, and in the middle: borders may be padding.
    black, grey, white, red = (
        result[:, height // 2, width // 2].to("cpu", torch.float64) for result in results
    )
    span = white - black
    is_linear = (span > 0) & (((grey - black) / span - 0.2).abs() < _TOLERANCE)
    if not is_linear.all():
        raise ValueError(
            "The transform does not map black, grey and white onto a line, so it is not known how "
            "the model's inputs relate to pixels: pass pixel_space, which is "
            "PixelSpace.identity() for inputs in [0, 1]."
        )
    # Six digits: inputs in single precision have no more.
    mean, std = (
        tuple(float(f"{value:.6g}") + 0.0 for value in values)
        for values in (-black / span, 1 / span)
    )
    redness = (red - black) / span
    is_bgr = channels == 3 and bool(redness[2] > redness[0] + _TOLERANCE)
    return (channels, height, width), PixelSpace(mean, std, is_bgr)
