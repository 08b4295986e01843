"""Windows and smoothed bandwidths at a given stiffness.

Step 6 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3), first part:
a stiffness chooses a window at every point, and the windows' bandwidths are smoothed.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.density._local_costs import index_type

_HALF_LOG2_E = 0.5 / math.log(2)


@dataclass(frozen=True)
class WindowChoices:
    """The window that each point takes at a stiffness (step 6).

    A window qualifies at a point if the ratio of its optimal bandwidth to its width is at least
    the stiffness. The ratios take few values, so the choice changes only at these levels.

    Attributes:
        levels: (B, K) the values that ratios below one take on a row's grid, in increasing order.
            Level K stands for all ratios from one up.
        ceiling: (M, B, L) the greatest level of the windows from each one on.
        floor: (B, L) the least level of all windows.
    """

    levels: Tensor
    ceiling: Tensor
    floor: Tensor

    @classmethod
    def of(cls, optimal: Tensor, windows: Tensor, segment: Tensor) -> WindowChoices:
        """From ``optimal`` bandwidths (M, B, L), ``windows`` (S, M) and rows' ``segment`` (B,)."""
        n_windows = len(optimal)
        ratio = windows[:, None, :] / windows[:, :, None]  # (S, window, optimal)
        levels = torch.where(ratio < 1, ratio, math.inf).flatten(1).sort(-1).values
        n_levels = levels.shape[1]
        level = torch.searchsorted(levels, ratio.flatten(1)).view_as(ratio)
        level = torch.where(ratio < 1, level, n_levels).to(index_type(n_levels + 1))

        # The optimal bandwidth's level, step by step, is much faster than a lookup. Unsigned
        # numbers wrap round, so negative steps are correct too.
        level = level[segment].permute(2, 1, 0)[..., None]  # (optimal, window, B, 1)
        rank = level[0].expand_as(optimal).contiguous()
        reached = torch.empty_like(optimal)
        for number in range(1, n_windows):
            torch.ge(optimal, number, out=reached)
            rank += reached.to(rank.dtype) * (level[number] - level[number - 1])
        floor = rank.amin(0)
        # The number of the last window that qualifies is the number of windows whose running
        # maximum, from the widest window down, reaches the stiffness.
        for window in range(n_windows - 2, -1, -1):
            torch.maximum(rank[window], rank[window + 1], out=rank[window])

        return cls(levels[segment], rank, floor)

    @cached_property
    def of_level(self) -> Tensor:
        """The number (B, K + 1) of the row's choice at each level; the same choice, one number."""
        n_rows, n_levels = self.levels.shape
        passed = torch.zeros(n_rows, n_levels + 1, dtype=torch.bool, device=self.levels.device)
        for ranks in (*self.ceiling, self.floor):
            passed.scatter_(1, ranks.long(), True)
        return passed.cumsum(1) - passed.long()

    def level(self, stiffness: Tensor) -> Tensor:
        """Levels (B,) below the stiffness (B,) of each row."""
        return torch.searchsorted(self.levels, stiffness[:, None]).squeeze(1)


@dataclass(frozen=True)
class SmoothedBandwidths:
    """Smoothed bandwidths of some rows at their stiffness.

    Attributes:
        inverse: (R, L) one over the bandwidth, or over the factor below; zero outside the grid.
        proportional: bool (R,), whether the bandwidth is the stiffness times a factor that depends
            on the choice of windows alone.
        repeats: bool (R,), whether ``inverse`` depends on the choice of windows alone.
    """

    inverse: Tensor
    proportional: Tensor
    repeats: Tensor


class Smoother:
    """Nadaraya-Watson means of the chosen windows around each point."""

    def __init__(
        self,
        choices: WindowChoices,
        windows: Tensor,
        segment: Tensor,
        lengths: Tensor,
        longest: int,
    ) -> None:
        cells = torch.arange(longest, device=windows.device)
        self.choices = choices
        self.windows = windows
        self.segment = segment
        self.widest = windows.amax(-1)[segment]
        self.inside = cells < lengths[:, None]
        self.is_padded = len(windows) > 1
        self.steps = _cumulative_gaussians(windows.view(-1), longest)

    def __call__(self, rows: Tensor, level: Tensor, stiffness: Tensor) -> SmoothedBandwidths:
        """The bandwidths of some rows (R,) at their level and stiffness (R,)."""
        n_windows = self.windows.shape[1]
        length = self.inside.shape[1]
        inside = self.inside.index_select(0, rows)
        reached, below = self._choice(rows, level)
        below &= inside
        all_below = (below | ~inside).all(1)
        mixed = below.any(1) & ~all_below

        # Points where every window qualifies take the widest bandwidth, in a window of its own.
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

        # A run of points with one window is a difference of two cumulative Gaussians: one that
        # steps up at its first point, and one that steps up after its last.
        row, edge = table.diff(dim=1).nonzero().T
        tables = torch.stack([table[row, edge + 1], table[row, edge]], 1).long()
        views = steps.view(-1).as_strided((steps.numel() - length + 1, length), (1, 1))
        first_steps = (tables * steps.shape[1] + (length - edge)[:, None]).view(-1)
        signs = steps.new_tensor([1.0, -1.0]).repeat(len(edge))
        starts = 2 * torch.searchsorted(row, torch.arange(len(rows), device=row.device))
        mass, mean = (
            F.embedding_bag(first_steps, views, starts, mode="sum", per_sample_weights=weights)
            for weights in (signs, signs * widths[tables.view(-1)])
        )
        inverse = mass.div_(mean.mul_(torch.where(mixed, stiffness, 1.0)[:, None]))
        inverse[all_below] = (1 / widest[all_below])[:, None]
        if self.is_padded:
            inverse.masked_fill_(~inside, 0.0)
        return SmoothedBandwidths(inverse, ~(mixed | all_below), ~mixed)

    def _choice(self, rows: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Number (R, L) of the last window that qualifies, from one up, and whether all do."""
        ceiling = self.choices.ceiling.index_select(1, rows)
        floor = self.choices.floor.index_select(0, rows)
        threshold = level.to(floor.dtype)[:, None]
        # A comparison into the operands' type is ten times faster than one into bool.
        reached = torch.ge(ceiling, threshold, out=torch.empty_like(ceiling))
        return reached.sum(0, dtype=floor.dtype), floor >= threshold


def _cumulative_gaussians(windows: Tensor, length: int) -> Tensor:
    """Sums of each window's Gaussian over the cells from -length up to j - length, (W, 2 L)."""
    cells = torch.arange(-length, length, device=windows.device, dtype=windows.dtype)
    return gaussians(windows, cells).cumsum(1)


def gaussians(widths: Tensor, distances: Tensor) -> Tensor:
    """Gaussians (W, D) of these widths at some distances (D,), all of the same mass."""
    return torch.exp2(-_HALF_LOG2_E * (distances / widths[:, None]).square()) / widths[:, None]
