"""The report: summary tables, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from captum_advise._utils.markdown import markdown_table
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import MOSAIC_METRICS, Metric, curves
from captum_advise.evaluation.curves import read_curves
from captum_advise.evaluation.figures import comparison, gallery
from captum_advise.evaluation.image_evaluation import ImageEvaluator
from captum_advise.evaluation.report_page import (
    Run,
    chosen_images,
    content,
    embedded,
    render,
    worst_cases,
    worst_images,
)
from captum_advise.evaluation.shown_images import ShownImages
from captum_advise.evaluation.statistics import (
    N_RESAMPLES,
    REFERENCE,
    Comparison,
    as_table,
    compare_methods,
    summarise,
)
from captum_advise.evaluation.store import RunFolder, write_output
from captum_advise.visualization.style import to_png

if TYPE_CHECKING:
    import pandas as pd

# In place of what saved maps do not have, as the seconds that they took.
_UNKNOWN = "n/a"
_ENDS = ("mean", "low", "high")


def write_report(
    evaluator: ImageEvaluator,
    dataset: Dataset[Any],
    folder: RunFolder,
    results: pd.DataFrame,
    mosaics: pd.DataFrame | None = None,
) -> None:
    """Write the summaries, ``comparison.png``, ``gallery.png`` and ``report.html``.

    Args:
        evaluator: Holds for all images.
        dataset: The images.
        folder: Where to write.
        results: One row per image and method.
        mosaics: One row per image of the mosaics and method, from ``by_image``.
    """
    methods, columns = tuple(evaluator.methods), evaluator.metrics
    statistics = compare_methods(results, methods, columns, seed=evaluator.seed)
    summary = as_table(statistics)
    if mosaics is not None:
        of_mosaics = summarise(mosaics, methods, MOSAIC_METRICS, seed=evaluator.seed)
        summary = import_optional("pandas", "evaluation").concat([summary, of_mosaics])
        columns = (*columns, *MOSAIC_METRICS)
    write_output(folder.path / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    write_output(
        folder.path / "summary.md",
        markdown(summary, methods, columns, evaluator, folder.information_so_far()),
    )
    write_output(folder.path / "comparison.png", to_png(comparison(summary, methods, columns)))
    shown = ShownImages(evaluator, dataset, folder, results)
    write_output(folder.path / "gallery.png", to_png(gallery(shown)))
    write_output(folder.path / "report.html", page(shown, statistics))


def page(shown: ShownImages, statistics: Comparison) -> str:
    """The content of ``report.html``."""
    results, folder, evaluator = shown.results, shown.folder, shown.evaluator
    worst = worst_images(worst_cases(results, statistics), statistics)
    chosen = chosen_images(sorted(set(results["index"])), worst, len(shown.methods))
    # Rows of saved maps have a content of their own.
    contents = results.drop_duplicates(["index", "content"])
    identities = zip(contents["file"], contents["content"], strict=True)
    network = getattr(shown.dataset, "network", None)
    run = Run(
        results=results,
        comparison=statistics,
        curves=read_curves(
            folder, dict(zip(identities, contents["index"], strict=True)), frozenset(chosen)
        ),
        curve_titles=curves(evaluator.metrics),
        images=[embedded(index, *shown.explained(index)) for index in chosen],
        information=folder.information_so_far(),
        class_names=tuple(getattr(network, "class_names", ())),
        seed=evaluator.seed,
    )
    return render(content(run))


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
    faithfulness, location, protocol, cost = (
        [m for m in columns if m.kind == kind]
        for kind in ("faithfulness", "location", "protocol", "cost")
    )
    table = summary.set_index(["method", "metric"])
    sections = [
        "# Comparison of explanation methods",
        f"{network} at layer `{configuration.get('layer', '')}`, {n_images} images"
        + (f"; {n_failed} more could not be evaluated (failures.csv)." if n_failed else ".")
        + " Means over images with 95% bootstrap intervals "
        f"({N_RESAMPLES} resamples, seed {evaluator.seed}); ↑ larger is better, ↓ smaller is "
        "better.",
        "## Faithfulness: metrics that ADVISE's default selection does not use",
        _means(table, methods, faithfulness),
        f"Insertion and deletion follow RISE, in {evaluator.settings.steps} steps. Pixels change "
        "in order of importance, from the blurred image (Gaussian, 5 pixels, 11 x 11) to the whole "
        "image, or from the whole image to black. The metric is the area under the confidence in "
        "the class. *Insertion from black* and *deletion to blurred* exchange the two baselines. "
        "ROAD is the probability with the least relevant pixels removed minus that with the most "
        "relevant ones, over 10% to 90% of the pixels, which noisy linear imputation replaces. "
        "μ-fidelity is the correlation of the probability lost when random cells become black with "
        "the mass of the map in them.",
        "## Where the maps lie",
        _means(table, methods, location),
        _about_location(summary),
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
            "paired two-sided Wilcoxon signed-rank test, corrected by Holm's method for all tests "
            "of this table"
            + (", those of mosaics apart" if "grid_top" in set(summary["metric"]) else "")
            + ". report.html compares with the other methods.",
            _against_reference(table, others, [*faithfulness, *location, *protocol]),
        ]
    sections += [
        "## Cost of one map",
        _means(table, methods, cost),
        "Forward passes count the images that go through the network, whatever the batch size. "
        "Backward passes are not counted. Seconds depend on the machine (run.json).",
    ]
    return "\n\n".join(sections) + "\n"


def _about_location(summary: pd.DataFrame) -> str:
    n_images = summary.groupby("metric")["images"].max()
    sentences = [
        "Sparseness is the Gini index of the map: it describes a map, and does not judge it."
    ]
    if "pointing" in n_images:
        sentences.append(
            "The pointing game asks whether the maximum lies within 15 pixels of the object; the "
            "energy is the share of the map's mass in the object."
        )
    if "grid_top" in n_images:
        sentences.append(
            f"The grid pointing game ran on mosaics of {n_images['grid_top']} images: the share of "
            "the map's mass in the cell of the class, which sharper maps raise, and the share of "
            "its highest pixels, as many as the cell has. Intervals and tests are over these "
            "images, each with its mean over the mosaics."
        )
    return " ".join(sentences)


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
            else f"{entry['beats_grad_cam']:.0%} (p = {entry['p_holm']:.2g})"
            for entry in entries
        ]
        rows.append([method, *cells])
    return markdown_table(["method", *(m.title for m in columns)], rows)
