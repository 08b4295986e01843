"""Sums of Gaussians on long grids, in time that grows with the length alone (numba).

A signal is smoothed and thinned out step by step: level p has every 2^p-th point of the signal
smoothed by a Gaussian of 1.8 * 2^p cells. A wider Gaussian is applied to the level that leaves a
small rest of its width. Both sums are trapezoidal rules for Gaussians that are wide compared with
the step, so their relative error is below 1e-13. Gaussians are cut off 8.6 standard deviations
from their centre, where they are below 1e-16 of their maximum.

numba keeps ``_numba_kernels`` compiled with these functions inside: after a change here, change
``_numba_kernels.py`` too, or delete ``__pycache__``.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import math

import numpy as np
from numba import njit

_CUT = 8.6
# Standard deviation of a level, in its own steps, and of the Gaussian between two levels.
_SMOOTHNESS = 1.8
_BETWEEN = _SMOOTHNESS * math.sqrt(3)
_FIRST = 2 * _SMOOTHNESS
_REACH_BETWEEN = math.ceil(_CUT * _BETWEEN)
_REACH_FIRST = math.ceil(_CUT * _FIRST)
# The least width, in steps of a level, that can be applied to it.
_LEAST_WIDTH = _SMOOTHNESS * math.sqrt(2)
# The most points on one side of a Gaussian at its level.
LARGEST_REACH = math.ceil(_CUT * 2 * _LEAST_WIDTH) + 1


@njit(nogil=True, cache=True)
def level_of(width, n_levels):
    """The coarsest level to which a Gaussian of this width can be applied."""
    level = 0
    while level + 1 < n_levels and width >= _LEAST_WIDTH * 2.0 ** (level + 1):
        level += 1
    return level


@njit(nogil=True, cache=True)
def pyramid_layout(length, widest):
    """For each level where it starts, its size, the place of position zero, and its step."""
    # 300 points, a Gaussian of 20 cells at most:
    # [[0, 300, 0, 1], [300, 183, 16, 2], [483, 121, 22, 4]] < layout
    # Level 1 begins with 16 points before position zero, which the Gaussian reaches.
    n_levels = level_of(widest, 64) + 1
    layout = np.zeros((n_levels, 4), dtype=np.int64)
    start, size, origin = 0, length, 0
    for level in range(n_levels):
        layout[level] = start, size, origin, 1 << level
        start += size
        reach = _REACH_BETWEEN if level else _REACH_FIRST
        margin = reach // 2 + 1
        end = (size - 1 - origin) // 2 + 1 + margin
        origin = (origin + 1) // 2 + margin
        size = origin + end + 1
    return layout


@njit(nogil=True, cache=True, fastmath={"contract"})
def build_pyramid(signals, layout):
    """All levels of signals (J, L), one after the other, (J, ...)."""
    n_signals = len(signals)
    last = layout[-1]
    levels = np.zeros((n_signals, last[0] + last[1]))
    for j in range(n_signals):
        for k in range(layout[0, 1]):
            levels[j, k] = signals[j, k]
    for level in range(1, len(layout)):
        below, below_size, below_origin, _ = layout[level - 1]
        start, size, origin, _ = layout[level]
        width = _BETWEEN if level > 1 else _FIRST
        reach = _REACH_BETWEEN if level > 1 else _REACH_FIRST
        kernel = np.empty(2 * reach + 1)
        for d in range(-reach, reach + 1):
            kernel[d + reach] = math.exp(-0.5 * (d / width) ** 2) / (math.sqrt(2 * math.pi) * width)
        for m in range(size):
            middle = 2 * (m - origin) + below_origin
            low, high = max(middle - reach, 0), min(middle + reach, below_size - 1)
            for j in range(n_signals):
                total = 0.0
                for n in range(low, high + 1):
                    total += levels[j, below + n] * kernel[n - middle + reach]
                levels[j, start + m] = total
    return levels


@njit(nogil=True, cache=True)
def rest_of(width, level):
    """Width of what is left to apply at a level, in its steps, and how far it reaches."""
    # 3 cells at level 0, 6 at level 1, 12 at level 2 < width
    # 3, 2.4, 2.4 < rest: 12 cells are 3 steps of level 2, and 3^2 = 1.8^2 + 2.4^2
    rest = width
    if level:
        scaled = width / 2.0**level
        rest = math.sqrt(scaled * scaled - _SMOOTHNESS * _SMOOTHNESS)
    return rest, math.ceil(_CUT * rest)


@njit(nogil=True, cache=True)
def gaussian_around(offset, rest, reach, values):
    """Fill exp(-(d - offset)^2 / 2 rest^2) for d from -reach to reach, without an exp for each."""
    inverse = 1 / (rest * rest)
    decay = -math.expm1(-inverse)
    first, tilt = math.exp(-0.5 * inverse), math.exp(offset * inverse)
    right, left = first * tilt, first / tilt
    upper = lower = math.exp(-0.5 * inverse * offset * offset)
    values[reach] = upper
    for d in range(1, reach + 1):
        upper *= right
        lower *= left
        right -= right * decay
        left -= left * decay
        values[reach + d] = upper
        values[reach - d] = lower


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})
def dot(values, weights):
    """Sum of products."""
    total = 0.0
    for m in range(len(weights)):
        total += values[m] * weights[m]
    return total
