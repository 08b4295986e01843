"""The balloon estimator (Terrell and Scott, Ann. Statist. 20, 1992) on histograms.

The density at a point is the sum of all samples' Gaussians of the bandwidth at that point. Step 6
of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3), second part: that
density and its cost.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from itertools import accumulate

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
        self._n_samples = counts.sum(-1)
        # Most bins are empty. The occupied ones come first, and only they enter the sums:
        # [0, 3, 0, 1] < counts
        # [1, 3, 0, 2], [3, 1, 0, 0] < bins and their counts, of which the first two are used
        occupied = counts > 0
        n_bins = occupied.sum(-1)
        self._bins = occupied.byte().argsort(dim=-1, descending=True, stable=True)
        self._bins = self._bins[:, : int(n_bins.amax())]
        self._counts = counts.gather(1, self._bins)
        self._cells = torch.arange(counts.shape[1], device=counts.device, dtype=counts.dtype)
        # Rows whose kernels fit into a cache, and the most bins among them.
        limit = _CUDA_KERNELS if counts.is_cuda else _CPU_KERNELS
        number = torch.div(n_bins.cumsum(0) * counts.shape[1], limit, rounding_mode="floor")
        sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
        chunks = [slice(end - n, end) for n, end in zip(sizes, accumulate(sizes), strict=True)]
        self._chunks = [(chunk, int(n_bins[chunk].amax())) for chunk in chunks]

    def density(self, inverse: Tensor) -> Tensor:
        """Densities (B, L) at these inverse bandwidths (B, L), not normalised."""
        density = torch.empty_like(inverse)
        scale = inverse.square().mul_(-_HALF_LOG2_E)[:, None]
        for chunk, most in self._chunks:
            bins, counts = self._bins[chunk, :most, None], self._counts[chunk, None, :most]
            exponent = (self._cells - bins).square_().mul_(scale[chunk])
            # exp is slow where its result is almost zero; exp2 is not.
            kernel = F.threshold(exponent, _LEAST_EXPONENT, -math.inf, inplace=True).exp2_()
            torch.bmm(counts, kernel, out=density[chunk, None])
        return density.mul_(inverse)

    def cost(self, density: Tensor, inverse: Tensor) -> Tensor:
        """Costs (B,) of the densities at these inverse bandwidths."""
        scale = self._n_samples / density.sum(-1)
        fit: Tensor = torch.linalg.vecdot(self._counts, density.gather(1, self._bins))
        penalty: Tensor = torch.linalg.vecdot(self._counts, inverse.gather(1, self._bins))
        power: Tensor = torch.linalg.vecdot(density, density)
        return scale * (scale * power - 2 * fit) + 2 / math.sqrt(2 * math.pi) * penalty
