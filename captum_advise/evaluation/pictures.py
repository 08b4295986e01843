"""Tensors as pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional

if TYPE_CHECKING:
    from PIL.Image import Image


def as_picture(pixels: Tensor) -> Image:
    """A tensor (3 or 1, H, W) in [0, 1] as an image, in colour or grey."""
    pillow = import_optional("PIL.Image", "evaluation")
    values = (255 * pixels.detach().clamp(0, 1)).round().byte().cpu().permute(1, 2, 0).numpy()
    picture: Image = pillow.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    return picture


def as_png(pixels: Tensor) -> bytes:
    """A tensor (3 or 1, H, W) in [0, 1] as the content of a PNG file."""
    with io.BytesIO() as stream:
        as_picture(pixels).save(stream, format="PNG")
        return stream.getvalue()


def as_tensor(png: bytes) -> Tensor:
    """The content of a grey PNG file as a tensor (1, H, W) in [0, 255]."""
    with import_optional("PIL.Image", "evaluation").open(io.BytesIO(png)) as image:
        return torch.from_numpy(np.asarray(image).astype(np.float32))[None]
