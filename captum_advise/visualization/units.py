"""The figure of groups of units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captum_advise.visualization.style import ADVISE, BLUE, LIGHT_GREY, axes_or_new

if TYPE_CHECKING:
    from captum_advise.explanation import Candidate
    from captum_advise.visualization.style import Array


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
