"""Figures of units: their densities and their groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captum_advise.density import adaptive_kde
from captum_advise.relevance import N_BANDWIDTHS, DensityOptions, on_unit_interval
from captum_advise.visualization.style import (
    ADVISE,
    BLUE,
    CURVE,
    DARK_GREY,
    LIGHT_GREY,
    SIDE,
    VERMILION,
    axes_or_new,
)

if TYPE_CHECKING:
    from captum_advise.explanation import Candidate
    from captum_advise.relevance import ActivationRange
    from captum_advise.visualization.style import Array, ManyAxes


def groups(
    candidates: Sequence[Candidate],
    *,
    selected: int | Collection[int] = (),
    unit_relevance: Array | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Number of units per relevance, as bars, with the AVX of each group as points.

    Args:
        candidates: The groups of one image, ``explanation.candidates[i]``. Those that span
            several relevances are left out.
        selected: The relevance that was selected, or several: their bars have a strong colour.
        unit_relevance: (C,), ``explanation.unit_relevance[i]``: adds the relevances whose units
            have no map with any evidence, and so no AVX.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure and the axes of the bars.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> selected = explanation.selected_relevances()
        >>> figure, ax = groups(explanation.candidates[0], selected=selected)
    """
    figure, ax = axes_or_new(ax, (6.4, 4.8))
    units = {
        candidate.relevance: len(candidate.units)
        for candidate in candidates
        if candidate.relevance is not None
    }
    if unit_relevance is not None:
        units = dict(Counter(torch.as_tensor(unit_relevance).tolist()))
    avx = {
        candidate.relevance: candidate.metrics.avx.item()
        for candidate in candidates
        if candidate.relevance is not None and candidate.metrics is not None
    }
    strong = {selected} if isinstance(selected, int) else set(selected)
    relevances = sorted(units)
    bars = ax.bar(
        relevances,
        [units[relevance] for relevance in relevances],
        color=[ADVISE if relevance in strong else LIGHT_GREY for relevance in relevances],
    )
    ax.bar_label(bars, fontsize="small", padding=2)
    ax.set_xlabel("relevance (modes of a unit's density)")
    ax.set_ylabel("units")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.margins(y=0.15)
    ax.spines[["top", "right"]].set_visible(False)
    if avx:
        twin = ax.twinx()
        known = sorted(avx)
        twin.plot(
            known,
            [avx[relevance] for relevance in known],
            color=BLUE,
            marker="o",
            markersize=8,
            linestyle="none",
            markeredgecolor="white",
        )
        twin.set_ylim(0, 1.05)
        twin.set_ylabel("AVX of the group's map", color=BLUE)
        twin.tick_params(axis="y", colors=BLUE)
        twin.spines["top"].set_visible(False)
    return figure, ax


def densities(
    activations: Array,
    units: Sequence[int] | Array,
    *,
    min_prominence: float = 1e-6,
    activation_range: ActivationRange = (0.0, 1.0),
    columns: int = 4,
) -> tuple[Figure, ManyAxes]:
    r"""Densities of chosen units' activations, with the modes that make their relevance.

    A tick at the bottom of the axes is an activation. A point on the curve is a mode.

    Args:
        activations: (C, \*spatial) feature maps of one example.
        units: Which of the C units.
        min_prominence: As in :func:`captum_advise.unit_relevance`.
        activation_range: Likewise.
        columns: Densities per row.

    Returns:
        The figure, and one axes per unit.

    Raises:
        ValueError: There is no unit to draw, a unit does not exist, or the feature maps have
            another shape.

    Example::

        >>> from captum.attr import LayerActivation
        >>> activations = LayerActivation(net, net.conv4).attribute(images)
        >>> figure, axes = densities(activations[0], [0, 17, 31])
    """
    from scipy.signal import find_peaks

    maps = torch.as_tensor(activations).detach().cpu()
    wanted = [int(unit) for unit in units]
    if maps.dim() < 2 or not wanted or not all(0 <= unit < len(maps) for unit in wanted):
        raise ValueError(
            "Feature maps to draw densities of must be (C, *spatial) and hold the units, got "
            f"{tuple(maps.shape)} and the units {wanted}."
        )
    options = DensityOptions(activation_range, min_prominence)
    rows = on_unit_interval(maps[wanted].flatten(1).double(), options.activation_range)
    grid = torch.linspace(0, 1, rows.shape[1], dtype=torch.float64)
    curves = adaptive_kde(rows, grid, n_bandwidths=N_BANDWIDTHS).density.numpy()
    positions = grid.numpy()
    columns = min(columns, len(wanted))
    n_rows = math.ceil(len(wanted) / columns)
    figure = Figure(figsize=(SIDE * columns, CURVE * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, columns, squeeze=False).ravel()
    shown = axes[: len(wanted)]
    for unused in axes[len(wanted) :]:
        unused.remove()
    for ax, unit, row, density in zip(shown, wanted, rows.numpy(), curves, strict=True):
        density = np.nan_to_num(density)
        modes, _ = find_peaks(density, prominence=min_prominence * density.max())
        ax.plot(positions, density, color=BLUE)
        ax.plot(positions[modes], density[modes], "o", color=VERMILION, markeredgecolor="white")
        inside = row[(row >= 0) & (row <= 1)]
        ticks = np.full_like(inside, 0.03)
        ax.plot(inside, ticks, "|", color=DARK_GREY, transform=ax.get_xaxis_transform())
        ax.set_title(f"unit {unit}: {len(modes)} mode{'s' * (len(modes) != 1)}", fontsize="medium")
        ax.set_xlabel("activation", fontsize="small")
        ax.set_xlim(-0.02, 1.02)
        ax.set_xticks([0, 0.5, 1])
        highest = np.nanmax(density, initial=1e-12)
        ax.set_ylim(-0.04 * highest, 1.08 * highest)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
        if not len(inside):
            ax.text(0.5, 0.5, "no activation in [0, 1]", ha="center", transform=ax.transAxes)
    return figure, shown
