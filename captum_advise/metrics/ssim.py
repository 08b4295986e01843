"""Structural similarity."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.metrics._image_pairs import check_image_pair

_WINDOW = 11


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004), computed by piq without downsampling.

    Args:
        images: (N, C, H, W) in [0, 1], C 1 or 3.
        others: Like ``images``.

    Returns:
        (N,) at most one, which only equal images reach. Images smaller than the usual 11-pixel
        window use the largest odd window that fits.

    Raises:
        TypeError: The types differ, or are not floating point.
        ValueError: The shapes differ, or values are outside [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> ssim(image, image)
        tensor([1.])
    """
    check_image_pair(images, others)
    piq = import_optional("piq")  # here, because it imports torchvision
    side = min(_WINDOW, *images.shape[-2:])
    window = side if side % 2 else side - 1
    return cast(
        Tensor,
        piq.ssim(images, others, kernel_size=window, reduction="none", downsample=False),
    )
