"""The optimal local bandwidth: the fixed bandwidth of least cost around each point.

Steps 3 to 5 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): the
local cost of every bandwidth, smoothed under every window. Positions and bandwidths are counted
in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

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

_Smoother: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]


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
    members: list[int] = []
    for group in _groups(segments, n_windows, block):
        length = group[-1].length
        if members != [piece.segment for piece in group]:
            members = [piece.segment for piece in group]
            smooth = _smoother(kernels[members, :, :length])
        rows, inside = _rows_of(group, counts.device)
        best = _least_cost(counts[rows, :length], inside, penalties[members], smooth)
        optimal[rows, :, :length] = best
    return optimal


def _index_type(n_values: int) -> torch.dtype:
    return torch.uint8 if n_values <= 256 else torch.int32


def _least_cost(counts: Tensor, inside: Tensor, penalties: Tensor, smooth: _Smoother) -> Tensor:
    """Number (G, R, M, L) of the bandwidth of least smoothed cost, the first one on ties."""
    length = counts.shape[-1]
    n_windows = penalties.shape[1]
    counts, inside = _folded(counts), _folded(inside.to(counts))
    smoothed = _by_window(smooth(counts, None), n_windows)
    smoothed = smoothed * inside[..., None, :]
    local = counts.new_empty(*counts.shape[:3], n_windows * counts.shape[-1])
    least = torch.full_like(local, math.inf)
    number = torch.arange(n_windows, device=counts.device, dtype=_index_type(n_windows))
    best = torch.zeros_like(local, dtype=number.dtype)
    for j in range(n_windows):
        estimate = smoothed[..., j, :]
        cost = torch.sub(estimate, counts, alpha=2).mul_(estimate)
        cost.addcmul_(counts, penalties[:, j, None, None, None])
        local = smooth(cost, local)
        # Later bandwidths have larger numbers: a maximum does what a slower masked write would.
        torch.maximum(best, (local < least) * number[j], out=best)
        torch.minimum(least, local, out=least)
    return _unfolded(_by_window(best, n_windows), length)


def _by_window(values: Tensor, n_windows: int) -> Tensor:
    return values.view(*values.shape[:-1], n_windows, -1)


def _folded(values: Tensor) -> Tensor:
    """(G, R, ..., L) -> (G, 2, R, ..., H): the first half, and the second one from its end.

    A middle point belongs to the first half; the second half has a zero in its place.
    """
    # [1, 2, 3, 4, 5] < values
    # [[1, 2, 3], [5, 4, 0]] < result
    length = values.shape[-1]
    half = (length + 1) // 2
    second = F.pad(values[..., half:].flip(-1), (0, 2 * half - length))
    return torch.stack([values[..., :half], second], 1)


def _unfolded(values: Tensor, length: int) -> Tensor:
    first, second = values.unbind(1)
    return torch.cat([first, second[..., : length // 2].flip(-1)], -1)


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


def _smoother(kernels: Tensor) -> _Smoother:
    """Smoothing of folded rows (G, 2, R, H) with kernels (G, M, L) of their group: (G, 2, R, M H).

    The function takes a result that is no longer needed, to be written to, or None.
    """
    n_groups, _, length = kernels.shape
    half = (length + 1) // 2
    if length > _MAX_MATRIX_POINTS:
        gap = torch.zeros_like(kernels[..., :1])
        circle = torch.cat([kernels, gap, kernels[..., 1:].flip(-1)], -1)
        transfer = torch.fft.rfft(circle)[:, None]

        def convolve(values: Tensor, _: Tensor | None) -> Tensor:
            spectrum = torch.fft.rfft(_unfolded(values, length), 2 * length)[:, :, None]
            smoothed = torch.fft.irfft(spectrum * transfer, 2 * length)[..., :length]
            return _folded(smoothed).flatten(3)

        return convolve

    # A symmetric Toeplitz matrix keeps even sequences even and odd ones odd: two products with
    # matrices of half the side do the work of one.
    cells = torch.arange(half, device=kernels.device)
    near = kernels[..., (cells[:, None] - cells).abs()]
    far = kernels[..., length - 1 - cells[:, None] - cells]
    parts = torch.stack([near + far, near - far], 1) / 2  # (G, 2, M, H, H)
    matrices = parts.transpose(2, 3).reshape(n_groups, 2, half, -1)

    def multiply(values: Tensor, out: Tensor | None) -> Tensor:
        first, second = values.unbind(1)
        parts = torch.stack([first + second, first - second], 1)
        product = torch.matmul(parts, matrices, out=out)
        even, odd = product.unbind(1)
        even += odd
        torch.sub(even, odd, alpha=2, out=odd)
        return product

    return multiply


class _Piece(NamedTuple):
    """Rows ``first`` to ``last`` - 1 of a block, which have one length."""

    segment: int
    length: int
    first: int
    last: int


def _groups(
    segments: tuple[tuple[int, int], ...], n_windows: int, block: int
) -> Iterator[list[_Piece]]:
    """Rows to smooth together: as many as a cache holds, few enough that padding is little.

    Lengths above ``_MAX_MATRIX_POINTS`` are not mixed.
    """
    group: list[_Piece] = []
    first = most = 0
    for segment, (length, n_rows) in enumerate(segments):
        at_once = max(1, block // (n_windows * length))
        for start in range(first, first + n_rows, at_once):
            piece = _Piece(segment, length, start, min(start + at_once, first + n_rows))
            most = max(most, piece.last - piece.first)
            # The rows, or the matrices that smooth them.
            matrix = length**2 // 2 if length <= _MAX_MATRIX_POINTS else 0
            size = (len(group) + 1) * n_windows * max(most * length, matrix)
            if group and (size > block or length > _MAX_MATRIX_POINTS):
                yield group
                group, most = [], piece.last - piece.first
            group.append(piece)
        first += n_rows
    if group:
        yield group


def _rows_of(group: list[_Piece], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (G, R) of each piece, and ``inside`` (G, R, L), the points of the row's grid.

    The last row is repeated where a piece has fewer than R rows.
    """
    first, last, lengths = torch.tensor(
        [(piece.first, piece.last - 1, piece.length) for piece in group], device=device
    ).T[:, :, None]
    most = max(piece.last - piece.first for piece in group)
    rows = torch.minimum(first + torch.arange(most, device=device), last)
    inside = torch.arange(group[-1].length, device=device) < lengths[:, :, None]
    return rows, inside.expand(*rows.shape, -1)
