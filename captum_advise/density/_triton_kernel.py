"""The density of one histogram in each program of a GPU (Triton, from version 3.0 on).

The same steps as in ``_local_costs``, ``_windows``, ``_balloon`` and ``_stiffness_search``, which
remain the reference. Arithmetic is float64. Numbers that float32 cannot hold are constants of their
own, because a literal would be rounded. What one thread writes and another one reads goes through
``scratch``, with a barrier between.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import math

import triton
import triton.language as tl

from captum_advise.density import _stiffness_search as search

_GOLDEN = tl.constexpr(search.GOLDEN)
_REST = tl.constexpr(1 - search.GOLDEN)
_LOW = tl.constexpr(search.LOW)
_BRACKET = tl.constexpr(search.BRACKET)
_COST_ROUNDING = tl.constexpr(search.COST_ROUNDING)
_MOST_COSTS = tl.constexpr(search.MAX_STEPS + 2)
_HALF_LOG2_E = tl.constexpr(0.5 / math.log(2))
_PENALTY = tl.constexpr(2 / math.sqrt(2 * math.pi))
# Windows that are handled at once.
_GROUP = tl.constexpr(16)


@triton.jit(do_not_specialize=["n_windows", "n_distances"])
def density_kernel(
    counts,
    bins,
    lengths,
    n_bins,
    windows,
    kernels,
    scratch,
    density,
    bandwidth,
    n_windows,
    n_distances,
    block: tl.constexpr,
    chunk: tl.constexpr,
    depth: tl.constexpr,
):
    """Fill a row of ``density`` and ``bandwidth``, both per span of the grid.

    Args:
        counts: (R, block) histograms, zero after the end of a row's grid.
        bins: int32 (R, block) numbers of bins, those that have a sample first.
        lengths: int32 (R,) points of each row's grid; rows with less than two are left out.
        n_bins: int32 (R,) bins of each row that have a sample.
        windows: (lengths, M) candidate bandwidths on grids of each length.
        kernels: (lengths, M, n_distances) their Gaussians at distances from zero up, on the circle.
        scratch: (R, 2 M + 2, block).
        density: (R, block) result.
        bandwidth: (R, block) result.
        n_windows: M.
        n_distances: At least the length of the longest grid.
        block: A power of two, at least the length of the longest grid.
        chunk: A power of two: points whose Gaussians are added at once.
        depth: A power of two: points that are smoothed at once.
    """
    row = tl.program_id(0)
    length = tl.load(lengths + row)
    if length < 2:
        return
    counts += row * block
    bins += row * block
    windows += length * n_windows
    kernels += length * n_windows * n_distances
    signals = scratch + row * (2 * n_windows + 2) * block
    ratios = signals + (n_windows + 1) * block
    _fold_costs(counts, windows, kernels, signals, length, n_windows, n_distances, block, depth)
    _fill_ratios(windows, kernels, signals, ratios, length, n_windows, n_distances, block, depth)

    point = tl.arange(0, block)
    # Steps 6 and 7. What was in ``signals`` is no longer needed.
    golden = tl.full((), _GOLDEN, tl.float64)
    rest = tl.full((), _REST, tl.float64)
    low = tl.full((), _LOW, tl.float64)
    high = tl.full((), 1.0, tl.float64)
    left = golden * low + rest * high
    right = rest * low + golden * high
    left_cost = tl.full((), 0.0, tl.float64)
    right_cost = tl.full((), 0.0, tl.float64)
    stiffness = left
    is_left = length > 0
    going = length > 0
    n_costs = 0
    mass = tl.full((block,), 0.0, tl.float64)
    mean = tl.full((block,), 0.0, tl.float64)
    chosen = tl.full((block,), -1, tl.int32)
    values = tl.full((block,), 0.0, tl.float64)
    inverse = tl.full((block,), 0.0, tl.float64)
    while going:
        mass, mean, chosen = _smoothed_bandwidths(
            windows, ratios, signals, length, n_windows, stiffness, mass, mean, chosen, block, chunk
        )
        inverse = tl.where(point < length, mass / (mean * stiffness), 0.0)
        values = _balloon(counts, bins, tl.load(n_bins + row), length, inverse, block, chunk)
        cost = _cost(counts, length, values, inverse, block)
        n_costs += 1
        left_cost = tl.where(is_left, cost, left_cost)
        right_cost = tl.where(is_left, right_cost, cost)
        if n_costs == 1:
            stiffness = right
            is_left = length < 0
        else:
            wide = high - low > tl.full((), _BRACKET, tl.float64) * (left + right)
            going = wide & (n_costs < _MOST_COSTS)
            largest = tl.maximum(tl.abs(left_cost), tl.abs(right_cost))
            rounding = tl.full((), _COST_ROUNDING, tl.float64) * largest
            is_left = right_cost - left_cost > rounding
            if is_left:
                high = right
                right = left
                right_cost = left_cost
                left = golden * low + rest * high
                stiffness = left
            else:
                low = left
                left = right
                left_cost = right_cost
                right = rest * low + golden * high
                stiffness = right

    cells = (length - 1).to(tl.float64)
    values = values / tl.sum(values, 0) * cells
    tl.store(density + row * block + point, values, mask=point < length)
    tl.store(bandwidth + row * block + point, 1 / (inverse * cells), mask=point < length)


# Local costs (steps 4 and 5). A signal of five points and what is kept of it:
# [1, 2, 3, 4, 5] < signal
# [1, 2, 3], [5, 4, 0] < its first half, and its second one from its end
# [6, 6, 3], [-4, -2, 3] < even and odd part, the sum and the difference of both
# A symmetric Toeplitz matrix keeps even signals even and odd ones odd.


@triton.jit
def _smooth(signals, kernels, length, block: tl.constexpr, depth: tl.constexpr):
    """Both halves (group, half_block) of smoothed signals, of which the parts are given.

    One of ``signals`` and ``kernels`` points to a group (group, 1, 1), the other one to one.
    """
    half_block: tl.constexpr = block // 2
    half = (length + 1) // 2
    k = tl.arange(0, half_block)[None, :, None]
    even = tl.full((_GROUP, half_block, depth), 0.0, tl.float64)
    odd = tl.full((_GROUP, half_block, depth), 0.0, tl.float64)
    for start in range(0, half, depth):
        m = start + tl.arange(0, depth)[None, None, :]
        inside = (k < half) & (m < half)
        near = tl.load(kernels + tl.abs(k - m), mask=inside, other=0.0)
        far = tl.load(kernels + (length - 1 - k - m), mask=inside, other=0.0)
        even += (near + far) * tl.load(signals + m, mask=m < half, other=0.0)
        odd += (near - far) * tl.load(signals + (half_block + m), mask=m < half, other=0.0)
    sum_even = tl.sum(even, 2)
    sum_odd = tl.sum(odd, 2)
    return (sum_even + sum_odd) / 2, (sum_even - sum_odd) / 2


@triton.jit
def _fold_costs(
    counts,
    windows,
    kernels,
    signals,
    length,
    n_windows,
    n_distances,
    block: tl.constexpr,
    depth: tl.constexpr,
):
    """Write the even and the odd part of each bandwidth's local cost to ``signals``."""
    half_block: tl.constexpr = block // 2
    k = tl.arange(0, half_block)[None, :]
    in_first, in_second = k < (length + 1) // 2, k < length // 2
    first = tl.load(counts + k, mask=in_first, other=0.0)
    second = tl.load(counts + (length - 1 - k), mask=in_second, other=0.0)
    folded = signals + n_windows * block
    tl.store(folded + k, first + second)
    tl.store(folded + (half_block + k), first - second)
    tl.debug_barrier()
    for start in range(0, n_windows, _GROUP):
        # The last group repeats the last window.
        j = tl.minimum(start + tl.arange(0, _GROUP), n_windows - 1)
        penalty = (tl.full((), _PENALTY, tl.float64) / tl.load(windows + j))[:, None]
        group = kernels + j[:, None, None] * n_distances
        f, s = _smooth(folded, group, length, block, depth)
        f = tl.where(in_first, f * f - 2 * first * f + first * penalty, 0.0)
        s = tl.where(in_second, s * s - 2 * second * s + second * penalty, 0.0)
        tl.store(signals + (j[:, None] * block + k), f + s)
        tl.store(signals + (j[:, None] * block + half_block + k), f - s)
    tl.debug_barrier()


@triton.jit
def _keep_least(costs, windows, j, least, best):
    """Least cost (half_block,) so far and its bandwidth, with a group of costs added."""
    lowest = tl.min(costs, 0)
    # The first bandwidth wins on ties.
    number = tl.min(tl.where(costs == lowest[None, :], j[:, None], 1 << 30), 0)
    width = tl.load(windows + number)
    return tl.minimum(least, lowest), tl.where(lowest < least, width, best)


@triton.jit
def _fill_ratios(
    windows,
    kernels,
    signals,
    ratios,
    length,
    n_windows,
    n_distances,
    block: tl.constexpr,
    depth: tl.constexpr,
):
    """Write (M + 1, block) to ``ratios``.

    For each window and point the greatest ratio of the optimal bandwidth to the window's width, of
    the windows from there on; then the least ratio of all windows.
    """
    half_block: tl.constexpr = block // 2
    k = tl.arange(0, half_block)
    in_first, in_second = k < (length + 1) // 2, k < length // 2
    greatest_first = tl.full((half_block,), 0.0, tl.float64)
    greatest_second = tl.full((half_block,), 0.0, tl.float64)
    floor_first = tl.full((half_block,), float("inf"), tl.float64)
    floor_second = tl.full((half_block,), float("inf"), tl.float64)
    for back in range(n_windows):
        i = n_windows - 1 - back
        least_first = tl.full((half_block,), float("inf"), tl.float64)
        least_second = tl.full((half_block,), float("inf"), tl.float64)
        best_first = tl.full((half_block,), 0.0, tl.float64)
        best_second = tl.full((half_block,), 0.0, tl.float64)
        for start in range(0, n_windows, _GROUP):
            # The last group repeats the last window: its first copy wins.
            j = tl.minimum(start + tl.arange(0, _GROUP), n_windows - 1)
            group = signals + j[:, None, None] * block
            first, second = _smooth(group, kernels + i * n_distances, length, block, depth)
            least_first, best_first = _keep_least(first, windows, j, least_first, best_first)
            least_second, best_second = _keep_least(second, windows, j, least_second, best_second)
        width = tl.load(windows + i)
        greatest_first = tl.maximum(greatest_first, best_first / width)
        greatest_second = tl.maximum(greatest_second, best_second / width)
        floor_first = tl.minimum(floor_first, best_first / width)
        floor_second = tl.minimum(floor_second, best_second / width)
        tl.store(ratios + (i * block + k), greatest_first, mask=in_first)
        tl.store(ratios + (i * block + length - 1 - k), greatest_second, mask=in_second)
    tl.store(ratios + (n_windows * block + k), floor_first, mask=in_first)
    tl.store(ratios + (n_windows * block + length - 1 - k), floor_second, mask=in_second)
    tl.debug_barrier()


# Windows at a stiffness, the smoothed bandwidth, the density and its cost (step 6)


@triton.jit
def _smoothed_bandwidths(
    windows,
    ratios,
    lines,
    length,
    n_windows,
    stiffness,
    mass,
    mean,
    chosen,
    block: tl.constexpr,
    chunk: tl.constexpr,
):
    """Sums of the Nadaraya-Watson mean of the chosen bandwidths, and the choice, all (block,).

    ``mass`` and ``mean`` are those of the choice ``chosen``: they are kept if it is made again.
    """
    point = tl.arange(0, block)
    inside = point < length
    reached = tl.full((block,), 0, tl.int32)
    for start in range(0, n_windows, _GROUP):
        i = start + tl.arange(0, _GROUP)[:, None]
        is_there = (i < n_windows) & inside[None, :]
        group = tl.load(ratios + (i * block + point[None, :]), mask=is_there, other=0.0)
        reached += tl.sum((group >= stiffness).to(tl.int32), 0)
    floor = tl.load(ratios + n_windows * block + point, mask=inside, other=0.0)
    # Points where every window qualifies take the widest bandwidth, in a window of its own, which
    # depends on the stiffness. On tiny grids the first bandwidth is the widest.
    is_own = floor >= stiffness
    choice = tl.where(is_own, n_windows + 1, reached)
    is_new = tl.max(((choice != chosen) | is_own).to(tl.int32), 0) > 0
    if is_new:
        widest = tl.maximum(tl.load(windows), tl.load(windows + n_windows - 1))
        width = tl.load(windows + (reached - 1), mask=inside & (reached > 0), other=1.0)
        width = tl.where(is_own, widest / stiffness, width)
        tl.debug_barrier()
        tl.store(lines + point, 1 / width)
        tl.debug_barrier()
        mass = tl.full((block,), 0.0, tl.float64)
        mean = tl.full((block,), 0.0, tl.float64)
        half_log2_e = tl.full((), _HALF_LOG2_E, tl.float64)
        for start in range(0, length, chunk):
            m = start + tl.arange(0, chunk)[None, :]
            inverse = tl.load(lines + m, mask=m < length, other=0.0)
            scaled = (point[:, None] - m).to(tl.float64) * inverse
            gaussian = tl.exp2(-half_log2_e * scaled * scaled)
            gaussian = tl.where(m < length, gaussian, 0.0)
            mass += tl.sum(gaussian * inverse, 1)
            mean += tl.sum(gaussian, 1)
    return mass, mean, choice


@triton.jit
def _balloon(counts, bins, n_bins, length, inverse, block: tl.constexpr, chunk: tl.constexpr):
    """Density (block,) of the histogram at these inverse bandwidths, not normalised."""
    point = tl.arange(0, block)
    scale = -tl.full((), _HALF_LOG2_E, tl.float64) * inverse * inverse
    density = tl.full((block,), 0.0, tl.float64)
    for start in range(0, n_bins, chunk):
        m = start + tl.arange(0, chunk)[None, :]
        place = tl.load(bins + m, mask=m < n_bins, other=0)
        count = tl.load(counts + place, mask=m < n_bins, other=0.0)
        distance = (point[:, None] - place).to(tl.float64)
        density += tl.sum(count * tl.exp2(scale[:, None] * distance * distance), 1)
    return tl.where(point < length, density * inverse, 0.0)


@triton.jit
def _cost(counts, length, density, inverse, block: tl.constexpr):
    """Cost of a density that is not yet scaled to the number of samples."""
    point = tl.arange(0, block)
    count = tl.load(counts + point, mask=point < length, other=0.0)
    scale = tl.sum(count, 0) / tl.sum(density, 0)
    fit = tl.sum(count * density, 0)
    penalty = tl.full((), _PENALTY, tl.float64) * tl.sum(count * inverse, 0)
    return scale * (scale * tl.sum(density * density, 0) - 2 * fit) + penalty
