"""Feature similarity: phase congruency and gradient magnitude, with colour.

The numbers are those of piq's implementation. Features of an image are computed once, however many
images are compared with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.metrics._image_pairs import check_image_pair

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
        (N,) in [0, 1], without a graph.

    Raises:
        TypeError, ValueError: Types or shapes differ, or values are outside [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> fsim(image, image)
        tensor([1.])
    """
    check_image_pair(images, others)
    extractor = extractor_like(images)
    return fsim_of_features(extractor(images), extractor(others))


@dataclass(frozen=True)
class FSIMFeatures:
    """What FSIM compares, at the scale at which it compares."""

    phase_congruency: Tensor  # (N, H, W)
    gradient: Tensor  # (N, H, W) magnitude of the gradient of the luminance
    chroma: Tensor | None  # (N, 2, H, W) I and Q; None for grey images

    def select(self, index: Tensor) -> FSIMFeatures:
        """The features of some of the images, int64 (M,)."""
        chroma = None if self.chroma is None else self.chroma[index]
        return FSIMFeatures(self.phase_congruency[index], self.gradient[index], chroma)


def fsim_of_features(features: FSIMFeatures, others: FSIMFeatures) -> Tensor:
    """FSIMc (N,) of two sets of images from their features."""
    first, second = features.phase_congruency, others.phase_congruency
    weight = torch.maximum(first, second)
    similarity = _similarity(first, second, _T1) * _similarity(
        features.gradient, others.gradient, _T2
    )
    if features.chroma is not None and others.chroma is not None:
        constants = features.chroma.new_tensor([_T3, _T4]).view(2, 1, 1)
        colour = _similarity(features.chroma, others.chroma, constants).prod(1)
        similarity = similarity * colour.abs() ** _CHROMA_WEIGHT
    return (similarity * weight).sum((1, 2)) / weight.sum((1, 2))


def _similarity(first: Tensor, second: Tensor, constant: float | Tensor) -> Tensor:
    return (2 * first * second + constant) / (first.square() + second.square() + constant)


@dataclass(frozen=True)
class FSIMFeatureExtractor:
    """Features of images of one size, (N, C, H, W) in [0, 1]."""

    stride: int  # side of the squares of pixels that are averaged first
    # (orientations, scales, h, w // 2 + 1) log-Gabor filters in the frequency domain
    even: Tensor
    odd: Tensor
    noise: Tensor  # (orientations,) threshold for a median squared amplitude of one

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FSIMFeatures:
        """The features of some images, without a graph."""
        images = images * 255
        if self.stride > 1:
            images = F.avg_pool2d(images, self.stride)
        chroma = None
        luminance = images[:, 0]
        if images.shape[1] == 3:
            yiq = torch.einsum("nchw,yc->nyhw", images, images.new_tensor(_TO_YIQ))
            luminance, chroma = yiq[:, 0], yiq[:, 1:]
        across = images.new_tensor(_SCHARR) / 16
        kernels = torch.stack([across, across.T])[:, None]
        gradient = F.conv2d(luminance[:, None], kernels, padding=1).square().sum(1).sqrt()
        return FSIMFeatures(self._phase_congruency(luminance), gradient, chroma)

    def _phase_congruency(self, luminance: Tensor) -> Tensor:
        """Energy of filter responses that agree in phase, as a share of all, (N, h, w)."""
        smallest = torch.finfo(luminance.dtype).eps
        size = luminance.shape[1:]
        spectrum = torch.fft.rfft2(luminance)[:, None]
        energy = torch.full_like(luminance, smallest)
        amplitude = torch.full_like(luminance, smallest)
        # One orientation at a time stays in a processor's cache.
        for even_filters, odd_filters, noise in zip(self.even, self.odd, self.noise, strict=True):
            even = torch.fft.irfft2(spectrum * even_filters, size)
            odd = torch.fft.irfft2(spectrum * odd_filters, size)
            power = even.square().addcmul_(odd, odd)
            threshold = noise * power[:, 0].flatten(1).median(1).values.sqrt()
            amplitude += power.sqrt_().sum(1)
            # The direction of the mean response; what agrees with it, less what does not.
            mean_even, mean_odd = even.sum(1), odd.sum(1)
            length = mean_even.square().addcmul_(mean_odd, mean_odd).sqrt_() + smallest
            agreeing = length - smallest
            across = even.mul_((mean_odd / length)[:, None])
            across -= odd.mul_((mean_even / length)[:, None])
            agreeing -= across.abs_().sum(1)
            energy += (agreeing - threshold[:, None, None]).clamp_(min=0)
        return energy / amplitude


def extractor_like(images: Tensor) -> FSIMFeatureExtractor:
    """An extractor for images of the size, type and device of these."""
    return _extractor(images.shape[-2], images.shape[-1], images.dtype, images.device)


@lru_cache(maxsize=8)
def _extractor(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> FSIMFeatureExtractor:
    """Filters cost as much as the features of an image, and most images have one size."""
    stride = max(1, round(min(height, width) / 256))
    height, width = height // stride, width // stride
    filters = _log_gabor_filters(height, width, torch.empty(0, dtype=dtype, device=device))
    # At minus each frequency.
    mirrored = filters.flip((2, 3)).roll((1, 1), (2, 3))
    half = slice(0, width // 2 + 1)
    return FSIMFeatureExtractor(
        stride,
        even=((filters + mirrored) / 2)[..., half],
        odd=((filters - mirrored) / 2j)[..., half],
        noise=_noise_thresholds(filters),
    )


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
