"""Figures of a report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from torch import Tensor
from torch.utils.data import Dataset

from captum_advise.evaluation.measures import Measure
from captum_advise.evaluation.scoring import Scorer
from captum_advise.evaluation.statistics import REFERENCE
from captum_advise.pixels import PixelSpace, stretch
from captum_advise.visualization import overlay

if TYPE_CHECKING:
    import pandas as pd

# Of Okabe and Ito's colour-blind-safe set.
_ADVISE, _REFERENCE, _OTHER, _FLOOR = "#d55e00", "#0072b2", "#404040", "#9a9a9a"
_FLOORS = ("random", "gaussian")
_SHOWN = ("insertion", "deletion", "infidelity", "sensitivity_max", "avx", "average_drop")


def comparison(
    summary: pd.DataFrame, methods: Sequence[str], measured: Sequence[Measure]
) -> Figure:
    """Means with their intervals, one panel per measure, one line per method."""
    shown = [m for m in measured if m.name in _SHOWN]
    cost = next(m for m in measured if m.name == "forward_passes")
    table = summary.set_index(["measure", "method"])
    figure = Figure(figsize=(1.8 + 2.3 * (len(shown) + 1), 1.5 + 0.3 * len(methods)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, len(shown) + 1, sharey=True)
    for ax, measure in zip(axes, [*shown, cost], strict=True):
        for place, method in enumerate(methods):
            found = table.loc[(measure.name, method)]
            ax.errorbar(
                found["mean"],
                place,
                xerr=[[found["mean"] - found["low"]], [found["high"] - found["mean"]]],
                color=_colour(method),
                marker="o",
                markersize=5,
                capsize=2.5,
                linewidth=1.2,
            )
        if REFERENCE in methods:
            ax.axvline(
                table.loc[(measure.name, REFERENCE), "mean"],
                color=_REFERENCE,
                linestyle=":",
                linewidth=1,
                zorder=0,
            )
        better = "larger" if measure.higher_is_better else "smaller"
        note = "" if measure.independent or measure is cost else "\nADVISE is chosen by it"
        if measure.name == "average_drop":
            note = "\npart of AVX"
        ax.set_title(measure.title, fontsize=10)
        ax.set_xlabel(f"{better} is better{note}", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#eeeeee", zorder=-1)
    # From none (floors) over one to thousands.
    axes[-1].set_xscale("symlog", linthresh=1)
    axes[-1].xaxis.set_major_formatter(ScalarFormatter())
    axes[-1].set_xlim(-0.2, 2 * max(2.0, table.loc[cost.name, "mean"].max()))
    axes[0].set_yticks(range(len(methods)), methods)
    for label, method in zip(axes[0].get_yticklabels(), methods, strict=True):
        label.set_color(_colour(method))
    axes[0].invert_yaxis()
    return figure


def gallery(scorer: Scorer, dataset: Dataset[Any], results: pd.DataFrame) -> Figure:
    """The best, the median and the worst picture, with the maps of all methods.

    Pictures are ordered by how faithful the first method's map is, insertion less deletion; if
    Grad-CAM is among the methods, by how far the first other one exceeds it.
    """
    methods = list(scorer.methods)
    others = [method for method in methods if method != REFERENCE]
    judged = others[0] if others else REFERENCE
    faithfulness = (results["insertion"] - results["deletion"]).groupby(
        [results["index"], results["method"]]
    )
    table = faithfulness.first().unstack()
    merit, meaning = table[judged], f"insertion - deletion of {judged}"
    if REFERENCE in methods and others:
        merit, meaning = merit - table[REFERENCE], f"{meaning}, less that of {REFERENCE}"
    ordered = merit.sort_values(ascending=False, kind="stable").index.tolist()
    # Of one or two pictures, some are all three.
    picked = dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]])
    labels = ["best", "median", "worst"] if len(picked) == 3 else ["best", "worst"]
    rows = results.set_index(["index", "method"])
    side = 1.75
    figure = Figure(figsize=(side * (len(methods) + 1), (side + 0.45) * len(picked) + 0.6))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(picked), len(methods) + 1, squeeze=False)
    for line, (label, index) in zip(grid, zip(labels, picked, strict=False), strict=False):
        picture, maps = _explained(scorer, dataset, index, rows.loc[(index, methods[0])])
        line[0].imshow(picture.permute(1, 2, 0).numpy())
        line[0].set_axis_off()
        name = str(rows.loc[(index, methods[0]), "file"])
        line[0].set_title(f"{label}\n{_wrapped(Path(name).stem, 22)}", fontsize=8)
        for ax, method in zip(line[1:], methods, strict=True):
            found = rows.loc[(index, method)]
            areas = f"ins {found['insertion']:.2f}  del {found['deletion']:.2f}"
            overlay(picture, maps[method], ax=ax)
            ax.set_title(f"{_wrapped(method, 16)}\n{areas}", fontsize=8)
    figure.suptitle(f"Pictures by {meaning}", fontsize=9)
    return figure


def _explained(
    scorer: Scorer, dataset: Dataset[Any], index: int, row: pd.Series[Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Picture (3, H, W) and maps of one picture of the data."""
    item = dataset[index]
    inputs = (item[0] if isinstance(item, tuple | list) else item)[None]
    inputs = inputs.to(next(scorer.model.parameters()).device)
    maps = scorer.maps(index, inputs, int(row["target"]))
    return _pixels(inputs, scorer.context.pixel_space), maps


def _pixels(inputs: Tensor, pixel_space: PixelSpace | None) -> Tensor:
    if pixel_space is not None:
        pixels = pixel_space.to_pixels(inputs)
    else:
        lowest, highest = stretch(inputs)
        pixels = (inputs - lowest) / (highest - lowest).clamp(min=1e-12)
    return pixels[0].clamp(0, 1).expand(3, -1, -1).cpu()


def _colour(method: str) -> str:
    if method.startswith("advise"):
        return _ADVISE
    if method == REFERENCE:
        return _REFERENCE
    return _FLOOR if method in _FLOORS else _OTHER


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text
