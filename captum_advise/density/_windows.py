"""Windows and smoothed bandwidths at a given stiffness.

Step 6 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3), first part:
a stiffness chooses a window at every point, and the windows' bandwidths are smoothed.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_LOG2_E = 0.5 / math.log(2)


class WindowedBandwidths:
    """Nadaraya-Watson means of the bandwidths that a stiffness chooses, in all rows.

    A window qualifies at a point if the ratio of its optimal bandwidth to its width is at least the
    stiffness. The last window that qualifies is chosen. Its number is the number of windows whose
    running maximum of ratios, from the last window down, reaches the stiffness.

    Args:
        optimal: (B, M, L) from :func:`captum_advise.density._local_costs.optimal_bandwidths`.
        windows: (S, M) widths on the grids of each segment.
        segment: (B,) the segment of each row.
        lengths: (B,) points of each row's grid.
    """

    def __init__(self, optimal: Tensor, windows: Tensor, segment: Tensor, lengths: Tensor) -> None:
        length = optimal.shape[-1]
        cells = torch.arange(length, device=windows.device)
        # One row, three points, windows of 2, 4 and 8 cells:
        # [[2, 4, 8], [2, 2, 8], [2, 4, 8]] < widths of the optimal bandwidths
        # [[1, 2, 4], [.5, .5, 2], [.25, .5, 1]] < ratios
        # [[1, 2, 4], [.5, .5, 2], [.25, .5, 1]].max(from each window on) < ceiling
        # [.25, .5, 1] < floor
        # At a stiffness of 0.4, [2, 3, 3] windows are reached, and the widths are [4, own, own]:
        # points where every window qualifies take the widest bandwidth, in a window of 8 / 0.4.
        widths = windows[segment]
        ratios = widths.gather(1, optimal.flatten(1).long()).view(optimal.shape)
        ratios /= widths[:, :, None]
        self._floor = ratios.amin(1)
        for window in range(ratios.shape[1] - 2, -1, -1):
            torch.maximum(ratios[:, window], ratios[:, window + 1], out=ratios[:, window])
        self._ceiling = ratios
        self._widest = widths.amax(1)
        self._widths = windows.flatten()
        self._outside = cells >= lengths[:, None]
        self._weight = (~self._outside).to(windows)
        # Tables of Gaussians: those of the windows of each segment, then one for each row.
        self._before = (segment * windows.shape[1] - 1)[:, None]
        self._own = (windows.numel() + torch.arange(len(segment), device=windows.device))[:, None]
        self._distances = torch.arange(1 - length, length, device=windows.device).to(windows)
        self._tables = _gaussians(self._widths, self._distances)
        self._first = length - 1 - cells

    def inverse_at(self, stiffness: Tensor) -> Tensor:
        """One over the smoothed bandwidths (B, L) at each row's stiffness (B,), 0 off the grid."""
        least = stiffness[:, None]
        reached = (self._ceiling >= least[:, None]).sum(1)
        own_width = self._widest / stiffness
        which = torch.where(self._floor >= least, self._own, self._before + reached)
        width = torch.cat([self._widths, own_width])[which]
        tables = torch.cat([self._tables, _gaussians(own_width, self._distances)])

        # Point l adds to all points the part of its Gaussian's table that begins at distance -l.
        # One table, three points:
        # [g(-2), g(-1), g(0), g(1), g(2)] < table
        # [[g(0), g(1), g(2)], [g(-1), g(0), g(1)], [g(-2), g(-1), g(0)]] < parts of points 0, 1, 2
        length = len(self._first)
        parts = tables.flatten().as_strided((tables.numel() - length + 1, length), (1, 1))
        starts = which * tables.shape[1] + self._first
        mass, mean = (
            F.embedding_bag(starts, parts, mode="sum", per_sample_weights=weights)
            for weights in (self._weight, self._weight * width)
        )
        return (mass / (mean * least)).masked_fill(self._outside, 0.0)


def _gaussians(widths: Tensor, distances: Tensor) -> Tensor:
    """Gaussians (W, D) of these widths at some distances (D,), all of the same mass."""
    return torch.exp2(-_HALF_LOG2_E * (distances / widths[:, None]).square()) / widths[:, None]
