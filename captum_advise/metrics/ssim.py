"""Structural similarity.

The numbers are those of piq's implementation without downsampling. Local statistics of an image are
computed once, however many images are compared with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.metrics._maps import check_image_pair

_WINDOW, _SIGMA = 11, 1.5
# The paper's constants for luminance and contrast.
_C1, _C2 = 0.01**2, 0.03**2


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", IEEE TIP 2004.

    Args:
        images, others: (N, C, H, W) in [0, 1], C 1 or 3.

    Returns:
        (N,) at most one, which only equal images reach. Images smaller than the usual 11-pixel
        window use the largest odd window that fits.

    Raises:
        TypeError, ValueError: Types or shapes differ, or values are outside [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> ssim(image, image)
        tensor([1.])
    """
    check_image_pair(images, others)
    return ssim_with(images, others, local_statistics(others))


def local_statistics(images: Tensor) -> Tensor:
    """Mean and variance of images (N, C, H, W) under the Gaussian window, (N, 2, C, h, w)."""
    mean, square = _local_means(images, images.square())
    return torch.stack([mean, square - mean.square()], 1)


def ssim_with(images: Tensor, others: Tensor, statistics: Tensor) -> Tensor:
    """SSIM (N,) of images (N, C, H, W) and others, whose local statistics are known."""
    other_mean, other_variance = statistics.unbind(1)
    mean, square, product = _local_means(images, images.square(), images * others)
    variance = square - mean.square()
    covariance = product - mean * other_mean
    contrast = (2 * covariance + _C2) / (variance + other_variance + _C2)
    luminance = (2 * mean * other_mean + _C1) / (mean.square() + other_mean.square() + _C1)
    return (luminance * contrast).mean((1, 2, 3))


def _local_means(*images: Tensor) -> tuple[Tensor, ...]:
    """Means of each (N, C, H, W) under the window, where it fits."""
    side = min(_WINDOW, *images[0].shape[-2:])
    reach = (side - 1) // 2
    distance = torch.arange(-reach, reach + 1, device=images[0].device, dtype=images[0].dtype)
    window = torch.exp(-distance.square() / (2 * _SIGMA**2))
    window /= window.sum()
    # As channels that lie side by side in memory, planes go through vector instructions.
    planes = torch.cat(images, 1).contiguous(memory_format=torch.channels_last)
    n_planes = planes.shape[1]
    for shape in ((-1, 1), (1, -1)):
        kernel = window.view(1, 1, *shape).expand(n_planes, -1, -1, -1)
        planes = F.conv2d(planes, kernel, groups=n_planes)
    # Planes of their own again, for what is computed of each pixel.
    return torch.split(planes.contiguous(), [tensor.shape[1] for tensor in images], 1)
