"""Mean curves of metrics, such as insertion and deletion, over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from captum_advise.evaluation.columns import Metric
from captum_advise.visualization import style

Values = npt.NDArray[np.float64]
_DASHES = ("-", "--", ":", "-.")


def mean_curves(
    rows: Iterable[tuple[str, Mapping[str, Any]]], metrics: Sequence[Metric]
) -> dict[tuple[str, str], Values]:
    """The mean curves (steps,) by metric and method; a row is a method with its values by name."""
    names = [metric.name for metric in metrics if metric.curve]
    # Of ones and of values: all curves may be more than the memory holds.
    sums: dict[tuple[str, str], Values] = {}
    for method, row in rows:
        for name in names:
            if f"{name}_curve" in row:
                values = np.asarray(row[f"{name}_curve"], dtype=np.float64)
                both = np.stack([np.ones_like(values), values])
                sums[name, method] = sums.get((name, method), 0) + both
    return {key: total / counts for key, (counts, total) in sums.items()}


def curve_figure(metric: Metric, curves: Mapping[str, Values]) -> Figure:
    """The mean curves of methods."""
    start, end = metric.curve or (0, 1)
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    ax = figure.subplots()
    for number, (method, values) in enumerate(curves.items()):
        # A name may hold marks of formulas, or begin with the mark of lines without a name.
        label = f" {method}".replace("$", r"\$")
        colour = style.METHODS[number % len(style.METHODS)]
        dashes = _DASHES[number % len(_DASHES)]
        x = np.linspace(start, end, len(values))
        ax.plot(x, values, color=colour, ls=dashes, label=label)
    ax.set_title(metric.title.removesuffix(" AUC"), fontsize=10)
    ax.set_xlabel("share of pixels changed")
    ax.set_ylabel("probability")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, fontsize=7)
    return figure
