"""Costs of a search on a GPU: of all rows, in operations whose shapes do not depend on data.

Nothing waits for the GPU, and no row is left out. There are fewer operations than on a CPU, and
more arithmetic: every point adds its own Gaussian.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._windows import WindowChoices, gaussians


class PointwiseCosts:
    """Costs at smoothed bandwidths; see :class:`captum_advise.density._stiffness_search.Costs`."""

    needs_all = True

    def __init__(
        self,
        choices: WindowChoices,
        windows: Tensor,
        segment: Tensor,
        lengths: Tensor,
        estimator: BalloonEstimator,
    ) -> None:
        length = len(estimator.cells)
        cells = torch.arange(length, device=windows.device)
        self._choices = choices
        self._estimator = estimator
        self._widths = windows.reshape(-1)
        self._widest = windows.amax(-1)[segment]
        self._outside = cells >= lengths[:, None]
        self._weight = (~self._outside).to(windows)
        # Tables of Gaussians: those of the windows of each segment, then one for each row.
        self._last = (segment * windows.shape[1] - 1)[:, None]
        self._own = (windows.numel() + torch.arange(len(segment), device=windows.device))[:, None]
        self._distances = torch.arange(1 - length, length, device=windows.device).to(windows)
        self._tables = gaussians(self._widths, self._distances)
        self._first = length - 1 - cells
        self._inverse: Tensor

    def at(self, stiffness: Tensor, side: Tensor, active: Tensor | None = None) -> Tensor:
        """As the protocol says; of all rows."""
        self._inverse = self._smoothed(stiffness)
        return self._estimator.cost(self._inverse)

    def inverse_bandwidth(self) -> Tensor:
        """As the protocol says."""
        return self._inverse

    def _smoothed(self, stiffness: Tensor) -> Tensor:
        """One over the Nadaraya-Watson mean of the chosen bandwidths around each point (B, L)."""
        threshold = self._choices.level(stiffness).to(self._choices.floor.dtype)[:, None]
        reached = (self._choices.ceiling >= threshold).sum(0)
        # Points where every window qualifies take the widest bandwidth, in a window of its own.
        own_width = self._widest / stiffness
        which = torch.where(self._choices.floor >= threshold, self._own, self._last + reached)
        tables = torch.cat([self._tables, gaussians(own_width, self._distances)])
        width = torch.cat([self._widths, own_width])[which]
        length = len(self._first)
        views = tables.view(-1).as_strided((tables.numel() - length + 1, length), (1, 1))
        starts = which * tables.shape[1] + self._first
        mass, mean = (
            F.embedding_bag(starts, views, mode="sum", per_sample_weights=weights)
            for weights in (self._weight, self._weight * width)
        )
        return (mass / (mean * stiffness[:, None])).masked_fill(self._outside, 0.0)
