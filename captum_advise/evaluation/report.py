"""The report: summary tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from captum_advise._core.selection import STEPS
from captum_advise._utils.markdown import markdown_table
from captum_advise.evaluation.columns import Metric, metrics
from captum_advise.evaluation.figures import comparison, gallery
from captum_advise.evaluation.image_evaluation import ImageEvaluator
from captum_advise.evaluation.statistics import N_RESAMPLES, REFERENCE, summarise
from captum_advise.evaluation.store import RunFolder, write_output
from captum_advise.visualization.style import to_png

if TYPE_CHECKING:
    import pandas as pd

_FAITHFUL = "advise-faithful"
# In place of what saved maps do not have, as the seconds that they took.
_UNKNOWN = "n/a"
_ENDS = ("mean", "low", "high")


def write_report(
    evaluator: ImageEvaluator, dataset: Dataset[Any], folder: RunFolder, results: pd.DataFrame
) -> None:
    """Write ``summary.csv``, ``summary.md``, ``comparison.png`` and ``gallery.png``."""
    methods, columns = tuple(evaluator.methods), metrics(evaluator.settings.on_request)
    summary = summarise(results, methods, columns, seed=evaluator.seed)
    write_output(folder.path / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    write_output(
        folder.path / "summary.md",
        markdown(summary, methods, columns, evaluator, folder.information_so_far()),
    )
    write_output(folder.path / "comparison.png", to_png(comparison(summary, methods, columns)))
    write_output(folder.path / "gallery.png", to_png(gallery(evaluator, dataset, results)))


def markdown(
    summary: pd.DataFrame,
    methods: Sequence[str],
    columns: Sequence[Metric],
    evaluator: ImageEvaluator,
    information: dict[str, Any],
) -> str:
    """The content of ``summary.md``."""
    configuration = information.get("configuration", {})
    network = str(configuration.get("network") or "The model")
    n_failed = int(information.get("images_failed", 0))
    n_images = int(summary["images"].max())
    independent = [m for m in columns if m.independent]
    protocol = [m for m in columns if m.tested and not m.independent]
    cost = [m for m in columns if not m.tested]
    table = summary.set_index(["method", "metric"])
    sections = [
        "# Comparison of explanation methods",
        f"{network} at layer `{configuration.get('layer', '')}`, {n_images} images"
        + (f"; {n_failed} more could not be evaluated (failures.csv)." if n_failed else ".")
        + " Means over images with 95% bootstrap intervals "
        f"({N_RESAMPLES} resamples, seed {evaluator.seed}); ↑ larger is better, ↓ smaller is "
        "better.",
        "## Faithfulness: metrics that ADVISE's default selection does not use",
        _means(table, methods, independent),
        f"Insertion and deletion follow RISE, in {evaluator.settings.steps} steps. Pixels change "
        "in order of importance, from the blurred image (Gaussian, 5 pixels, 11 x 11) to the whole "
        "image, or from the whole image to black. The metric is the area under the confidence in "
        "the class."
        + (f" {_FAITHFUL} selects by both, in {STEPS} steps." if _FAITHFUL in methods else ""),
        "## The ADVISE paper's protocol",
        "**ADVISE selects the group of units with the highest AVX, so AVX and its parts favour "
        "ADVISE. Read this table together with the one above.**",
        _means(table, methods, protocol),
        "Class sensitivity is the correlation of a map with the map of the runner-up class. Near "
        "or below 0 is good; maps that do not depend on the class have 1.",
    ]
    if REFERENCE in methods and len(methods) > 1:
        others = [method for method in methods if method != REFERENCE]
        sections += [
            "## Comparison with Grad-CAM, image by image",
            "Share of images on which the method is strictly better than Grad-CAM, and p of the "
            "paired two-sided Wilcoxon signed-rank test, not corrected for the number of tests.",
            _against_reference(table, others, [*independent, *protocol]),
        ]
    sections += [
        "## Cost of one map",
        _means(table, methods, cost),
        "Forward passes count the images that go through the network, whatever the batch size. "
        "Backward passes are not counted. Seconds depend on the machine (run.json).",
    ]
    return "\n\n".join(sections) + "\n"


def _means(table: pd.DataFrame, methods: Sequence[str], columns: Sequence[Metric]) -> str:
    best = {
        metric.name: (np.nanmax if metric.higher_is_better else np.nanmin)(values)
        for metric in columns
        if metric.tested
        and not np.isnan(values := [_mean(table, method, metric) for method in methods]).all()
    }
    rows = []
    for method in methods:
        cells = []
        for metric in columns:
            entry = table.loc[(method, metric.name)]
            if np.isnan(entry["mean"]):
                cells.append(_UNKNOWN)
                continue
            mean, low, high = (f"{entry[end]:.{metric.digits}f}" for end in _ENDS)
            if entry["mean"] == best.get(metric.name):
                mean = f"**{mean}**"
            cells.append(mean if np.isnan(entry["low"]) else f"{mean} [{low}, {high}]")
        rows.append([method, *cells])
    return markdown_table(["method", *(m.heading for m in columns)], rows)


def _mean(table: pd.DataFrame, method: str, metric: Metric) -> float:
    return float(table.loc[(method, metric.name), "mean"])


def _against_reference(
    table: pd.DataFrame, methods: Sequence[str], columns: Sequence[Metric]
) -> str:
    rows = []
    for method in methods:
        entries = [table.loc[(method, metric.name)] for metric in columns]
        cells = [
            _UNKNOWN
            if np.isnan(entry["p_value"])
            else f"{entry['beats_grad_cam']:.0%} (p = {entry['p_value']:.2g})"
            for entry in entries
        ]
        rows.append([method, *cells])
    return markdown_table(["method", *(m.title for m in columns)], rows)
