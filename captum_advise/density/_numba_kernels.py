"""The density of one histogram after another, as machine code for CPUs (numba).

The same steps as in ``_local_costs``, ``_windows``, ``_balloon`` and ``_stiffness_search``, which
remain the reference. Every row is computed alone and always in the same order, so its result does
not depend on other rows or on threads.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one. Row arrays are
padded with zeros to a multiple of eight points, because loops take eight steps at once.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from captum_advise.density._local_costs import NARROW
from captum_advise.density._numba_scale_space import (
    LARGEST_REACH,
    build_pyramid,
    dot,
    gaussian_around,
    level_of,
    pyramid_layout,
    rest_of,
)
from captum_advise.density._stiffness_search import BRACKET, COST_ROUNDING, GOLDEN, LOW, MAX_STEPS

# Sums may be reordered, but NaN and infinity keep their meaning.
_FAST_MATH = {"contract", "nsz", "reassoc"}
# On longer grids, Gaussians are applied in scale space and cut off where they are negligible.
LONGEST_DIRECT = 256
# Up to here the whole grid is summed, wherever its samples lie.
_FEW_POINTS = 100
# Signals that one matrix product takes: larger products would start threads of their own.
_SIGNALS = 10
# Up to here ten terms of the series of exp are exact to rounding.
_LONGEST_SERIES = 0.0625
_PENALTY = 2 / math.sqrt(2 * math.pi)


@njit(nogil=True, cache=True)
def estimate_rows(counts, lengths, windows, segment, first, last, density, bandwidth):
    """Fill rows ``first`` to ``last`` - 1 of ``density`` and ``bandwidth``, both (B, L).

    Args:
        counts: (B, L) histograms, zero after the end of a row's grid.
        lengths: (B,) points of each row's grid, in order.
        windows: (S, M) candidate bandwidths.
        segment: (B,) the row of ``windows`` for each row.
        first: Number of the first row.
        last: Number of the row after the last one.
        density: Result, per span of the grid.
        bandwidth: Result, likewise.
    """
    current = -1
    matrices = np.empty((0, 0, 0, 0))
    steps = np.empty((0, 0))
    for row in range(first, last):
        length = lengths[row]
        widths = windows[segment[row]]
        if length != current:
            current = length
            steps = _cumulative_gaussians(widths, length)
            if length <= LONGEST_DIRECT:
                matrices = _smoothing_matrices(widths, length)
        histogram = counts[row, :length].copy()
        if length <= LONGEST_DIRECT:
            optimal = _optimal_bandwidths(histogram, widths, matrices)
        else:
            optimal = _optimal_bandwidths_of_long_grid(histogram, widths)
        values, inverse = density[row, :length], bandwidth[row, :length]
        _search(histogram, widths, optimal, steps, values, inverse)
        total = values.sum()
        for k in range(length):
            values[k] *= (length - 1) / total
            inverse[k] = 1 / (inverse[k] * (length - 1))


# Local costs (steps 4 and 5)


@njit(nogil=True, cache=True)
def _circle(length, width):
    """Points of the circle on which a window smooths a grid of this length."""
    points = 1
    while points < length + 3 * width:
        points *= 2
    return points


@njit(nogil=True, cache=True)
def _smoothing_kernel(width, length):
    """A window's Gaussian on its circle, at distances from zero up."""
    kernel = np.zeros(length)
    circle = _circle(length, width)
    for distance in range(length):
        value = 0.0
        if width >= NARROW:
            for turn in range(-3, 4):
                value += math.exp(-0.5 * ((distance + turn * circle) / width) ** 2)
            value /= math.sqrt(2 * math.pi) * width
        else:
            # The circle's highest frequency matters to narrow windows, on tiny grids only.
            for frequency in range(-(circle // 2) + 1, circle // 2 + 1):
                angle = 2 * math.pi * frequency / circle
                value += math.exp(-0.5 * (angle * width) ** 2) * math.cos(angle * distance)
            value /= circle
        kernel[distance] = value
    return kernel


@njit(nogil=True, cache=True)
def _smoothing_matrices(widths, length):
    """What smooths the even and the odd part of a signal with each window, (M, 2, H, H).

    A symmetric Toeplitz matrix keeps even signals even and odd ones odd: two products with
    matrices of half the side do the work of one.
    """
    half = (length + 1) // 2
    matrices = np.empty((len(widths), 2, half, half))
    for i in range(len(widths)):
        kernel = _smoothing_kernel(widths[i], length)
        for m in range(half):
            for k in range(half):
                near, far = kernel[abs(m - k)], kernel[length - 1 - m - k]
                matrices[i, 0, m, k] = (near + far) / 2
                matrices[i, 1, m, k] = (near - far) / 2
    return matrices


@njit(nogil=True, cache=True)
def _fold(values, even, odd):
    """The even and the odd part (H,) of a signal. Its middle counts once."""
    length = len(values)
    for k in range(len(even)):
        first = values[k]
        second = values[length - 1 - k] if k < length // 2 else 0.0
        even[k] = first + second
        odd[k] = first - second


@njit(nogil=True, cache=True)
def _smooth(matrices, even, odd, smooth_even, smooth_odd):
    """Smooth folded signals (M, H)."""
    for first in range(0, len(even), _SIGNALS):
        last = first + _SIGNALS
        np.dot(even[first:last], matrices[0], smooth_even[first:last])
        np.dot(odd[first:last], matrices[1], smooth_odd[first:last])


@njit(nogil=True, cache=True, fastmath={"contract"})
def _local_cost(counts, smoothed, width, cost):
    penalty = _PENALTY / width
    for k in range(len(counts)):
        cost[k] = smoothed[k] * smoothed[k] - 2 * counts[k] * smoothed[k] + counts[k] * penalty


@njit(nogil=True, cache=True)
def _keep_less(values, number, least, best):
    for k in range(len(least)):
        if values[k] < least[k]:
            least[k] = values[k]
            best[k] = number


@njit(nogil=True, cache=True, fastmath={"contract"})
def _keep_less_of_parts(even, odd, number, least, best):
    """:func:`_keep_less` for the first half, and for the second one from its end."""
    for k in range(len(best[0])):
        value = even[k] + odd[k]
        if value < least[0, k]:
            least[0, k] = value
            best[0, k] = number
        value = even[k] - odd[k]
        if value < least[1, k]:
            least[1, k] = value
            best[1, k] = number


@njit(nogil=True, cache=True)
def _optimal_bandwidths(counts, widths, matrices):
    """The number (M, L) of the bandwidth of least cost around each point, for each window."""
    n_windows, length = len(widths), len(counts)
    half = (length + 1) // 2
    even, odd = np.empty((n_windows, half)), np.empty((n_windows, half))
    smooth_even, smooth_odd = np.empty((n_windows, half)), np.empty((n_windows, half))
    _fold(counts, even[0], odd[0])
    for j in range(n_windows):
        _smooth(matrices[j], even[:1], odd[:1], smooth_even[j : j + 1], smooth_odd[j : j + 1])
    smoothed, cost = np.empty(length), np.empty(length)
    for j in range(n_windows):
        for k in range(length // 2):
            smoothed[length - 1 - k] = smooth_even[j, k] - smooth_odd[j, k]
        for k in range(half):
            smoothed[k] = smooth_even[j, k] + smooth_odd[j, k]
        _local_cost(counts, smoothed, widths[j], cost)
        _fold(cost, even[j], odd[j])
    best = np.zeros((n_windows, length), dtype=np.int16)
    least, number = np.empty((2, half)), np.empty((2, half), dtype=np.int16)
    for i in range(n_windows):
        _smooth(matrices[i], even, odd, smooth_even, smooth_odd)
        least[:] = math.inf
        number[:] = 0
        for j in range(n_windows):
            _keep_less_of_parts(smooth_even[j], smooth_odd[j], j, least, number)
        best[i, :half] = number[0]
        for k in range(length // 2):
            best[i, length - 1 - k] = number[1, k]
    return best


@njit(nogil=True, cache=True)
def _smooth_long(levels, layout, length, width, out):
    """Smooth signals (J, ...) in scale space with one window on its circle, into (J, length)."""
    level = level_of(width, len(layout))
    start, size, origin, stride = layout[level]
    rest, reach = rest_of(width, level)
    scale = 1 / (math.sqrt(2 * math.pi) * rest)
    circle = _circle(length, width)
    weights = np.empty(2 * reach + 1)
    out[:] = 0.0
    for turn in range(-2, 3):
        for k in range(length):
            place = (k + turn * circle) / stride + origin
            middle = round(place)
            low, high = max(middle - reach, 0), min(middle + reach, size - 1)
            if high < low:
                continue
            gaussian_around(place - middle, rest, reach, weights)
            used = weights[low - middle + reach : high - middle + reach + 1]
            for j in range(len(levels)):
                out[j, k] += scale * dot(levels[j, start + low : start + high + 1], used)


@njit(nogil=True, cache=True)
def _optimal_bandwidths_of_long_grid(counts, widths):
    n_windows, length = len(widths), len(counts)
    layout = pyramid_layout(length, widths.max())
    one = build_pyramid(counts.reshape(1, length), layout)
    costs = np.empty((n_windows, length))
    smoothed = np.empty((1, length))
    for j in range(n_windows):
        _smooth_long(one, layout, length, widths[j], smoothed)
        _local_cost(counts, smoothed[0], widths[j], costs[j])
    levels = build_pyramid(costs, layout)
    best = np.zeros((n_windows, length), dtype=np.int16)
    every = np.empty((n_windows, length))
    least = np.empty(length)
    for i in range(n_windows):
        _smooth_long(levels, layout, length, widths[i], every)
        least[:] = math.inf
        for j in range(n_windows):
            _keep_less(every[j], j, least, best[i])
    return best


# Windows at a stiffness, and the smoothed bandwidth (step 6)


@njit(nogil=True, cache=True)
def _cumulative_gaussians(widths, length):
    """Sums of each window's Gaussian over the cells from -length up to j - length, (M, 2 L + 1)."""
    sums = np.empty((len(widths), 2 * length + 1))
    for i in range(len(widths)):
        _cumulative_gaussian(widths[i], length, sums[i])
    return sums


@njit(nogil=True, cache=True)
def _cumulative_gaussian(width, length, sums):
    total = 0.0
    for j in range(2 * length + 1):
        total += math.exp(-0.5 * ((j - length) / width) ** 2) / width
        sums[j] = total


@njit(nogil=True, cache=True)
def _ratios(optimal, widths):
    """For each window and point the greatest ratio of the windows from there on, and the least.

    A window qualifies at a point if the ratio of its optimal bandwidth to its width is at least
    the stiffness. The number of the last one is the number of running maxima that qualify.
    """
    n_windows, length = optimal.shape
    ceiling = np.empty((n_windows, length))
    floor = np.full(length, math.inf)
    for i in range(n_windows - 1, -1, -1):
        for k in range(length):
            ratio = widths[optimal[i, k]] / widths[i]
            floor[k] = min(floor[k], ratio)
            ceiling[i, k] = ratio if i == n_windows - 1 else max(ratio, ceiling[i + 1, k])
    return ceiling, floor


@njit(nogil=True, cache=True)
def _choose_windows(ceiling, floor, stiffness, choice):
    """The number of each point's window; the number of windows where the widest one is taken."""
    n_windows, length = ceiling.shape
    choice[:] = -1
    for i in range(n_windows):
        row = ceiling[i]
        for k in range(length):
            choice[k] += row[k] >= stiffness
    for k in range(length):
        if floor[k] >= stiffness:
            choice[k] = n_windows


@njit(nogil=True, cache=True, fastmath={"contract"})
def _add_run(rising, falling, width, mass, mean):
    """Add the Gaussians of a run of points that share a window."""
    for k in range(len(mass)):
        value = rising[k] - falling[k]
        mass[k] += value
        mean[k] += width * value


@njit(nogil=True, cache=True)
def _smooth_choice(choice, widths, steps, stiffness, own_steps, mass, mean):
    """Fill the sums of the Nadaraya-Watson mean of the chosen bandwidths around each point."""
    n_windows, length = len(widths), len(choice)
    own_width = widths.max() / stiffness
    if choice.max() == n_windows:
        _cumulative_gaussian(own_width, length, own_steps)
    mass[:] = 0.0
    mean[:] = 0.0
    start = 0
    while start < length:
        window = choice[start]
        stop = start + 1
        while stop < length and choice[stop] == window:
            stop += 1
        sums = own_steps if window == n_windows else steps[window]
        width = own_width if window == n_windows else widths[window]
        _add_run(sums[length - start :], sums[length - stop :], width, mass, mean)
        start = stop


@njit(nogil=True, cache=True)
def _differs(choice, other):
    different = 0
    for k in range(len(choice)):
        different |= choice[k] ^ other[k]
    return different != 0


# The balloon estimator and its cost (step 6)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _one_minus_first_ratio(inverse, less):
    """Fill 1 - exp(-inverse^2 / 2) without cancellation: by its series where that is short."""
    largest = 0.0
    for k in range(len(inverse)):
        x = 0.5 * inverse[k] * inverse[k]
        largest = max(largest, x)
        # Coefficients are 1 / (n + 1)!, signs alternate.
        tail = 1 / 5040 - x * (1 / 40320 - x * (1 / 362880 - x * (1 / 3628800)))
        tail = 1 / 6 - x * (1 / 24 - x * (1 / 120 - x * (1 / 720 - x * tail)))
        less[k] = x * (1 - x * (0.5 - x * tail))
    if largest > _LONGEST_SERIES:
        for k in range(len(inverse)):
            x = 0.5 * inverse[k] * inverse[k]
            if x > _LONGEST_SERIES:
                less[k] = -math.expm1(-x)


@njit(nogil=True, cache=True, fastmath=_FAST_MATH)
def _add_eight_distances(right, left, factor, ratio, decay, density):
    """Add the samples at the next eight distances, on both sides.

    A Gaussian at d + 1 cells is ``ratio`` times that at d; the ratio itself shrinks by ``decay``.
    """
    for k in range(len(factor)):
        q, r, c, f = factor[k], ratio[k], decay[k], density[k]
        for step in range(8):
            q *= r
            f += q * (right[k + step] + left[k + 7 - step])
            r -= r * c
        # Denormal numbers are slow on some processors.
        factor[k] = q if q > 1e-290 else 0.0
        ratio[k] = r
        density[k] = f


@njit(nogil=True, cache=True, fastmath=_FAST_MATH)
def _add_eight_samples(samples, factor, ratio, decay, density):
    """Add eight samples in a row, from the nearest one on, at points that lie before them."""
    for k in range(len(factor)):
        q, r, c, f = factor[k], ratio[k], decay[k], density[k]
        for step in range(8):
            f += q * samples[step]
            q *= r
            r -= r * c
        factor[k] = q if q > 1e-290 else 0.0
        ratio[k] = r
        density[k] = f


@njit(nogil=True, cache=True)
def _density_within(margined, inverse, factor, ratio, decay, density):
    """Density where samples lie; ``margined`` is their histogram with zeros on both sides."""
    length, margin = len(inverse), len(factor) + 8
    _one_minus_first_ratio(inverse, ratio)
    density[:length] = margined[margin : margin + length]
    for k in range(length):
        factor[k] = 1.0
        decay[k] = ratio[k] * (2.0 - ratio[k])
        ratio[k] = 1.0 - ratio[k]
    for first in range(margin + 1, margin + length, 8):
        right, left = margined[first:], margined[2 * margin - first - 7 :]
        _add_eight_distances(right, left, factor, ratio, decay, density)
    for k in range(length):
        density[k] *= inverse[k]


@njit(nogil=True, cache=True)
def _density_outside(samples, inverse, factor, ratio, decay, density):
    """Density at distances 1, 2, ... from the first of the samples, away from them."""
    _one_minus_first_ratio(inverse, ratio)
    for k in range(len(inverse)):
        square = inverse[k] * inverse[k]
        factor[k] = math.exp(-0.5 * square * (k + 1) * (k + 1))
        decay[k] = ratio[k] * (2.0 - ratio[k])
        ratio[k] = math.exp(-square * (k + 1.5))
        density[k] = 0.0
    for first in range(0, len(samples), 8):
        _add_eight_samples(samples[first : first + 8], factor, ratio, decay, density)
    for k in range(len(inverse)):
        density[k] *= inverse[k]


@njit(nogil=True, cache=True)
def _direct_density(samples, begin, end, inverse, factor, ratio, decay, padded, density):
    """Density on a short grid whose samples lie from ``begin`` to ``end`` - 1.

    Args:
        samples: Three histograms of that range: padded, padded in reverse, with margins.
        begin: Number of the first bin that has a sample.
        end: Number of the bin after the last one that has a sample.
        inverse: (L,) inverse of the bandwidth.
        factor: Temporary, as long as the grid or longer; likewise the next three.
        ratio: Temporary.
        decay: Temporary.
        padded: Temporary.
        density: (L,) result.
    """
    forward, backward, margined = samples
    n = len(forward)
    _density_within(margined, inverse[begin:end], factor[:n], ratio[:n], decay[:n], padded[:n])
    density[begin:end] = padded[: end - begin]
    if begin > 0:
        n = -(-begin // 8) * 8
        towards = inverse[:begin][::-1].copy()
        _density_outside(forward, towards, factor[:n], ratio[:n], decay[:n], padded[:n])
        density[:begin] = padded[:begin][::-1]
    if end < len(density):
        n = -(-(len(density) - end) // 8) * 8
        _density_outside(backward, inverse[end:], factor[:n], ratio[:n], decay[:n], padded[:n])
        density[end:] = padded[: len(density) - end]


@njit(nogil=True, cache=True)
def _long_density(levels, layout, inverse, density):
    weights = np.empty(2 * LARGEST_REACH + 1)
    for k in range(len(inverse)):
        width = 1 / inverse[k]
        level = level_of(width, len(layout))
        start, size, origin, stride = layout[level]
        rest, reach = rest_of(width, level)
        place = k / stride + origin
        middle = round(place)
        gaussian_around(place - middle, rest, reach, weights)
        low, high = max(middle - reach, 0), min(middle + reach, size - 1)
        used = weights[low - middle + reach : high - middle + reach + 1]
        density[k] = dot(levels[start + low : start + high + 1], used) / rest


@njit(nogil=True, cache=True, fastmath=_FAST_MATH)
def _cost(counts, density, inverse):
    """Cost of a density that is not yet scaled to the number of samples."""
    n_samples = total = power = fit = penalty = 0.0
    for k in range(len(inverse)):
        n_samples += counts[k]
        total += density[k]
        power += density[k] * density[k]
        fit += counts[k] * density[k]
        penalty += counts[k] * inverse[k]
    scale = n_samples / total
    return scale * (scale * power - 2 * fit) + _PENALTY * penalty


# The search (step 7)


@njit(nogil=True, cache=True)
def _occupied(counts):
    """The first bin that has a sample, and the bin after the last one.

    All bins where most lie between, or there are few: parting them would cost more than it saves.
    """
    begin, end = 0, len(counts)
    while end > begin + 1 and counts[end - 1] == 0:
        end -= 1
    while begin < end - 1 and counts[begin] == 0:
        begin += 1
    if 4 * (end - begin) > 3 * len(counts) or len(counts) < _FEW_POINTS:
        return 0, len(counts)
    return begin, end


@njit(nogil=True, cache=True)
def _search(counts, widths, optimal, steps, density, inverse):
    length, n_windows = len(counts), len(widths)
    is_long = length > LONGEST_DIRECT
    ceiling, floor = _ratios(optimal, widths)
    choice = np.empty(length, dtype=np.int16)
    earlier = np.full(length, -1, dtype=np.int16)
    own_steps = np.empty(2 * length + 1)
    mass, mean = np.empty(length), np.empty(length)
    if is_long:
        layout = pyramid_layout(length, widths.max())
        levels = build_pyramid(counts.reshape(1, length), layout)
    else:
        # Points are padded to a multiple of eight, and eight distances are added at once.
        n_points = -(-length // 8) * 8
        # Arrays of their own: rows of one array would keep the compiler from using vectors.
        factor, ratio, decay = np.zeros(n_points), np.zeros(n_points), np.zeros(n_points)
        padded = np.zeros(n_points)
        begin, end = _occupied(counts)
        n_within = -(-(end - begin) // 8) * 8
        margined = np.zeros(3 * n_within + 16)
        forward, backward = margined[n_within + 8 : 2 * n_within + 8], np.zeros(n_within)
        forward[: end - begin] = counts[begin:end]
        backward[: end - begin] = counts[begin:end][::-1]
        samples = forward, backward, margined

    low, high = LOW, 1.0
    left = GOLDEN * low + (1 - GOLDEN) * high
    right = (1 - GOLDEN) * low + GOLDEN * high
    left_cost = right_cost = 0.0
    stiffness, is_left = left, True
    # Two evaluations to begin with, and one in each step.
    for step in range(MAX_STEPS + 2):
        if step == 1:
            stiffness, is_left = right, False
        elif step > 1:
            if high - low <= BRACKET * (left + right):
                break
            gain = right_cost - left_cost
            is_left = gain > COST_ROUNDING * max(abs(left_cost), abs(right_cost))
            if is_left:
                high, right, right_cost = right, left, left_cost
                left = stiffness = GOLDEN * low + (1 - GOLDEN) * high
            else:
                low, left, left_cost = left, right, right_cost
                right = stiffness = (1 - GOLDEN) * low + GOLDEN * high
        _choose_windows(ceiling, floor, stiffness, choice)
        widest = choice.max() == n_windows
        if widest and choice.min() == n_windows:
            inverse[:] = 1 / widths.max()
        else:
            # The Gaussian of the widest window alone depends on the stiffness.
            if widest or _differs(choice, earlier):
                _smooth_choice(choice, widths, steps, stiffness, own_steps, mass, mean)
                earlier[:] = choice
            for k in range(length):
                inverse[k] = mass[k] / (stiffness * mean[k])
        if is_long:
            _long_density(levels[0], layout, inverse, density)
        else:
            _direct_density(samples, begin, end, inverse, factor, ratio, decay, padded, density)
        cost = _cost(counts, density, inverse)
        if is_left:
            left_cost = cost
        else:
            right_cost = cost
