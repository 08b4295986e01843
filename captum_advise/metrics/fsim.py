"""Feature similarity: phase congruency and gradient magnitude, with colour.

The numbers are those of piq's implementation. Features of an image are computed once, however many
images are compared with it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.metrics._maps import check_image_pair

_SCALES, _ORIENTATIONS = 4, 4
_LEAST_WAVELENGTH = 6
_BANDWIDTH = 0.55
_ANGULAR_WIDTH = math.pi / (1.2 * _ORIENTATIONS)
# Of the low-pass filter that keeps the corners of the spectrum out.
_CUTOFF, _ORDER = 0.45, 15
# Noise threshold: standard deviations above the mean, and the authors' empirical correction.
_NOISE_DEVIATIONS, _NOISE_CORRECTION = 2.0, 1.7
# The paper's constants for phase congruency, gradient, the two colour channels and their weight.
_T1, _T2, _T3, _T4, _CHROMA_WEIGHT = 0.85, 160.0, 200.0, 200.0, 0.03
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))


def fsim(images: Tensor, others: Tensor) -> Tensor:
    """Feature similarity with colour, FSIMc.

    Source: Zhang, Zhang, Mou and Zhang, "FSIM: A Feature Similarity Index for Image Quality
    Assessment", IEEE TIP 2011.

    Args:
        images, others: (N, C, H, W) in [0, 1], C 1 or 3. Grey images have no colour to compare;
            their FSIMc is FSIM.

    Returns:
        (N,) in [0, 1], 1 for equal images; without a graph.

    Raises:
        TypeError, ValueError: Types or shapes differ, or values are outside [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> fsim(image, image)
        tensor([1.])
    """
    check_image_pair(images, others)
    return fsim_of_features(fsim_features(images), fsim_features(others))


def fsim_of_features(features: Tensor, others: Tensor) -> Tensor:
    """FSIMc (N,) of two sets of images from their features."""
    first, second = features[:, 0], others[:, 0]
    weight = torch.maximum(first, second)
    similarity = _similarity(first, second, _T1) * _similarity(features[:, 1], others[:, 1], _T2)
    if features.shape[1] > 2:
        colour = _similarity(features[:, 2], others[:, 2], _T3)
        colour = colour * _similarity(features[:, 3], others[:, 3], _T4)
        similarity = similarity * colour.abs() ** _CHROMA_WEIGHT
    return (similarity * weight).sum((1, 2)) / weight.sum((1, 2))


def _similarity(first: Tensor, second: Tensor, constant: float) -> Tensor:
    return (2 * first * second + constant) / (first.square() + second.square() + constant)


@torch.no_grad()
def fsim_features(images: Tensor) -> Tensor:
    """What FSIM compares of images (N, C, H, W) in [0, 1], at the scale at which it compares.

    Returns:
        (N, 2, h, w) phase congruency and magnitude of the luminance's gradient, for colour images
        (N, 4, h, w) with I and Q; without a graph.
    """
    stride = max(1, round(min(images.shape[2:]) / 256))
    images = images * 255
    if stride > 1:
        images = F.avg_pool2d(images, stride)
    channels = images
    if images.shape[1] == 3:
        channels = torch.einsum("nchw,yc->nyhw", images, images.new_tensor(_TO_YIQ))
    luminance, chroma = channels[:, 0], channels[:, 1:]
    across = images.new_tensor(_SCHARR) / 16
    kernels = torch.stack([across, across.T])[:, None]
    gradient = F.conv2d(luminance[:, None], kernels, padding=1).square().sum(1).sqrt()
    return torch.cat([_phase_congruency(luminance)[:, None], gradient[:, None], chroma], 1)


def _phase_congruency(luminance: Tensor) -> Tensor:
    """Energy of filter responses that agree in phase, as a share of all, (N, h, w)."""
    smallest = torch.finfo(luminance.dtype).eps
    size = luminance.shape[1:]
    spectrum = torch.fft.rfft2(luminance)[:, None]
    amplitude = torch.full_like(luminance, smallest)
    agreeing, finest = [], []
    filters, noise = _filters(*size, luminance.dtype, luminance.device)
    # One orientation at a time stays in a processor's cache.
    for even_filters, odd_filters in filters:
        even = torch.fft.irfft2(spectrum * even_filters, size)
        odd = torch.fft.irfft2(spectrum * odd_filters, size)
        power = even.square().addcmul_(odd, odd)
        finest.append(power[:, 0].clone())
        amplitude += power.sqrt_().sum(1)
        # The direction of the mean response; what agrees with it, less what does not.
        mean_even, mean_odd = even.sum(1), odd.sum(1)
        length = mean_even.square().addcmul_(mean_odd, mean_odd).sqrt_() + smallest
        across = even.mul_((mean_odd / length)[:, None])
        across -= odd.mul_((mean_even / length)[:, None])
        agreeing.append(length.sub_(smallest).sub_(across.abs_().sum(1)))
    # All medians at once, on all threads.
    medians = torch.stack(finest).flatten(2).median(2).values.sqrt()
    energy = torch.full_like(luminance, smallest)
    for share, threshold in zip(agreeing, noise[:, None] * medians, strict=True):
        energy += (share - threshold[:, None, None]).clamp_(min=0)
    return energy / amplitude


@lru_cache(maxsize=8)
def _filters(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Log-Gabor filters of each orientation, which cost as much as the features of an image.

    For the even and the odd part of the responses, both (scales, h, w // 2 + 1) in the frequency
    domain. With the noise thresholds (orientations,) for a median squared amplitude of one.
    """
    filters = _log_gabor_filters(height, width, torch.empty(0, dtype=dtype, device=device))
    # At minus each frequency.
    mirrored = filters.flip((2, 3)).roll((1, 1), (2, 3))
    half = slice(0, width // 2 + 1)
    even, odd = (filters + mirrored) / 2, (filters - mirrored) / 2j
    pairs = list(zip(even[..., half], odd[..., half], strict=True))
    return pairs, _noise_thresholds(filters)


def _log_gabor_filters(height: int, width: int, like: Tensor) -> Tensor:
    """(orientations, scales, h, w) with frequency zero in the corner."""
    down, across = torch.meshgrid(
        _frequencies(height, like), _frequencies(width, like), indexing="ij"
    )
    radius = torch.fft.ifftshift((down.square() + across.square()).sqrt())
    angle = torch.fft.ifftshift(torch.atan2(-across, down))
    low_pass = 1 / (1 + (radius / _CUTOFF) ** (2 * _ORDER))
    radius[0, 0] = 1  # any value with a logarithm
    scales = torch.arange(_SCALES, device=like.device, dtype=like.dtype)
    wavelengths = _LEAST_WAVELENGTH * 2.0**scales
    octaves = (radius * wavelengths[:, None, None]).log()
    radial = torch.exp(-octaves.square() / (2 * math.log(_BANDWIDTH) ** 2)) * low_pass
    radial[:, 0, 0] = 0
    orientation = torch.arange(_ORIENTATIONS, device=like.device, dtype=like.dtype)
    turn = angle - orientation[:, None, None] * (math.pi / _ORIENTATIONS)
    distance = torch.atan2(turn.sin(), turn.cos())
    angular = torch.exp(-distance.square() / (2 * _ANGULAR_WIDTH**2))
    filters: Tensor = angular[:, None] * radial
    return filters


def _frequencies(size: int, like: Tensor) -> Tensor:
    """Frequencies from -0.5 up, zero in the middle, as the authors' program spaces them."""
    steps = torch.arange(size, device=like.device, dtype=like.dtype)
    # A single row or column has no frequency but zero.
    return (steps - (size - 1) / 2) / max(size - 1, 1) if size % 2 else (steps - size / 2) / size


def _noise_thresholds(filters: Tensor) -> Tensor:
    """Threshold (orientations,) of the energy, per square root of the median squared amplitude."""
    height, width = filters.shape[-2:]
    kernels = torch.fft.ifft2(filters).real * math.sqrt(height * width)
    power = filters[:, 0].square().sum((1, 2))
    # The sum of squares, twice, and that of the products of different scales, four times.
    total = 2 * kernels.sum(1).square().sum((1, 2))
    # A single pixel passes no filter.
    rayleigh = (total / (2 * math.log(2) * power.where(power > 0, 1.0))).sqrt()
    deviation = math.sqrt(2 - math.pi / 2)
    noise = rayleigh * (math.sqrt(math.pi / 2) + _NOISE_DEVIATIONS * deviation)
    threshold: Tensor = noise / _NOISE_CORRECTION
    return threshold
