"""The report: summary tables, figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from captum_advise.evaluation.figures import comparison, gallery
from captum_advise.evaluation.measures import Measure, measures
from captum_advise.evaluation.scoring import Scorer
from captum_advise.evaluation.statistics import N_RESAMPLES, REFERENCE, summarise
from captum_advise.evaluation.store import RunFolder, write_whole
from captum_advise.map_scoring import STEPS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_FAITHFUL = "advise-faithful"
_ENDS = ("mean", "low", "high")


def write_report(
    scorer: Scorer, dataset: Dataset[Any], folder: RunFolder, results: pd.DataFrame
) -> None:
    """Write ``summary.csv``, ``summary.md``, ``comparison.png`` and ``gallery.png``."""
    methods, measured = tuple(scorer.methods), measures(scorer.settings.on_request)
    summary = summarise(results, methods, measured, seed=scorer.seed)
    write_whole(folder.path / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    write_whole(
        folder.path / "summary.md",
        markdown(summary, methods, measured, scorer, folder.information_so_far()),
    )
    write_whole(folder.path / "comparison.png", _png(comparison(summary, methods, measured)))
    write_whole(folder.path / "gallery.png", _png(gallery(scorer, dataset, results)))


def markdown(
    summary: pd.DataFrame,
    methods: Sequence[str],
    measured: Sequence[Measure],
    scorer: Scorer,
    information: dict[str, Any],
) -> str:
    """The summary for people."""
    configuration = information.get("configuration", {})
    network = " ".join(str(configuration[k]) for k in ("network",) if k in configuration)
    failed = int(information.get("pictures_failed", 0))
    n_pictures = int(summary["pictures"].max())
    independent = [m for m in measured if m.independent]
    protocol = [m for m in measured if m.tested and not m.independent]
    cost = [m for m in measured if not m.tested]
    table = summary.set_index(["method", "measure"])
    parts = [
        "# Comparison of explanation methods",
        f"{network or 'The model'} at layer `{configuration.get('layer', '')}`, "
        f"{n_pictures} pictures"
        + (f"; {failed} more could not be evaluated (failures.csv)." if failed else ".")
        + " Means over pictures with 95% bootstrap intervals "
        f"({N_RESAMPLES} resamples, seed {scorer.seed}); ↑ larger is better, ↓ smaller is better.",
        "## Faithfulness, measured independently of ADVISE's choice",
        _means(table, methods, independent),
        f"Insertion and deletion after RISE, in {scorer.settings.steps} steps: pixels are inserted "
        "into the blurred picture (Gaussian, 5 pixels, 11 x 11), or made black, most important "
        "first; the area under the confidence in the class."
        + (f" {_FAITHFUL} chooses by both, in {STEPS} steps." if _FAITHFUL in methods else ""),
        "## The ADVISE paper's protocol",
        "**ADVISE keeps the group of units whose map has the highest AVX, so AVX and its parts "
        "flatter ADVISE: read this table together with the one above.**",
        _means(table, methods, protocol),
        "Class sensitivity is the correlation of a map with that of the runner-up class, near or "
        "below 0 is good; maps that do not depend on the class have 1.",
    ]
    if REFERENCE in methods and len(methods) > 1:
        others = [method for method in methods if method != REFERENCE]
        parts += [
            "## Against Grad-CAM, picture by picture",
            "Share of the pictures on which the method is strictly better than Grad-CAM, and p of "
            "the paired two-sided Wilcoxon signed-rank test, not corrected for the number of "
            "tests.",
            _against_reference(table, others, [*independent, *protocol]),
        ]
    parts += [
        "## Cost of one map",
        _means(table, methods, cost),
        "Forward passes count the pictures that go through the network, whatever the batch; "
        "backward passes are not counted. Seconds depend on the machine (run.json).",
    ]
    return "\n\n".join(parts) + "\n"


def _means(table: pd.DataFrame, methods: Sequence[str], measured: Sequence[Measure]) -> str:
    best = {
        m.name: (max if m.higher_is_better else min)(_mean(table, x, m) for x in methods)
        for m in measured
        if m.tested
    }
    rows = []
    for method in methods:
        cells = []
        for measure in measured:
            found = table.loc[(method, measure.name)]
            mean, low, high = (f"{found[end]:.{measure.digits}f}" for end in _ENDS)
            if found["mean"] == best.get(measure.name):
                mean = f"**{mean}**"
            cells.append(mean if np.isnan(found["low"]) else f"{mean} [{low}, {high}]")
        rows.append([method, *cells])
    return markdown_table(["method", *(m.heading for m in measured)], rows)


def _mean(table: pd.DataFrame, method: str, measure: Measure) -> float:
    return float(table.loc[(method, measure.name), "mean"])


def _against_reference(
    table: pd.DataFrame, methods: Sequence[str], measured: Sequence[Measure]
) -> str:
    rows = []
    for method in methods:
        found = [table.loc[(method, measure.name)] for measure in measured]
        cells = [f"{f['beats_grad_cam']:.0%} (p = {f['p_value']:.2g})" for f in found]
        rows.append([method, *cells])
    return markdown_table(["method", *(m.title for m in measured)], rows)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()
