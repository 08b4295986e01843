"""Figures of a report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.shown_images import ShownImages
from captum_advise.evaluation.statistics import REFERENCE
from captum_advise.visualization import overlay, style

if TYPE_CHECKING:
    import pandas as pd

_FLOORS = ("random", "gaussian")
_SHOWN = (
    *("insertion", "deletion", "road", "infidelity", "sensitivity_max"),
    *("pointing", "grid_top", "avx", "average_drop"),
)


def comparison(summary: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric]) -> Figure:
    """Means with their intervals, one panel per metric, one line per method."""
    shown = [metric for metric in metrics if metric.name in _SHOWN]
    cost = next(metric for metric in metrics if metric.name == "forward_passes")
    table = summary.set_index(["metric", "method"])
    figure = Figure(figsize=(1.8 + 2.3 * (len(shown) + 1), 1.5 + 0.3 * len(methods)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, len(shown) + 1, sharey=True)
    for ax, metric in zip(axes, [*shown, cost], strict=True):
        for line, method in enumerate(methods):
            entry = table.loc[(metric.name, method)]
            ax.errorbar(
                entry["mean"],
                line,
                xerr=[[entry["mean"] - entry["low"]], [entry["high"] - entry["mean"]]],
                color=_colour(method),
                marker="o",
                markersize=5,
                capsize=2.5,
                linewidth=1.2,
            )
        if REFERENCE in methods:
            ax.axvline(
                table.loc[(metric.name, REFERENCE), "mean"],
                color=_colour(REFERENCE),
                linestyle=":",
                linewidth=1,
                zorder=0,
            )
        better = "larger" if metric.higher_is_better else "smaller"
        note = "" if metric.independent or metric is cost else "\nADVISE selects by it"
        if metric.name == "average_drop":
            note = "\npart of AVX"
        ax.set_title(metric.title, fontsize=10)
        ax.set_xlabel(f"{better} is better{note}", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#eeeeee", zorder=-1)
    # From zero (floors) over one to thousands.
    axes[-1].set_xscale("symlog", linthresh=1)
    most = table.loc[cost.name, "mean"].max()
    # Powers of ten alone would leave a short axis without ticks.
    steps = [1, 2, 5] if most < 20 else [1]
    axes[-1].xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=steps))
    axes[-1].xaxis.set_major_formatter(ScalarFormatter())
    axes[-1].set_xlim(-0.2, 2 * max(2.0, most))
    axes[0].set_yticks(range(len(methods)), methods, parse_math=False)
    for label, method in zip(axes[0].get_yticklabels(), methods, strict=True):
        label.set_color(_colour(method))
    axes[0].invert_yaxis()
    return figure


def gallery(images: ShownImages) -> Figure:
    """The best, the median and the worst image, with the maps of all methods.

    The criterion is insertion minus deletion of the first method. If Grad-CAM is among the
    methods, it is the difference between the first other method and Grad-CAM.
    """
    methods, results = images.methods, images.results
    others = [method for method in methods if method != REFERENCE]
    judged = others[0] if others else REFERENCE
    table = (
        (results["insertion"] - results["deletion"])
        .groupby([results["index"], results["method"]])
        .first()
        .unstack()
    )
    criterion, meaning = table[judged], f"insertion - deletion of {judged}"
    if REFERENCE in methods and others:
        criterion, meaning = criterion - table[REFERENCE], f"{meaning}, minus that of {REFERENCE}"
    ordered = criterion.sort_values(ascending=False, kind="stable").index.tolist()
    # With one or two images, some of the three are the same.
    picked = dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]])
    labels = ["best", "median", "worst"] if len(picked) == 3 else ["best", "worst"]
    rows = results.set_index(["index", "method"])
    side = 1.75
    figure = Figure(figsize=(side * (len(methods) + 1), (side + 0.45) * len(picked) + 0.6))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(picked), len(methods) + 1, squeeze=False)
    for line, (label, index) in zip(grid, zip(labels, picked, strict=False), strict=False):
        first_row = rows.loc[(index, methods[0])]
        image, maps = images.explained(index)
        line[0].imshow(image.permute(1, 2, 0).numpy())
        line[0].set_axis_off()
        name = _wrapped(Path(str(first_row["file"])).stem, 22)
        line[0].set_title(f"{label}\n{name}", fontsize=8, parse_math=False)
        for ax, method in zip(line[1:], methods, strict=True):
            row = rows.loc[(index, method)]
            overlay(image, maps[method], ax=ax)
            areas = f"ins {row['insertion']:.2f}  del {row['deletion']:.2f}"
            ax.set_title(f"{_wrapped(method, 16)}\n{areas}", fontsize=8, parse_math=False)
    figure.suptitle(f"Images by {meaning}", fontsize=9, parse_math=False)
    return figure


def _colour(method: str) -> str:
    if method.startswith("layer-advise"):
        return style.ADVISE
    if method == REFERENCE:
        return style.GRAD_CAM
    return style.FLOOR if method in _FLOORS else style.OTHER_METHOD


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text
