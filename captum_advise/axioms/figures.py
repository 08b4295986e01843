"""Figures of the sanity checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_advise.axioms.sanity import ParameterRandomization
from captum_advise.visualization import overlay

# Of Okabe and Ito's colour-blind-safe set.
_COLOURS = ("#0072b2", "#d55e00", "#5b6770", "#009e73", "#cc79a7")
_MARKERS = ("o", "s", "^", "D", "v")
_MEASURES = {"spearman": "rank correlation", "ssim": "SSIM", "fsim": "FSIM"}


def curves(results: Sequence[ParameterRandomization]) -> Figure:
    """Similarity to the original map after each step: a column per mode, a row per measure.

    Solid lines are means over the seeds for absolute maps, with the range as a band; dashed lines
    are means for signed maps.

    Args:
        results: Of the same methods and blocks, for one or more seeds and one or both modes.
    """
    modes = list(dict.fromkeys(result.mode for result in results))
    figure = Figure(figsize=(6.2 * len(modes), 8.6), layout="constrained")
    axes = figure.subplots(len(_MEASURES), len(modes), sharex="col", sharey="row", squeeze=False)
    for column, mode in enumerate(modes):
        runs = [result for result in results if result.mode == mode]
        steps = ["original", *(step.removeprefix("_") for step in runs[0].steps)]
        for row, (measure, label) in enumerate(_MEASURES.items()):
            ax = axes[row, column]
            for place, method in enumerate(runs[0].similarity):
                style = {"color": _COLOURS[place % 5], "label": method}
                absolute = _values(runs, method, f"{measure}_absolute")
                signed = _values(runs, method, f"{measure}_signed")
                places = range(len(steps))
                ax.plot(places, absolute.mean(0), marker=_MARKERS[place % 5], ms=4, **style)
                ax.fill_between(
                    places, absolute.min(0), absolute.max(0), color=style["color"], alpha=0.15, lw=0
                )
                ax.plot(places, signed.mean(0), color=style["color"], ls="--", lw=1)
            ax.axhline(0, color="#b0b0b0", lw=0.8)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", alpha=0.3)
            if column == 0:
                ax.set_ylabel(label)
        axes[0, column].set_title(f"{mode} randomisation")
        axes[-1, column].set_xticks(
            range(len(steps)), steps, rotation=60, ha="right", rotation_mode="anchor", fontsize=8
        )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    (dashes,) = axes[0, 0].plot([], [], color="#404040", ls="--", lw=1)
    figure.legend(
        [*handles, dashes],
        [*labels, "signed maps (solid: absolute)"],
        loc="outside upper center",
        ncols=len(labels) + 1,
        frameon=False,
    )
    figure.supxlabel("randomised block, from the top of the network to the bottom", fontsize=10)
    return figure


def maps(picture: Tensor, result: ParameterRandomization, *, columns: int = 7) -> Figure:
    """Maps over the picture, a row per method: the original, then evenly spaced steps.

    Args:
        picture: (3, H, W) in [0, 1].
        result: Of one picture.
        columns: How many maps a row shows at most.
    """
    wanted = np.linspace(-1, len(result.steps) - 1, min(columns, len(result.steps) + 1))
    shown = [round(float(place)) for place in wanted]
    figure = Figure(figsize=(1.9 * len(shown), 2.1 * len(result.original)), layout="constrained")
    axes = figure.subplots(len(result.original), len(shown), squeeze=False)
    for row, (method, original) in enumerate(result.original.items()):
        for column, place in enumerate(shown):
            values = original if place < 0 else result.maps[method][place]
            step = "original" if place < 0 else f"… {result.steps[place].removeprefix('_')}"
            ax = axes[row, column]
            overlay(picture, values[0], ax=ax, title=step if row == 0 else None)
            if column == 0:
                ax.text(
                    -0.06, 0.5, method, transform=ax.transAxes, rotation=90, ha="right", va="center"
                )
    return figure


def _values(
    runs: Sequence[ParameterRandomization], method: str, name: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(seeds, steps + 1), with 1 for the original map."""
    rows = [[1.0, *(step.to_dict()[name] for step in run.similarity[method])] for run in runs]
    return torch.tensor(rows, dtype=torch.float64).numpy()
