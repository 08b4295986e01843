"""The balloon estimator (Terrell and Scott, Ann. Statist. 20, 1992) on histograms.

The density at a point is the sum of all samples' Gaussians of the bandwidth at that point. Step 6
of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3), second part: that
density and its cost.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_LOG2_E = 0.5 / math.log(2)
# Smaller powers of two would be denormal numbers, which processors compute with very slowly.
_LEAST_EXPONENT = -1000.0
# Elements of the kernels that are computed at once: small enough to stay in a processor's cache.
_CPU_KERNELS = 1 << 17
_CUDA_KERNELS = 1 << 24


class BalloonEstimator:
    """Densities of histograms ``counts`` (B, L), and their costs."""

    def __init__(self, counts: Tensor) -> None:
        self.n_samples = counts.sum(-1)
        # Most bins are empty. The occupied ones come first, and only they enter the sums.
        occupied = counts > 0
        self.n_bins = occupied.sum(-1)
        most = int(self.n_bins.amax())
        self.bin = occupied.byte().argsort(dim=-1, descending=True, stable=True)[:, :most]
        self.count = counts.gather(1, self.bin)
        self.cells = torch.arange(counts.shape[1], device=counts.device, dtype=counts.dtype)

    def cost(self, inverse: Tensor, rows: Tensor | None = None) -> Tensor:
        """Cost (R,) of the density at these inverse bandwidths (R, L) of some rows, or of all."""
        density = self._unscaled(inverse, rows)
        bins, count, n_samples = (
            values if rows is None else values.index_select(0, rows)
            for values in (self.bin, self.count, self.n_samples)
        )
        scale = n_samples / density.sum(-1)
        fit: Tensor = torch.linalg.vecdot(count, density.gather(1, bins))
        penalty: Tensor = torch.linalg.vecdot(count, inverse.gather(1, bins))
        power: Tensor = torch.linalg.vecdot(density, density)
        return scale * (scale * power - 2 * fit) + 2 / math.sqrt(2 * math.pi) * penalty

    def density(self, inverse: Tensor) -> Tensor:
        """Density (B, L) of all rows, not normalised."""
        return self._unscaled(inverse, None)

    def _unscaled(self, inverse: Tensor, rows: Tensor | None) -> Tensor:
        density = torch.empty_like(inverse)
        scale = inverse.square().mul_(-_HALF_LOG2_E)[:, None]
        chunks = self._chunks_of_all if rows is None else self._chunks(self.n_bins[rows])
        for chunk, most in chunks:
            bins, count = (
                values[chunk] if rows is None else values.index_select(0, rows[chunk])
                for values in (self.bin, self.count)
            )
            bins, count = bins[:, :most, None], count[:, None, :most]
            exponent = (self.cells - bins).square_().mul_(scale[chunk])
            # exp is slow where its result is almost zero; exp2 is not.
            kernel = F.threshold(exponent, _LEAST_EXPONENT, -math.inf, inplace=True).exp2_()
            torch.bmm(count, kernel, out=density[chunk, None])
        return density.mul_(inverse)

    @cached_property
    def _chunks_of_all(self) -> list[tuple[slice, int]]:
        return list(self._chunks(self.n_bins))

    def _chunks(self, n_bins: Tensor) -> Iterator[tuple[slice, int]]:
        """Slices of rows whose kernels fit into a cache, and the most bins among them.

        Args:
            n_bins: (R,) occupied bins of each row.
        """
        limit = _CUDA_KERNELS if n_bins.is_cuda else _CPU_KERNELS
        number = torch.div(n_bins.cumsum(0) * len(self.cells), limit, rounding_mode="floor")
        _, sizes = torch.unique_consecutive(number, return_counts=True)
        start = 0
        for sizes_of_chunk in torch.split(n_bins, sizes.tolist()):
            stop = start + len(sizes_of_chunk)
            yield slice(start, stop), int(sizes_of_chunk.amax())
            start = stop
