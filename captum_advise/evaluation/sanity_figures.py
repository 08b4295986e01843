"""Figures of the sanity checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_advise.evaluation.sanity import ParameterRandomization
from captum_advise.visualization import overlay, style

_MARKERS = ("o", "s", "^", "D", "v")
_METRICS = {"spearman": "rank correlation", "ssim": "SSIM", "fsim": "FSIM"}


def curves(results: Sequence[ParameterRandomization]) -> Figure:
    """Similarity to the original map after each step: a column per mode, a row per metric.

    Solid lines are means over the seeds for absolute maps, with the range as a band. Dashed lines
    are means for signed maps. All results have the same methods and blocks.
    """
    modes = list(dict.fromkeys(result.mode for result in results))
    figure = Figure(figsize=(6.2 * len(modes), 8.6), layout="constrained")
    axes = figure.subplots(len(_METRICS), len(modes), sharex="col", sharey="row", squeeze=False)
    for column, mode in enumerate(modes):
        runs = [result for result in results if result.mode == mode]
        steps = ["original", *(step.removeprefix("_") for step in runs[0].steps)]
        for row, (metric, label) in enumerate(_METRICS.items()):
            ax = axes[row, column]
            for number, method in enumerate(runs[0].similarity):
                colour = style.METHODS[number % len(style.METHODS)]
                marker = _MARKERS[number % len(_MARKERS)]
                absolute = _values(runs, method, f"{metric}_absolute")
                signed = _values(runs, method, f"{metric}_signed")
                x = range(len(steps))
                ax.plot(x, absolute.mean(0), marker=marker, ms=4, color=colour, label=method)
                ax.fill_between(x, absolute.min(0), absolute.max(0), color=colour, alpha=0.15, lw=0)
                ax.plot(x, signed.mean(0), color=colour, ls="--", lw=1)
            ax.axhline(0, color=style.LIGHT_GREY, lw=0.8)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", alpha=0.3)
            if column == 0:
                ax.set_ylabel(label)
        axes[0, column].set_title(f"{mode} randomisation")
        axes[-1, column].set_xticks(
            range(len(steps)), steps, rotation=60, ha="right", rotation_mode="anchor", fontsize=8
        )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    (dashes,) = axes[0, 0].plot([], [], color=style.DARK_GREY, ls="--", lw=1)
    figure.legend(
        [*handles, dashes],
        [*labels, "signed maps (solid: absolute)"],
        loc="outside upper center",
        ncols=len(labels) + 1,
        frameon=False,
    )
    figure.supxlabel("randomised block, from the top of the network to the bottom", fontsize=10)
    return figure


def maps(image: Tensor, result: ParameterRandomization, *, columns: int = 7) -> Figure:
    """Maps over an image (3, H, W) in [0, 1], a row per method: the original, then spaced steps."""
    positions = np.linspace(-1, len(result.steps) - 1, min(columns, len(result.steps) + 1))
    shown = [round(float(position)) for position in positions]
    figure = Figure(figsize=(1.9 * len(shown), 2.1 * len(result.original)), layout="constrained")
    axes = figure.subplots(len(result.original), len(shown), squeeze=False)
    for row, (method, original) in enumerate(result.original.items()):
        for column, step in enumerate(shown):
            values = original if step < 0 else result.maps[method][step]
            title = "original" if step < 0 else f"… {result.steps[step].removeprefix('_')}"
            ax = axes[row, column]
            overlay(image, values[0], ax=ax, title=title if row == 0 else None)
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
