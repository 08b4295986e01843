"""The optimal local bandwidth: the fixed bandwidth of least cost around each point.

Steps 3 to 5 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): the
local cost of every bandwidth, smoothed under every window. Positions and bandwidths are counted
in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# A smoothing matrix has length^2 entries: longer grids convolve by FFT.
_MAX_MATRIX_POINTS = 512
# In narrower windows, in cells, a Gaussian is not what its frequencies up to the highest add up to.
NARROW = 4.5
# Elements of a smoothed block of rows: with its temporaries it stays in a processor's cache.
_SMOOTHING_BLOCK = 1 << 18
_CUDA_SMOOTHING_BLOCK = 1 << 24


def optimal_bandwidths(
    counts: Tensor, segments: tuple[tuple[int, int], ...], windows: Tensor
) -> Tensor:
    """Find the bandwidth of least cost around each point, for each window.

    Args:
        counts: (B, L) histograms, zero after the end of a row's grid. Their type is the
            precision of the costs.
        segments: (length, rows) of the runs of rows with grids of one length.
        windows: (S, M) the bandwidths tried on the grids of each run, in cells.

    Returns:
        (B, M, L) unsigned integers: the number of the bandwidth for each row, window and point.
    """
    n_windows = windows.shape[1]
    n_rows, longest = counts.shape
    optimal = counts.new_zeros(n_rows, n_windows, longest, dtype=_index_type(n_windows))
    kernels = smoothing_kernels([length for length, _ in segments], windows).to(counts)
    penalties = (2 / math.sqrt(2 * math.pi) / windows).to(counts)
    block = _CUDA_SMOOTHING_BLOCK if counts.is_cuda else _SMOOTHING_BLOCK
    first = 0
    for (length, n_rows), kernel, penalty in zip(segments, kernels, penalties, strict=True):
        smooth = _smoother(kernel[:, :length])
        at_once = max(1, block // (n_windows * length))
        for start in range(first, first + n_rows, at_once):
            rows = slice(start, min(start + at_once, first + n_rows))
            optimal[rows, :, :length] = _least_cost(counts[rows, :length], penalty, smooth)
        first += n_rows
    return optimal


def _index_type(n_values: int) -> torch.dtype:
    return torch.uint8 if n_values <= 256 else torch.int32


def _least_cost(counts: Tensor, penalties: Tensor, smooth: Callable[[Tensor], Tensor]) -> Tensor:
    """Number (R, M, L) of the bandwidth of least smoothed cost, the first one on ties."""
    smoothed = smooth(counts)
    least = torch.full_like(smoothed, math.inf)
    number = torch.arange(len(penalties), device=counts.device, dtype=_index_type(len(penalties)))
    best = torch.zeros_like(smoothed, dtype=number.dtype)
    for j, penalty in enumerate(penalties):
        estimate = smoothed[:, j]
        cost = torch.sub(estimate, counts, alpha=2).mul_(estimate)
        cost.addcmul_(counts, penalty)
        local = smooth(cost)
        # Later bandwidths have larger numbers: a maximum does what a slower masked write would.
        torch.maximum(best, (local < least) * number[j], out=best)
        torch.minimum(least, local, out=least)
    return best


def smoothing_kernels(lengths: list[int], windows: Tensor) -> Tensor:
    """Each window's Gaussian (S, M, L) at distances from zero up, on grids of these lengths.

    Zero padding to a power of two and circular wrap-round are part of the method.
    """
    longest = max(lengths)
    points = torch.tensor(lengths, device=windows.device)[:, None] + 3 * windows
    circles = torch.exp2(points.log2().ceil()).long()
    distances = torch.arange(longest, device=windows.device, dtype=windows.dtype)
    turns = torch.arange(-3, 4, device=windows.device)[:, None, None, None]
    scaled = (distances + turns * circles[..., None]) / windows[..., None]
    # exp2, as exp is slow where its result is next to nothing.
    kernels = torch.exp2(-0.5 / math.log(2) * scaled.square()).sum(0)
    kernels /= math.sqrt(2 * math.pi) * windows[..., None]
    # The circle's highest frequency matters to narrow windows, on tiny grids only.
    for which in (windows < NARROW).nonzero().tolist():
        circle = int(circles[tuple(which)])
        frequency = torch.arange(circle // 2 + 1, device=windows.device).to(windows) / circle
        angle = 2 * math.pi * windows[tuple(which)] * frequency
        kernel = torch.fft.irfft(torch.exp(-0.5 * angle.square()).to(torch.complex128), circle)
        kernels[tuple(which)] = F.pad(kernel, (0, max(0, longest - circle)))[:longest]
    return kernels


def _smoother(kernels: Tensor) -> Callable[[Tensor], Tensor]:
    """Smoothing of rows (R, L) with kernels (M, L): (R, M, L)."""
    n_windows, length = kernels.shape
    if length > _MAX_MATRIX_POINTS:
        circle = torch.cat([kernels, kernels[:, :1] * 0, kernels[:, 1:].flip(-1)], -1)
        transfer = torch.fft.rfft(circle)

        def convolve(values: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(values, 2 * length)[:, None]
            smoothed: Tensor = torch.fft.irfft(spectrum * transfer, 2 * length)
            return smoothed[..., :length]

        return convolve

    cells = torch.arange(length, device=kernels.device)
    matrices = kernels[:, (cells[:, None] - cells).abs()].transpose(0, 1).flatten(1)

    def multiply(values: Tensor) -> Tensor:
        return (values @ matrices).view(len(values), n_windows, length)

    return multiply
