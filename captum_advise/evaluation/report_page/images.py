"""The images of the page: which ones, and how they are embedded."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from captum_advise._core.scoring import as_masks
from captum_advise.evaluation.pictures import as_picture
from captum_advise.visualization.heat import heat_colours as colour_map

if TYPE_CHECKING:
    from PIL.Image import Image

EVENLY_SPREAD = 12
# Bounds the size of the page: a map of 224 x 224 takes 2 to 25 kB.
_MOST_MAPS, _FEWEST, _MOST_IMAGES = 240, 4, 24
_SIDE = 224


@dataclass(frozen=True)
class ReportImage:
    """An image with its maps, as ``data:`` addresses.

    Attributes:
        index: Its position in the data.
        source: The image.
        maps: For each method its map, enlarged to the image: black is no evidence, white is most.
        width: Of all of them, in pixels.
        height: Likewise.
    """

    index: int
    source: str
    maps: tuple[str, ...]
    width: int
    height: int


def chosen_images(indices: Sequence[int], worst: Sequence[int], n_methods: int) -> list[int]:
    """The images to embed: twelve that are evenly spread, and worst cases, the worst first.

    Args:
        indices: The images of the results, in order.
        worst: The images on which methods lose most, the worst first.
        n_methods: The more methods, the fewer images.
    """
    most = min(_MOST_IMAGES, max(_FEWEST, _MOST_MAPS // n_methods))
    n_spread = min(EVENLY_SPREAD, most * EVENLY_SPREAD // _MOST_IMAGES or 1, len(indices))
    if len(indices) <= most:
        return list(indices)
    spread = [indices[i * len(indices) // n_spread] for i in range(n_spread)]
    return sorted(list(dict.fromkeys([*spread, *worst]))[:most])


def embedded(index: int, pixels: Tensor, maps: Mapping[str, Tensor]) -> ReportImage:
    """An image (3, H, W) in [0, 1], and the map (1, 1, h, w) of each method."""
    image = _bounded(pixels)
    pictures = [_bounded(as_masks(own, pixels.shape[-2:])[0]) for own in maps.values()]
    return ReportImage(
        index=index,
        source=_data_address(image, quality=82),
        maps=tuple(_data_address(picture, quality=60) for picture in pictures),
        width=image.width,
        height=image.height,
    )


def heat_colours() -> list[list[int]]:
    """The 256 colours of maps in all figures, red, green and blue in 0 to 255."""
    colours: npt.NDArray[np.float64] = colour_map()(np.linspace(0, 1, 256))
    return [[int(part) for part in colour] for colour in (255 * colours[:, :3]).round()]


def _bounded(pixels: Tensor) -> Image:
    picture = as_picture(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _data_address(picture: Image, quality: int) -> str:
    with io.BytesIO() as stream:
        picture.save(stream, format="JPEG", quality=quality, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
