"""The report of a run: a summary table and a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import MOSAIC_METRICS, Metric, curves_of
from captum_advise.evaluation.curves import Curves
from captum_advise.evaluation.output import write_output
from captum_advise.evaluation.report_page import (
    Run,
    chosen_images,
    content,
    embedded,
    render,
    worst_cases,
    worst_images,
)
from captum_advise.evaluation.statistics import as_table, compare_methods, summarise

if TYPE_CHECKING:
    import pandas as pd


def write_report(
    folder: Path,
    *,
    results: pd.DataFrame,
    mosaics: pd.DataFrame | None,
    methods: Sequence[str],
    metrics: Sequence[Metric],
    curves: Callable[[Collection[int]], Curves],
    shown: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]],
    information: Mapping[str, Any],
    class_names: Sequence[str],
) -> pd.DataFrame:
    """Write ``summary.csv`` and ``report.html``.

    Args:
        folder: Where to write.
        results: One row per image and method.
        mosaics: One row per image of the mosaics and method, from ``by_image``.
        methods: In the order of the report.
        metrics: Those of the images.
        curves: From positions of images to the mean curves, and the single ones of these images.
        shown: From the position of an image to the image, (3, H, W) in [0, 1], and the map
            (1, 1, h, w) of each method.
        information: The content of ``run.json``.
        class_names: By class index; empty if they are not known.

    Returns:
        The summary.
    """
    seed = int(information["configuration"]["seed"])
    comparison = compare_methods(results, methods, metrics, seed=seed)
    summary = as_table(comparison)
    if mosaics is not None:
        of_mosaics = summarise(mosaics, methods, MOSAIC_METRICS, seed=seed)
        summary = import_optional("pandas", "evaluation").concat(
            [summary, of_mosaics], ignore_index=True
        )
    write_output(folder / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    worst = worst_images(worst_cases(results, comparison), comparison)
    chosen = chosen_images(sorted(set(results["index"])), worst, len(methods))
    run = Run(
        results=results,
        comparison=comparison,
        curves=curves(chosen),
        curve_titles=curves_of(metrics),
        images=[embedded(index, *shown(index)) for index in chosen],
        information=information,
        class_names=class_names,
        seed=seed,
    )
    write_output(folder / "report.html", render(content(run)))
    return summary
