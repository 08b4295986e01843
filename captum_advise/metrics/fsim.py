"""Feature similarity."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.metrics._image_pairs import check_image_pair


def fsim(images: Tensor, others: Tensor) -> Tensor:
    """Feature similarity with colour, FSIMc (Zhang et al., IEEE TIP 2011), computed by piq.

    Args:
        images: (N, C, H, W) in [0, 1], C 1 or 3. Grey images have no colour to compare; their
            FSIMc is FSIM.
        others: Like ``images``.

    Returns:
        (N,) in [0, 1].

    Raises:
        TypeError: The types differ, or are not floating point.
        ValueError: The shapes differ, or values are outside [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> fsim(image, image)
        tensor([1.])
    """
    check_image_pair(images, others)
    piq = import_optional("piq")  # here, because it imports torchvision
    chromatic = images.shape[1] == 3
    return cast(Tensor, piq.fsim(images, others, reduction="none", chromatic=chromatic))
