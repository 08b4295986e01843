"""How much of a picture an explanation keeps: structural, feature and squared-error similarity."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from captum_advise.extras import package
from captum_advise.validation import check_real, check_same_shape, kind

_SSIM_WINDOW = 11


def ssim(pictures: Tensor, others: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004), by piq, without downsampling.

    Args:
        pictures: (N, C, H, W) in [0, 1].
        others: As ``pictures``.

    Returns:
        (N,) at most one, which only equal pictures reach. Pictures narrower than the usual
        11-pixel window use the largest odd window that fits.

    Raises:
        ValueError: Pictures of different shapes, or values outside [0, 1].

    Example::

        >>> picture = torch.rand(1, 3, 16, 16)
        >>> ssim(picture, picture)
        tensor([1.])
    """
    _check_pictures(pictures, others)
    side = min(_SSIM_WINDOW, *pictures.shape[-2:])
    window = side if side % 2 else side - 1
    return cast(
        Tensor,
        _piq().ssim(pictures, others, kernel_size=window, reduction="none", downsample=False),
    )


def fsim(pictures: Tensor, others: Tensor) -> Tensor:
    """Feature similarity with colour, FSIMc (Zhang et al., IEEE TIP 2011), by piq.

    Args:
        pictures: (N, C, H, W) in [0, 1], C 1 or 3. Grey pictures have no colour to compare, and
            their FSIMc is FSIM.
        others: As ``pictures``.

    Returns:
        (N,) in [0, 1].

    Raises:
        ValueError: Pictures of different shapes, or values outside [0, 1].

    Example::

        >>> picture = torch.rand(1, 3, 16, 16)
        >>> fsim(picture, picture)
        tensor([1.])
    """
    _check_pictures(pictures, others)
    chromatic = pictures.shape[1] == 3
    return cast(Tensor, _piq().fsim(pictures, others, reduction="none", chromatic=chromatic))


def mse(pictures: Tensor, others: Tensor) -> Tensor:
    """Mean squared error on pixels in [0, 1].

    Args:
        pictures: (N, ...) in [0, 1].
        others: As ``pictures``.

    Returns:
        (N,) in [0, 1].

    Raises:
        TypeError: An argument is no real tensor.
        ValueError: Their shapes differ, or they are no pictures of floating-point numbers.

    Example::

        >>> mse(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
        tensor([0.2500])
    """
    check_real(pictures=pictures, others=others)
    check_same_shape(pictures=pictures, others=others)
    if pictures.dim() < 2 or not pictures.is_floating_point() or not others.is_floating_point():
        raise ValueError(
            f"pictures must be (N, ...) of floating-point numbers, got {kind(pictures)} of shape "
            f"{tuple(pictures.shape)}."
        )
    return (pictures - others).square().flatten(1).mean(1)


def _piq() -> Any:
    return package("piq")  # when used: it imports torchvision, which the rest does without


def _check_pictures(pictures: Tensor, others: Tensor) -> None:
    check_real(pictures=pictures, others=others)
    if not pictures.is_floating_point() or pictures.dtype != others.dtype:
        raise TypeError(
            "Both pictures must be of one floating-point type, got "
            f"{kind(pictures)} and {kind(others)}."
        )
    if pictures.numel() == 0:
        raise ValueError(f"There are no pictures in a tensor of shape {tuple(pictures.shape)}.")
    if pictures.shape != others.shape or pictures.dim() != 4 or pictures.shape[1] not in (1, 3):
        raise ValueError(
            "Both pictures must be (N, C, H, W) of one shape, with one or three channels, got "
            f"{tuple(pictures.shape)} and {tuple(others.shape)}."
        )
    for name, tensor in (("pictures", pictures), ("others", others)):
        if tensor.numel() and not bool(
            torch.isfinite(tensor).all() & (tensor.min() >= 0) & (tensor.max() <= 1)
        ):
            raise ValueError(f"{name} must lie in [0, 1]; scale or clamp them first.")
