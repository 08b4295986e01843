"""Densities of histograms at a given stiffness, and their costs.

Step 6 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): a stiffness
chooses a window at every point, the windows' bandwidths are smoothed, and the density at a point
is the sum of all samples' Gaussians of the bandwidth there.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.local_costs import index_type

_HALF_LOG2_E = 0.5 / math.log(2)
# Smaller powers of two would be denormal numbers, which processors compute with very slowly.
_LEAST_EXPONENT = {torch.float64: -1000.0, torch.float32: -125.0}
# Elements of the kernels that are computed at once: small enough to stay in a processor's cache.
_CPU_KERNELS = 1 << 17
_CUDA_KERNELS = 1 << 24


@dataclass(frozen=True)
class Choices:
    """Which window each point takes.

    A window is chosen at a point when the ratio of its favoured bandwidth to its width reaches
    the stiffness. The ratios take few values, the ``levels`` (B, K) of a row's grid in increasing
    order, so the choice changes only where the stiffness passes a level.

    ``ceiling`` (M, B, L) is the greatest level of the windows from one on, ``floor`` (B, L) the
    least level of all; K stands for all ratios from one up. ``of_level`` (B, K + 1) numbers the
    choices: levels between which a row's choice does not change share a number.
    """

    levels: Tensor
    ceiling: Tensor
    floor: Tensor
    of_level: Tensor

    @classmethod
    def of(cls, favoured: Tensor, windows: Tensor, segment: Tensor) -> Choices:
        """From ``favoured`` (M, B, L), the ``windows`` (S, M) tried and each row's ``segment``."""
        n_windows, n_rows, _ = favoured.shape
        ratio = windows[:, None, :] / windows[:, :, None]  # (S, window, favoured)
        levels = torch.where(ratio < 1, ratio, math.inf).flatten(1).sort(-1).values
        n_levels = levels.shape[1]
        level = torch.searchsorted(levels, ratio.flatten(1)).view_as(ratio)
        level = torch.where(ratio < 1, level, n_levels).to(index_type(n_levels + 1))

        # The favoured bandwidth's level, step by step: much faster than a lookup. Unsigned
        # numbers wrap round, so steps down are no matter.
        level = level[segment].permute(2, 1, 0)[..., None]  # (favoured, window, B, 1)
        rank = level[0].expand_as(favoured).contiguous()
        reached = torch.empty_like(favoured)
        for number in range(1, n_windows):
            torch.ge(favoured, number, out=reached)
            rank += reached.to(rank.dtype) * (level[number] - level[number - 1])
        floor = rank.amin(0)
        # The last window that reaches the stiffness: as many windows as have running maxima,
        # from the widest window down, that reach it.
        for window in range(n_windows - 2, -1, -1):
            torch.maximum(rank[window], rank[window + 1], out=rank[window])

        passed = torch.zeros(n_rows, n_levels + 1, dtype=torch.bool, device=favoured.device)
        for ranks in (*rank, floor):
            passed.scatter_(1, ranks.long(), True)
        return cls(levels[segment], rank, floor, passed.cumsum(1) - passed.long())

    def level(self, stiffness: Tensor) -> Tensor:
        """Levels (B,) below the stiffness (B,) of each row."""
        return torch.searchsorted(self.levels, stiffness[:, None]).squeeze(1)


@dataclass(frozen=True)
class Bandwidths:
    """Smoothed bandwidths (R, L) of some rows at their stiffness, inverted; zero off the grid.

    Where ``proportional`` (R,), the bandwidth is the stiffness times a factor that depends on the
    choice of windows alone, whose inverse ``inverse`` is; where ``repeats`` (R,), the choice alone
    decides the bandwidth.
    """

    inverse: Tensor
    proportional: Tensor
    repeats: Tensor


class Smoother:
    """Nadaraya-Watson means of chosen bandwidths around each point."""

    def __init__(
        self, choices: Choices, windows: Tensor, segment: Tensor, lengths: Tensor, longest: int
    ) -> None:
        cells = torch.arange(longest, device=windows.device)
        self.choices = choices
        self.windows = windows
        self.segment = segment
        self.widest = windows.amax(-1)[segment]
        self.inside = cells < lengths[:, None]
        self.is_padded = len(windows) > 1
        self.steps = _cumulative_gaussians(windows.view(-1), longest)

    def __call__(self, rows: Tensor, level: Tensor, stiffness: Tensor) -> Bandwidths:
        """For some rows (R,) at their level and stiffness (R,)."""
        n_windows = self.windows.shape[1]
        length = self.inside.shape[1]
        inside = self.inside.index_select(0, rows)
        reached, below = self._choice(rows, level)
        below &= inside
        all_below = (below | ~inside).all(1)
        mixed = below.any(1) & ~all_below

        # Points that reach no window's ratio take the widest bandwidth in a window of its own.
        widest = self.widest[rows]
        own_width = (widest / stiffness)[mixed]
        own = _cumulative_gaussians(own_width, length)
        steps = torch.cat([self.steps, own, own.new_zeros(1, own.shape[1])])
        widths = torch.cat([self.windows.view(-1), own_width, own.new_zeros(1)])
        outside = len(steps) - 1
        own_table = (len(self.steps) - 1 + mixed.cumsum(0)).int()
        table = reached.int() + (self.segment[rows] * n_windows - 1).int()[:, None]
        table = torch.where(below, own_table[:, None], table)
        if self.is_padded:
            table.masked_fill_(~inside, outside)
        table = F.pad(table, (1, 1), value=outside)

        # Each run of points with one window is a difference of two cumulative Gaussians, one
        # that steps up at its first point and one behind its last.
        row, edge = table.diff(dim=1).nonzero().T
        tables = torch.stack([table[row, edge + 1], table[row, edge]], 1).long()
        views = steps.view(-1).as_strided((steps.numel() - length + 1, length), (1, 1))
        places = (tables * steps.shape[1] + (length - edge)[:, None]).view(-1)
        signs = steps.new_tensor([1.0, -1.0]).repeat(len(edge))
        starts = 2 * torch.searchsorted(row, torch.arange(len(rows), device=row.device))
        mass, mean = (
            F.embedding_bag(places, views, starts, mode="sum", per_sample_weights=weights)
            for weights in (signs, signs * widths[tables.view(-1)])
        )
        inverse = mass.div_(mean.mul_(torch.where(mixed, stiffness, 1.0)[:, None]))
        inverse[all_below] = (1 / widest[all_below])[:, None]
        if self.is_padded:
            inverse.masked_fill_(~inside, 0.0)
        return Bandwidths(inverse, ~(mixed | all_below), ~mixed)

    def _choice(self, rows: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Number (R, L) of the last window that is reached, from one up, and whether all are."""
        ceiling = self.choices.ceiling.index_select(1, rows)
        floor = self.choices.floor.index_select(0, rows)
        threshold = level.to(floor.dtype)[:, None]
        # A comparison into the operands' type is an order of magnitude faster than into bool.
        reached = torch.ge(ceiling, threshold, out=torch.empty_like(ceiling))
        return reached.sum(0, dtype=floor.dtype), floor >= threshold


def _cumulative_gaussians(windows: Tensor, length: int) -> Tensor:
    """Sums of each window's Gaussian over the cells from -length up to j - length, (W, 2 L)."""
    cells = torch.arange(-length, length, device=windows.device, dtype=windows.dtype)
    bumps = torch.exp2(-_HALF_LOG2_E * (cells / windows[:, None]).square()) / windows[:, None]
    return bumps.cumsum(1)


class BalloonEstimator:
    """Sums of all samples' Gaussians at each point's bandwidth, in one precision.

    ``counts`` (B, L) are the rows' histograms.
    """

    def __init__(self, counts: Tensor, precision: torch.dtype) -> None:
        self.precision = precision
        self.n_samples = counts.sum(-1).to(precision)
        # Most bins are empty: the occupied ones come first, and only they are looked at.
        occupied = counts > 0
        self.n_bins = occupied.sum(-1)
        most = int(self.n_bins.amax())
        self.bin = occupied.byte().argsort(dim=-1, descending=True, stable=True)[:, :most]
        self.count = counts.gather(1, self.bin).to(precision)
        self.cells = torch.arange(counts.shape[1], device=counts.device, dtype=precision)

    def cost(self, inverse: Tensor, rows: Tensor) -> Tensor:
        """Cost (R,) of the density at these inverse bandwidths (R, L)."""
        inverse = inverse.to(self.precision)
        density = self._unscaled(inverse, rows)
        bins = self.bin.index_select(0, rows)
        count = self.count.index_select(0, rows)
        scale = self.n_samples.index_select(0, rows) / density.sum(-1)
        fit: Tensor = torch.linalg.vecdot(count, density.gather(1, bins))
        penalty: Tensor = torch.linalg.vecdot(count, inverse.gather(1, bins))
        power: Tensor = torch.linalg.vecdot(density, density)
        return scale * (scale * power - 2 * fit) + 2 / math.sqrt(2 * math.pi) * penalty

    def density(self, inverse: Tensor) -> Tensor:
        """Density (B, L) of all rows, not normalised."""
        return self._unscaled(inverse, torch.arange(len(inverse), device=inverse.device))

    def _unscaled(self, inverse: Tensor, rows: Tensor) -> Tensor:
        density = torch.empty_like(inverse)
        scale = inverse.square().mul_(-_HALF_LOG2_E)[:, None]
        least = _LEAST_EXPONENT[self.precision]
        for some, n_bins in self._chunks(rows):
            bins = self.bin.index_select(0, rows[some])[:, :n_bins, None]
            count = self.count.index_select(0, rows[some])[:, None, :n_bins]
            exponent = (self.cells - bins).square_().mul_(scale[some])
            # exp is slow where its result is next to nothing, exp2 is not.
            kernel = F.threshold(exponent, least, -math.inf, inplace=True).exp2_()
            torch.bmm(count, kernel, out=density[some, None])
        return density.mul_(inverse)

    def _chunks(self, rows: Tensor) -> Iterator[tuple[slice, int]]:
        """Places of ``rows`` whose kernels fit into a cache, and the most bins among them."""
        n_bins = self.n_bins.index_select(0, rows)
        limit = _CUDA_KERNELS if rows.is_cuda else _CPU_KERNELS
        number = torch.div(n_bins.cumsum(0) * len(self.cells), limit, rounding_mode="floor")
        _, sizes = torch.unique_consecutive(number, return_counts=True)
        start = 0
        for some in torch.split(n_bins, sizes.tolist()):
            yield slice(start, start + len(some)), int(some.amax())
            start += len(some)
