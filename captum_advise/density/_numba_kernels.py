"""The density of one histogram after another, as machine code for CPUs (numba).

The same steps as in ``_local_costs``, ``_windows``, ``_balloon`` and ``_stiffness_search``, which
remain the reference. Every row is computed alone and always in the same order, so its result does
not depend on other rows or on threads.

Positions and bandwidths are counted in *cells*: the step of a row's grid is one. Row arrays are
padded with zeros to a multiple of eight points, because loops take eight steps at once.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator, call-arg"
# mypy: disable-error-code="unreachable, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

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
# Signals that one matrix product takes, and its multiplications: larger products would start
# threads of their own.
_SIGNALS = 10
_LARGEST_PRODUCT = 1 << 18
# Up to here ten terms of the series of exp are exact to rounding.
_LONGEST_SERIES = 0.0625
_PENALTY = 2 / math.sqrt(2 * math.pi)
# The Gaussians of few bins are added one by one: where there is one for so many points, or fewer.
_PER_BIN = 4
_MINUS_HALF_LOG2_E = -0.5 / math.log(2)
_LN_2 = math.log(2)
_ROUNDING = 1.5 * 2.0**52
_C2, _C3, _C4, _C5, _C6, _C7 = (1 / math.factorial(n) for n in range(2, 8))
_C8, _C9, _C10, _C11, _C12 = (1 / math.factorial(n) for n in range(8, 13))


@njit(nogil=True, cache=True)
def estimate_rows(counts, lengths, windows, segment, first, last, density, bandwidth):
    """Fill rows ``first`` to ``last`` - 1 of ``density`` and ``bandwidth``, both (B, L).

    Those of long grids have a function of their own, so that others do not wait for its compiler.

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
    steps, kernels, matrices = np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0, 0, 0))
    for row in range(first, last):
        length = lengths[row]
        widths = windows[segment[row]]
        if length != current:
            current = length
            steps = _cumulative_gaussians(widths, length)
            kernels = _smoothing_kernels(widths, length)
            matrices = _smoothing_matrices(kernels, length)
        histogram = counts[row, :length].copy()
        optimal = _optimal_bandwidths(histogram, widths, kernels, matrices)
        results = density[row, :length], bandwidth[row, :length]
        _search(histogram, widths, optimal, steps, None, *results)


@njit(nogil=True, cache=True)
def estimate_long_rows(counts, lengths, windows, segment, first, last, density, bandwidth):
    """:func:`estimate_rows` on grids of more than ``LONGEST_DIRECT`` points."""
    current = -1
    steps = np.empty((0, 0))
    for row in range(first, last):
        length = lengths[row]
        widths = windows[segment[row]]
        if length != current:
            current = length
            steps = _cumulative_gaussians(widths, length)
        histogram = counts[row, :length].copy()
        layout = pyramid_layout(length, widths.max())
        levels = build_pyramid(histogram.reshape(1, length), layout)
        optimal = _optimal_bandwidths_of_long_grid(histogram, widths, levels, layout)
        results = density[row, :length], bandwidth[row, :length]
        _search(histogram, widths, optimal, steps, (levels[0], layout), *results)


# Signals


@njit(nogil=True, cache=True, fastmath={"contract"})
def _add(values, factor, total):
    for k in range(len(total)):
        total[k] += factor * values[k]


@njit(nogil=True, cache=True)
def _multiply(values, factors, products):
    for k in range(len(products)):
        products[k] = values[k] * factors[k]


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
def _smoothing_kernels(widths, length):
    """Each window's Gaussian on its circle, at distances from 1 - L to L - 1, (M, 2 L - 1)."""
    kernels = np.empty((len(widths), 2 * length - 1))
    for i in range(len(widths)):
        kernel = _smoothing_kernel(widths[i], length)
        for distance in range(length):
            kernels[i, length - 1 + distance] = kernel[distance]
            kernels[i, length - 1 - distance] = kernel[distance]
    return kernels


@njit(nogil=True, cache=True)
def _smoothing_matrices(kernels, length):
    """What smooths the even and the odd part of signals, (2, G, H, W).

    A symmetric Toeplitz matrix keeps even signals even and odd ones odd: two products with
    matrices of half the side do the work of one. The matrices of several windows stand side by
    side, as many as one product may take.
    """
    half = (length + 1) // 2
    n_windows = len(kernels)
    at_once = min(n_windows, max(1, _LARGEST_PRODUCT // (_SIGNALS * half * half)))
    matrices = np.zeros((2, -(-n_windows // at_once), half, at_once * half))
    for i in range(n_windows):
        kernel = kernels[i, length - 1 :]
        group, place = i // at_once, i % at_once * half
        for m in range(half):
            for k in range(half):
                near, far = kernel[abs(m - k)], kernel[length - 1 - m - k]
                matrices[0, group, m, place + k] = (near + far) / 2
                matrices[1, group, m, place + k] = (near - far) / 2
    return matrices


@njit(nogil=True, cache=True, fastmath={"contract"})
def _local_cost(counts, smoothed, width, cost):
    penalty = _PENALTY / width
    for k in range(len(counts)):
        cost[k] = smoothed[k] * smoothed[k] - 2 * counts[k] * smoothed[k] + counts[k] * penalty


@njit(nogil=True, cache=True)
def _fold(values, even, odd):
    """The even and the odd part (H,) of a signal. Its middle counts once."""
    length = len(values)
    for k in range(len(even)):
        first = values[k]
        second = values[length - 1 - k] if k < length // 2 else 0.0
        even[k] = first + second
        odd[k] = first - second


@njit(nogil=True, cache=True, fastmath={"contract"})
def _keep_less(even, odd, sign, number, least, best):
    """Note the number of signals ``even`` + ``sign`` * ``odd`` where they are the least so far."""
    for k in range(len(least)):
        value = even[k] + sign * odd[k]
        best[k] = number if value < least[k] else best[k]
        least[k] = value if value < least[k] else least[k]


@njit(nogil=True, cache=True)
def _optimal_bandwidths(counts, widths, kernels, matrices):
    """The number (M, L) of the bandwidth of least cost around each point, for each window."""
    n_windows, length = len(widths), len(counts)
    n_groups, half, n_columns = matrices.shape[1:]
    even, odd = np.empty((n_windows, half)), np.empty((n_windows, half))
    smoothed, cost = np.empty(length), np.empty(length)
    for j in range(n_windows):
        smoothed[:] = 0.0
        for k in range(length):
            if counts[k]:
                _add(kernels[j, length - 1 - k : 2 * length - 1 - k], counts[k], smoothed)
        _local_cost(counts, smoothed, widths[j], cost)
        _fold(cost, even[j], odd[j])
    best = np.zeros((n_windows, length), dtype=np.int16)
    smooth_even, smooth_odd = np.empty((n_windows, n_columns)), np.empty((n_windows, n_columns))
    # Arrays of their own: rows of one array would keep the compiler from using vectors.
    least, number = np.empty(n_columns), np.empty(n_columns)
    least_of_end, number_of_end = np.empty(n_columns), np.empty(n_columns)
    for group in range(n_groups):
        for first in range(0, n_windows, _SIGNALS):
            last = first + _SIGNALS
            np.dot(even[first:last], matrices[0, group], smooth_even[first:last])
            np.dot(odd[first:last], matrices[1, group], smooth_odd[first:last])
        least[:], least_of_end[:] = math.inf, math.inf
        number[:], number_of_end[:] = 0.0, 0.0
        for j in range(n_windows):
            _keep_less(smooth_even[j], smooth_odd[j], 1.0, float(j), least, number)
            _keep_less(smooth_even[j], smooth_odd[j], -1.0, float(j), least_of_end, number_of_end)
        start = group * (n_columns // half)
        for i in range(start, min(n_windows, start + n_columns // half)):
            place = (i - start) * half
            for k in range(half):
                best[i, length - 1 - k] = number_of_end[place + k]
                best[i, k] = number[place + k]
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
def _optimal_bandwidths_of_long_grid(counts, widths, one, layout):
    """:func:`_optimal_bandwidths` from the pyramid of the counts."""
    n_windows, length = len(widths), len(counts)
    costs = np.empty((n_windows, length))
    smoothed = np.empty((1, length))
    for j in range(n_windows):
        _smooth_long(one, layout, length, widths[j], smoothed)
        _local_cost(counts, smoothed[0], widths[j], costs[j])
    levels = build_pyramid(costs, layout)
    best = np.zeros((n_windows, length), dtype=np.int16)
    every = np.empty((n_windows, length))
    least, number = np.empty(length), np.empty(length)
    for i in range(n_windows):
        _smooth_long(levels, layout, length, widths[i], every)
        least[:] = math.inf
        number[:] = 0.0
        for j in range(n_windows):
            _keep_less(every[j], every[j], 0.0, float(j), least, number)
        for k in range(length):
            best[i, k] = number[k]
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
def _thresholds(optimal, widths):
    """For each point the stiffnesses up to which its windows are reached, (L, M + 2), falling.

    A window qualifies at a point if the ratio of its optimal bandwidth to its width is at least
    the stiffness. The last one that qualifies is chosen, so window i is reached up to the greatest
    ratio of the windows from there on; up to the least ratio of all, the widest bandwidth is taken.
    """
    n_windows, length = optimal.shape
    # Three windows, ratios 1.2, 0.7 and 0.8 at a point:
    # [1.2, 0.8, 0.8, 0.7, -1] < thresholds
    thresholds = np.empty((length, n_windows + 2))
    for k in range(length):
        ceiling, floor = 0.0, math.inf
        for i in range(n_windows - 1, -1, -1):
            ratio = widths[optimal[i, k]] / widths[i]
            ceiling, floor = max(ceiling, ratio), min(floor, ratio)
            thresholds[k, i] = ceiling
        thresholds[k, n_windows] = floor
        thresholds[k, n_windows + 1] = -1.0
    return thresholds


@njit(nogil=True, cache=True)
def _choose_windows(thresholds, stiffness, choice):
    """Move each point to its window; the number of windows where the widest one is taken.

    Returns:
        The stiffnesses between which no choice changes, the lower one left out.
    """
    # The first threshold is one or more, and no stiffness exceeds one.
    above, below = math.inf, -1.0
    for k in range(len(choice)):
        window = choice[k]
        while thresholds[k, window + 1] >= stiffness:
            window += 1
        while thresholds[k, window] < stiffness:
            window -= 1
        choice[k] = window
        above, below = min(above, thresholds[k, window]), max(below, thresholds[k, window + 1])
    return below, above


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


@njit(nogil=True, cache=True)
def _dense_density(margined, inverse, factor, ratio, decay, padded, density):
    """Density from many bins; ``margined`` is the histogram with zeros on both sides."""
    length, margin = len(inverse), len(factor) + 8
    _one_minus_first_ratio(inverse, ratio)
    for k in range(length):
        padded[k] = margined[margin + k]
        factor[k] = 1.0
        decay[k] = ratio[k] * (2.0 - ratio[k])
        ratio[k] = 1.0 - ratio[k]
    for first in range(margin + 1, margin + length, 8):
        right, left = margined[first:], margined[2 * margin - first - 7 :]
        _add_eight_distances(right, left, factor, ratio, decay, padded)
    _multiply(padded, inverse, density)


@intrinsic
def _bits_of(_context, number):
    """The 64 bits of a float, as an integer."""

    def generate(context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(number), generate


@intrinsic
def _float_of(_context, bits):
    """The float that has these 64 bits."""

    def generate(context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(bits), generate


@njit(nogil=True, cache=True, fastmath={"contract"})
def _powers_of_two(exponents):
    """Replace exponents of at most 0 by their powers of 2; those below 2^-1000 become 0.

    A function of the C library would take one number at a time: this loop takes eight.
    """
    for k in range(len(exponents)):
        exponent = max(exponents[k], -1000.0)
        # Adding a number of this size rounds, and leaves the integer in the last bits.
        rounded = exponent + _ROUNDING
        x = (exponent - (rounded - _ROUNDING)) * _LN_2
        # The series of exp: rounding is all that is left after 13 terms, as |x| < 0.35.
        square = x * x
        fourth = square * square
        first = 1 + x + square * (_C2 + _C3 * x)
        second = _C4 + _C5 * x + square * (_C6 + _C7 * x)
        third = _C8 + _C9 * x + square * (_C10 + _C11 * x + square * _C12)
        power = first + fourth * (second + fourth * third)
        scaled = _float_of(_bits_of(power) + (_bits_of(rounded) << 52))
        exponents[k] = scaled if exponents[k] > -1000.0 else 0.0


@njit(nogil=True, cache=True)
def _sparse_density(exponents, masses, inverse, square, gaussians, density):
    """Density from few bins; ``exponents`` (B, L) are those of Gaussians of one cell's width."""
    length = len(inverse)
    for k in range(length):
        square[k] = inverse[k] * inverse[k]
        density[k] = 0.0
    for b in range(len(masses)):
        _multiply(exponents[b], square, gaussians[b * length : (b + 1) * length])
    _powers_of_two(gaussians)
    for b in range(len(masses)):
        _add(gaussians[b * length : (b + 1) * length], masses[b], density)
    _multiply(density, inverse, density)


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
def _search(counts, widths, optimal, steps, pyramid, density, inverse):
    """Fill density and bandwidth, both per span of the grid. Only long grids have a pyramid."""
    length, n_windows = len(counts), len(widths)
    bins = np.flatnonzero(counts)
    is_sparse = len(bins) * _PER_BIN <= length
    thresholds = _thresholds(optimal, widths)
    choice = np.zeros(length, dtype=np.int64)
    own_steps = np.empty(2 * length + 1)
    mass, mean = np.empty(length), np.empty(length)
    # Points are padded to a multiple of eight, and eight distances are added at once.
    n_points = -(-length // 8) * 8
    # Arrays of their own: rows of one array would keep the compiler from using vectors.
    factor, ratio, decay = np.zeros(n_points), np.zeros(n_points), np.zeros(n_points)
    padded, margined = np.zeros(n_points), np.zeros(3 * n_points + 16)
    for k in range(length):
        margined[n_points + 8 + k] = counts[k]
    if pyramid is None and is_sparse:
        masses, gaussians = counts[bins], np.empty(len(bins) * length)
        exponents = np.empty((len(bins), length))
        for b in range(len(bins)):
            for k in range(length):
                exponents[b, k] = _MINUS_HALF_LOG2_E * (k - bins[b]) ** 2

    low, high = LOW, 1.0
    left = GOLDEN * low + (1 - GOLDEN) * high
    right = (1 - GOLDEN) * low + GOLDEN * high
    left_cost = right_cost = below = above = 0.0
    stiffness, is_left, has_widest = left, True, False
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
        is_changed = not below < stiffness <= above
        if is_changed:
            below, above = _choose_windows(thresholds, stiffness, choice)
            has_widest = choice.max() == n_windows
        if has_widest and choice.min() == n_windows:
            inverse[:] = 1 / widths.max()
        else:
            # The Gaussian of the widest window alone depends on the stiffness.
            if has_widest or is_changed:
                _smooth_choice(choice, widths, steps, stiffness, own_steps, mass, mean)
            for k in range(length):
                inverse[k] = mass[k] / (stiffness * mean[k])
        if pyramid is not None:
            _long_density(*pyramid, inverse, density)
        elif is_sparse:
            _sparse_density(exponents, masses, inverse, factor, gaussians, density)
        else:
            _dense_density(margined, inverse, factor, ratio, decay, padded, density)
        cost = _cost(counts, density, inverse)
        if is_left:
            left_cost = cost
        else:
            right_cost = cost
    total = density.sum()
    for k in range(length):
        density[k] *= (length - 1) / total
        inverse[k] = 1 / (inverse[k] * (length - 1))
