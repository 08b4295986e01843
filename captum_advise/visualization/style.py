"""What all figures share: colours, axes, images as arrays, PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_advise.visualization.html import GENERATOR

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    Array: TypeAlias = Tensor | npt.NDArray[np.generic]
    ManyAxes: TypeAlias = npt.NDArray[np.object_]
    Pixels: TypeAlias = npt.NDArray[np.floating]

LIGHT_GREY, GREY, DARK_GREY = "#b9c4cc", "#8a939a", "#404040"
# Of methods in turn: four colours of Okabe and Ito's colour-blind-safe set, and a grey.
METHODS = ("#d55e00", "#0072b2", DARK_GREY, "#009e73", "#cc79a7")


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The content of a PNG file, which says that captum-advise made it."""
    with io.BytesIO() as stream:
        figure.savefig(
            stream,
            format="png",
            dpi=dpi,
            metadata={"Software": GENERATOR},
            # Pillow's own level takes three times as long, and saves a tenth.
            pil_kwargs={"compress_level": 3},
        )
        return stream.getvalue()


def as_images(images: Array | Image.Image | Sequence[Array | Image.Image]) -> list[Pixels]:
    """A batch, a sequence of images or one image, each as :func:`as_image` makes it."""
    if isinstance(images, Tensor | np.ndarray):
        is_one = images.ndim == 2 or (images.ndim == 3 and _has_image_channels(images))
        return [as_image(image) for image in ([images] if is_one else images)]
    return [as_image(image) for image in (images if isinstance(images, Sequence) else [images])]


def as_image(image: Array | Image.Image) -> Pixels:
    """An image as (H, W, 3) in [0, 1].

    Args:
        image: (3 or 1, H, W) tensor, (H, W, 3 or 1) or (H, W) array, or PIL image.

    Raises:
        ValueError: It has another shape, or its values are not floating-point ones in [0, 1].
    """
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"An image to draw is a tensor, an array or a PIL image, got a {type(image).__name__}: "
            "captum_advise.zoo.open_image reads files."
        )
    if not isinstance(image, Tensor | np.ndarray):
        image = np.asarray(image.convert("RGB")) / 255
    if isinstance(image, Tensor):
        if image.dim() != 3 or not _has_image_channels(image):
            raise ValueError(
                f"An image tensor must be (3, H, W) or (1, H, W), got {tuple(image.shape)}; "
                "pass one image of a batch."
            )
        image = image.detach().permute(1, 2, 0).float().cpu().numpy()
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not _has_image_channels(image):
        raise ValueError(
            f"An image array must be (H, W, 3), (H, W, 1) or (H, W), got {image.shape}."
        )
    if not (
        np.issubdtype(image.dtype, np.floating) and image.min() >= -0.01 and image.max() <= 1.01
    ):
        raise ValueError(
            "An image to draw must hold floating-point values in [0, 1]: divide 8-bit values by "
            "255, and make model inputs pixels by PixelSpace.to_pixels."
        )
    return np.broadcast_to(image, (*image.shape[:2], 3)).clip(0, 1)


def _has_image_channels(image: Array) -> bool:
    return image.shape[0 if isinstance(image, Tensor) else 2] in (1, 3)
