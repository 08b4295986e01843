"""ROAD's linear imputation: removed pixels as weighted means of their neighbours.

The linear system is solved by multigrid. Neighbours across an edge weigh twice as much as those
across a corner. Their average leaves a third of any fine detail, so it serves as the smoother. It
changes what is smooth by a third of the Laplacian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
# By the number of grids: one is solved exactly, and with few, a cycle visits the coarser ones less.
_CYCLES, _CYCLES_OF_MANY = {1: 1, 2: 4, 3: 4}, 3
_SWEEPS = 2  # before and after each visit of the coarser grid
_VISITS = 2  # of the coarser grid, in each cycle
# Up to this number of pixels, the system is solved with its inverse.
_DIRECT = 256


@torch.no_grad()
def impute(images: Tensor, known: Tensor) -> Tensor:
    """Replace unknown pixels by the weighted mean of their neighbours.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
    2022, without noise. Neighbours across an edge have the weight 1/6, those across a corner 1/12;
    at the border of the image the others count more.

    Images are (P, C, H, W); ``known``, bool (P, 1, H, W), holds at least one pixel of each. The
    distance to the exact solution is at most about 2% of the image's range.
    """
    n_images, channels, height, width = images.shape
    with torch.autocast(images.device.type, enabled=False):
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        # Images and channels as channels of one image in channels-last order: the images are the
        # innermost dimension, along which CPUs compute at once.
        values = _channels_last(values.permute(2, 3, 1, 0).reshape(height, width, -1))
        missing = _channels_last((~known[:, 0]).to(values.dtype).permute(1, 2, 0))
        grids = [_Grid.of(missing, channels)]
        while grids[-1].missing.shape[-2:].numel() > _DIRECT:
            grids.append(grids[-1].coarser())
        inverse = grids[-1].inverse()
        shown = values * (1 - grids[0].missing)
        solution = _first_guess(grids, shown, 1 - missing)
        for _ in range(_CYCLES.get(len(grids), _CYCLES_OF_MANY)):
            solution = _cycle(grids, inverse, solution, shown)
        solution = solution[0].view(channels, n_images, height, width).transpose(0, 1)
    return torch.where(known, images, solution.to(images.dtype))


@dataclass(frozen=True)
class _Grid:
    """The system on one grid: solution = gain * (sum of neighbours) + right side."""

    missing: Tensor  # (1, C*P, h, w) 1 where the solution is sought, 0 elsewhere
    gain: Tensor  # likewise: what makes a weighted mean of the sum of neighbours
    channels: int  # C, by which the P images are repeated

    @classmethod
    def of(cls, missing: Tensor, channels: int) -> _Grid:
        """The grid of missing pixels (1, P, h, w)."""
        ones = torch.ones_like(missing[:, :1])
        total = _sum_of_neighbours(ones)
        # An image of a single pixel has no neighbours.
        total = torch.where(total > 0, total, torch.ones_like(total))
        return cls(_repeat(missing, channels), _repeat(missing / total, channels), channels)

    @property
    def missing_once(self) -> Tensor:
        """``missing`` without repetitions, (1, P, h, w)."""
        return self.missing[:, : self.missing.shape[1] // self.channels]

    def coarser(self) -> _Grid:
        """The grid of half the size. Where any of four pixels is known, nothing is sought."""
        missing = -F.max_pool2d(-self.missing_once, 2, ceil_mode=True)
        return _Grid.of(missing, self.channels)

    def smooth(self, solution: Tensor, right_side: Tensor) -> Tensor:
        """Each missing pixel becomes the mean of its neighbours."""
        return torch.addcmul(right_side, _sum_of_neighbours(solution), self.gain)

    @property
    def total(self) -> Tensor:
        """The sum of the weights around missing pixels, and one elsewhere."""
        return self.gain.where(self.gain > 0, 1.0).reciprocal()

    def inverse(self) -> Tensor:
        """The inverse of the system of the missing pixels of each image, (P, h*w, h*w).

        Times the sums of weights the system is symmetric, and Cholesky's method applies. LU
        decompositions of batches are wrong in torch 2.14 after torch.set_num_threads.
        """
        size, n_pixels = self.missing.shape[-2:], self.missing.shape[-2:].numel()
        unit = torch.eye(n_pixels, dtype=self.gain.dtype, device=self.gain.device)
        neighbours = _sum_of_neighbours(unit.view(1, n_pixels, *size)).view(n_pixels, n_pixels)
        missing = self.missing_once.reshape(-1, n_pixels, 1)
        total = self.total[:, : len(missing)].reshape(-1, n_pixels)
        system = torch.diag_embed(total) - missing * neighbours * missing.mT
        return torch.cholesky_inverse(torch.linalg.cholesky(system))

    def solve(self, inverse: Tensor, right_side: Tensor) -> Tensor:
        """The exact solution."""
        _, _, height, width = right_side.shape
        known = right_side * (1 - self.missing)
        right_side = right_side * self.total + _sum_of_neighbours(known) * self.missing
        columns = right_side[0].reshape(self.channels, -1, height * width).permute(1, 2, 0)
        return _channels_last(
            torch.bmm(inverse, columns).permute(1, 2, 0).reshape(height, width, -1)
        )


def _cycle(grids: list[_Grid], inverse: Tensor, solution: Tensor, right_side: Tensor) -> Tensor:
    """One W-cycle."""
    grid, *coarser = grids
    if not coarser:
        return grid.solve(inverse, right_side)
    for _ in range(_SWEEPS):
        solution = grid.smooth(solution, right_side)
    # What one more sweep would change. The Laplacian of a grid with twice the spacing is four times
    # as large.
    residual = grid.smooth(solution, right_side).sub_(solution)
    rest = _halve(residual) * (4 * coarser[0].missing)
    correction = rest
    for _ in range(_VISITS if len(coarser) > 1 else 1):
        correction = _cycle(coarser, inverse, correction, rest)
    solution = torch.addcmul(solution, _enlarge(correction, solution), grid.missing)
    for _ in range(_SWEEPS):
        solution = grid.smooth(solution, right_side)
    return solution


def _first_guess(grids: list[_Grid], shown: Tensor, weight: Tensor) -> Tensor:
    """Unknown pixels as the mean of what is known nearby, from a pyramid of means.

    ``shown`` (1, C*P, h, w) and ``weight`` (1, P, h, w) are zero where pixels are unknown.
    """
    channels = grids[0].channels
    pyramid = [(shown, weight)]
    for _ in grids[1:]:
        pyramid.append((_halve(pyramid[-1][0]), _halve(pyramid[-1][1])))
    total = _repeat(pyramid[-1][1].sum((2, 3), keepdim=True), channels)
    guess = pyramid[-1][0].sum((2, 3), keepdim=True) / total
    for shown, weight in reversed(pyramid):
        is_known = weight > 0
        means = shown * _repeat(is_known / torch.where(is_known, weight, 1.0), channels)
        hole = _repeat((~is_known).to(shown.dtype), channels)
        guess = torch.addcmul(means, _enlarge(guess, shown), hole)
    return guess


def _sum_of_neighbours(values: Tensor) -> Tensor:
    """The weighted sum of the neighbours of each pixel, (1, K, h, w)."""
    count = values.shape[1]
    kernel = values.new_tensor(_WEIGHTS).expand(count, 1, 3, 3)
    return F.conv2d(values, kernel, padding=1, groups=count)


def _halve(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _enlarge(values: Tensor, like: Tensor) -> Tensor:
    """To the finer grid; a single value, to any grid.

    By exactly two, also where the finer grid's size is odd: its last cell is then half as large.
    """
    height, width = like.shape[-2:]
    size = (height, width)
    if values.shape[-2:].numel() > 1:
        size = (2 * values.shape[-2], 2 * values.shape[-1])
    larger = F.interpolate(values, size, mode="bilinear", align_corners=False)
    return larger[..., :height, :width]


def _repeat(values: Tensor, channels: int) -> Tensor:
    """Values (1, P, h, w) of images as (1, C*P, h, w), in channels-last order."""
    repeated = values[0].permute(1, 2, 0)[:, :, None].expand(-1, -1, channels, -1)
    return _channels_last(repeated.reshape(*values.shape[-2:], -1))


def _channels_last(values: Tensor) -> Tensor:
    """Values (h, w, K) as (1, K, h, w)."""
    return values.contiguous().permute(2, 0, 1)[None]
