"""Figures of the sanity checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.sanity import ParameterRandomization
from captum_advise.visualization import overlay, style

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = 7  # of maps, which are those of steps evenly spread


def table(runs: Mapping[tuple[str, int], ParameterRandomization]) -> pd.DataFrame:
    """A row per step and method of runs by their mode and seed, with the means over the images."""
    rows: pd.DataFrame = import_optional("pandas", "evaluation").DataFrame(
        {
            "mode": mode,
            "seed": seed,
            "step": step,
            "block": block,
            "method": method,
            "absolute": float(run.absolute_correlation[method][step - 1].mean()),
            "signed": float(run.signed_correlation[method][step - 1].mean()),
        }
        for (mode, seed), run in runs.items()
        for method in run.maps
        for step, block in enumerate(run.steps, start=1)
    )
    return rows


def curves(rows: pd.DataFrame) -> Figure:
    """Rank correlation with the original map after each step, a column per mode.

    Solid lines are means over the seeds for absolute maps, with the range as a band. Dashed lines
    are means for signed maps.

    Args:
        rows: Of :func:`table`.
    """
    modes = rows["mode"].unique()
    figure = Figure(figsize=(6.2 * len(modes), 4.4), layout="constrained")
    axes = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        of_mode = rows[rows["mode"] == mode]
        methods = of_mode.groupby("method", sort=False)
        for colour, (method, own) in zip(style.METHODS, methods, strict=False):
            by_step = own.groupby("step")
            absolute = by_step["absolute"].agg(["mean", "min", "max"])
            ax.plot(absolute["mean"], marker="o", ms=4, color=colour, label=method)
            ax.fill_between(
                absolute.index, absolute["min"], absolute["max"], color=colour, alpha=0.15, lw=0
            )
            ax.plot(by_step["signed"].mean(), color=colour, ls="--", lw=1)
        ax.axhline(0, color=style.LIGHT_GREY, lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
        ax.set_title(f"{mode} randomisation")
        blocks = of_mode.groupby("step")["block"].first()
        ax.set_xticks(
            blocks.index, blocks, rotation=60, ha="right", rotation_mode="anchor", fontsize=8
        )
    handles, labels = axes[0].get_legend_handles_labels()
    (dashes,) = axes[0].plot([], [], color=style.DARK_GREY, ls="--", lw=1)
    figure.legend(
        [*handles, dashes],
        [*labels, "signed maps (solid: absolute)"],
        loc="outside upper center",
        ncols=len(labels) + 1,
        frameon=False,
    )
    axes[0].set_ylabel("rank correlation")
    figure.supxlabel("randomised block, from the top of the network to the bottom", fontsize=10)
    return figure


def maps(image: Tensor, result: ParameterRandomization) -> Figure:
    """Maps over an image (3, H, W) in [0, 1], a row per method: the original, then spaced steps."""
    titles = ["original", *(f"… {step}" for step in result.steps)]
    positions = np.linspace(0, len(titles) - 1, min(_COLUMNS, len(titles))).round().astype(int)
    figure = Figure(figsize=(1.9 * len(positions), 2.1 * len(result.maps)), layout="constrained")
    axes = figure.subplots(len(result.maps), len(positions), squeeze=False)
    for row, (method, randomized) in zip(axes, result.maps.items(), strict=True):
        values = [result.original[method], *randomized]
        for ax, position in zip(row, positions, strict=True):
            overlay(image, values[position][0], ax=ax)
        row[0].text(
            -0.06, 0.5, method, transform=row[0].transAxes, rotation=90, ha="right", va="center"
        )
    for ax, position in zip(axes[0], positions, strict=True):
        ax.set_title(titles[position])
    return figure
