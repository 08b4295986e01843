r"""Adaptive-bandwidth kernel density estimates of many rows at once.

The estimator is the locally adaptive one of Shimazaki and Shinomoto ("Kernel bandwidth optimization
in spike rate estimation", J. Comput. Neurosci. 29, 2010), with the conventions of the program that
the authors of ADVISE used. Every step works on all rows together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from captum_advise._utils.checks import check_count, check_real
from captum_advise.density._engine import engine_for


class AdaptiveKDE(NamedTuple):
    """Result of :func:`adaptive_kde`.

    Attributes:
        density: (..., L) float64, integrates to one over the working grid.
        bandwidth: (..., L) float64, the Gaussian's standard deviation at each grid point, in the
            units of the grid.

    Example::

        >>> density, bandwidth = adaptive_kde(torch.rand(3, 50), torch.linspace(0, 1, 50))
        >>> density.shape, density.dtype
        (torch.Size([3, 50]), torch.float64)
    """

    density: Tensor
    bandwidth: Tensor


def adaptive_kde(samples: Tensor, grid: Tensor, *, n_bandwidths: int = 80) -> AdaptiveKDE:
    r"""Estimate the density of each row of samples with a bandwidth that adapts to the position.

    Implements the variable-bandwidth estimator of Shimazaki and Shinomoto (2010), section 2.3. It
    has local costs of ``n_bandwidths`` fixed bandwidths, and windows whose width a stiffness ties
    to the bandwidth. The bandwidths are smoothed (Nadaraya-Watson) and used by a balloon estimator
    (Terrell and Scott, Ann. Statist. 20, 1992). A golden-section search finds the stiffness of
    least cost. Rows are independent of each other. Arithmetic is float64.

    On a CPU, compiled kernels estimate the densities if the extra ``fast`` (numba) is installed,
    and torch otherwise; both give the same densities. On more than 256 points, time grows with
    their number in the kernels, which cut Gaussians off below 1e-16 of their maximum. In torch it
    grows with the square of their number.

    Args:
        samples: (..., n) real numbers. Those outside the grid's range, and NaN, are left out.
        grid: (L,) increasing, equally spaced points, at least two.
        n_bandwidths: Number of candidate bandwidths, at least two.

    Returns:
        :class:`AdaptiveKDE` with ``density`` and ``bandwidth``, both (..., L). A row is NaN where
        the estimate is undefined: with fewer than two samples inside the grid, with none in a bin,
        or with samples so far apart that one point is left of the working grid.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The grid is not increasing and equally spaced, or an argument is out of range.

    Example::

        >>> samples = torch.cat([torch.linspace(0.1, 0.3, 40), torch.linspace(0.7, 0.9, 40)])
        >>> grid = torch.linspace(0, 1, 80, dtype=torch.float64)
        >>> estimate = adaptive_kde(samples, grid)
        >>> estimate.density.shape, int(count_modes(estimate.density))
        (torch.Size([80]), 2)
    """
    grid = _checked_grid(samples, grid)
    check_count("n_bandwidths", n_bandwidths, at_least=2)
    span = float(grid[-1] - grid[0])
    estimate, engine_device = engine_for(samples.device, len(grid))
    grid = grid.to(engine_device)
    rows = samples.detach().to(grid).reshape(math.prod(samples.shape[:-1]), samples.shape[-1])
    density, bandwidth = estimate(rows, grid, span, n_bandwidths).to(samples.device)
    shape = (*samples.shape[:-1], len(grid))
    return AdaptiveKDE((density / span).view(shape), (bandwidth * span).view(shape))


def _checked_grid(samples: Tensor, grid: Tensor) -> Tensor:
    check_real(samples=samples, grid=grid)
    if samples.dim() == 0:
        raise ValueError("samples must have at least one dimension, got a single number.")
    if grid.dim() != 1 or len(grid) < 2:
        raise ValueError(f"grid must be (L,) with at least two points, got {tuple(grid.shape)}.")
    is_rounded = grid.is_floating_point() and grid.dtype != torch.float64
    epsilon = torch.finfo(grid.dtype).eps if is_rounded else 0.0
    grid = grid.detach().to(torch.float64)
    steps = grid.diff()
    tolerance = 1e-3 * steps.mean() + 4 * epsilon * grid.abs().amax()
    if not bool((steps > 0).all()) or bool(steps.max() - steps.min() > tolerance):
        raise ValueError("grid must be increasing and equally spaced, as torch.linspace makes it.")
    if is_rounded:
        # Histograms take the smallest step, which rounding would decide.
        first, last = grid[0].item(), grid[-1].item()
        grid = torch.linspace(first, last, len(grid), dtype=torch.float64, device=grid.device)
    return grid
