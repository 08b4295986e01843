"""Densities of rows of samples on a GPU, without a round trip to the host."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.density._local_costs import smoothing_kernels
from captum_advise.density._triton_kernel import density_kernel
from captum_advise.density._working_grids import (
    candidate_bandwidths,
    duplicates,
    histograms,
    onto_grid,
    working_lengths,
)

# Numbers of the temporary of one launch: enough programs for any GPU, in bounded memory.
_SCRATCH = 1 << 23
# Points whose Gaussians a program adds at once, and points that it smooths at once.
_CHUNK = 8
_DEPTH = 1


def estimate_in_triton(rows: Tensor, grid: Tensor, span: float, n_bandwidths: int) -> Tensor:
    """As :func:`captum_advise.density._blocks.estimate_in_blocks`, on grids of up to 256 points.

    Nothing is asked of the GPU. So rows that have no density and duplicates are left out by their
    programs, and every row has as many points as the grid: a working grid has no more.
    """
    n_points, device = len(grid), grid.device
    lengths = working_lengths(rows, grid)
    every = torch.arange(n_points + 1, device=device)
    counts = histograms(rows, grid, every, lengths, n_points)
    first = duplicates(lengths, counts)
    n_bins = (counts > 0).sum(-1)
    is_estimated = (first == torch.arange(len(rows), device=device)) & (n_bins > 0)
    bins = (counts > 0).byte().argsort(dim=-1, descending=True, stable=True).int()

    block = max(16, 1 << (n_points - 1).bit_length())
    counts, bins = (F.pad(values, (0, block - n_points)) for values in (counts, bins))
    arguments = counts, bins, torch.where(is_estimated, lengths, 0).int(), n_bins.int()
    windows, kernels = _tables(n_points, span, n_bandwidths, device)
    estimate = rows.new_full((2, len(rows), block), math.nan)
    n_lines = 2 * n_bandwidths + 2
    # Multiples of 16 keep addresses aligned, as the kernel was compiled for.
    at_once = max(16, _SCRATCH // (n_lines * block) // 16 * 16)
    scratch = rows.new_empty(min(at_once, len(rows)), n_lines, block)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            parts = [values[part] for values in arguments]
            density_kernel[(len(parts[0]),)](
                *parts,
                windows,
                kernels,
                scratch,
                *estimate[:, part],
                n_bandwidths,
                n_points,
                block=block,
                chunk=_CHUNK,
                depth=_DEPTH,
                num_warps=block // 16,
            )
    return onto_grid(estimate, lengths.clamp(min=2), n_points)[:, first]


@lru_cache(maxsize=16)
def _tables(
    n_points: int, span: float, n_bandwidths: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Windows (n_points + 1, M) on grids of each length, and their kernels, also per distance."""
    windows = candidate_bandwidths(torch.arange(n_points + 1, device="cpu"), span, n_bandwidths)
    kernels = windows.new_zeros(n_points + 1, n_bandwidths, n_points)
    for length in range(2, n_points + 1):
        kernels[length, :, :length] = smoothing_kernels([length], windows[length : length + 1])[0]
    return windows.to(device), kernels.to(device)
