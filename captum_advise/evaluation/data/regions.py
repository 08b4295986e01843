"""Where the object is in an image file, and where the network's transform puts it.

Boxes and masks refer to the upright image. They are drawn in white on black at the size of the
image, and go through the network's own transform: resized and cropped as the image is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from captum_advise import zoo
from captum_advise._utils.optional_dependencies import import_optional

if TYPE_CHECKING:
    from PIL import Image

Box: TypeAlias = tuple[float, float, float, float]
Region: TypeAlias = tuple[Box, ...] | Path


def region_of(region: Region, image: Image.Image, network: zoo.Network) -> Tensor:
    """The pixels of the model's input that show the object, bool (1, H, W).

    Args:
        region: Boxes (x0, y0, x1, y1) in pixels from the upper left corner, of which x1 and y1 are
            the first outside; or the path of a mask, an image that is black outside the object.
        image: The upright image.
        network: Its transform makes the input.
    """
    drawn = _mask(region, image) if isinstance(region, Path) else _boxes(region, image)
    inputs = network.transform(drawn.convert("RGB"))
    pixels = network.pixel_space.to_pixels(inputs[None])[0].mean(0, keepdim=True)
    found = pixels > 0.5
    if not bool(torch.any(found)):
        raise ValueError(
            "The object has no pixel in the part of the image that the network sees: leave the "
            "image out."
        )
    return found


def _boxes(boxes: tuple[Box, ...], image: Image.Image) -> Image.Image:
    drawn: Image.Image = import_optional("PIL.Image", "zoo").new("L", image.size)
    for box in boxes:
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
            corners = ", ".join(f"{corner:g}" for corner in box)
            raise ValueError(
                f"The box {corners} is not in the image, which has {image.width} x {image.height} "
                "pixels: give x0, y0, x1, y1 in pixels of the upright image."
            )
        # At least one pixel.
        left, upper = min(round(x0), image.width - 1), min(round(y0), image.height - 1)
        drawn.paste(255, (left, upper, max(round(x1), left + 1), max(round(y1), upper + 1)))
    return drawn


def _mask(path: Path, image: Image.Image) -> Image.Image:
    mask = zoo.to_rgb(zoo.open_image(path)).convert("L")
    if mask.size != image.size:
        raise ValueError(
            f"The mask {path} has {mask.width} x {mask.height} pixels, and its image "
            f"{image.width} x {image.height}: give a mask of the image's size."
        )
    return mask.point(lambda value: 255 if value else 0)
