"""``report.html``: the results of a run as one page that works without a network connection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.output import write_output, write_table
from captum_advise.evaluation.report.conclusions import conclusions
from captum_advise.evaluation.report.images import chosen_images, embedded
from captum_advise.evaluation.report.statistics import (
    baseline_of,
    compare_methods,
    mean_ranks,
    outcome,
)
from captum_advise.visualization.html import filled

if TYPE_CHECKING:
    import pandas as pd

_Cells: TypeAlias = dict[str, dict[str, Any]]

_KINDS = {
    "faithfulness": "Faithfulness",
    "location": "Where the maps lie",
    "protocol": "The ADVISE paper's protocol",
    "cost": "Cost of one map",
}
_OUTCOMES = {1: ("▲", "better"), -1: ("▼", "worse"), 0: ("=", "same")}


@dataclass(frozen=True)
class Report:
    """What a report is about."""

    results: pd.DataFrame  # results.csv, with the column image of compare_methods
    methods: Sequence[str]
    metrics: Sequence[Metric]
    information: Mapping[str, Any]  # of run.json
    images: Sequence[int]  # the positions of the items other than mosaics
    class_names: Sequence[str] = ()  # empty if they are not known
    failures: int = 0  # the number of items that could not be evaluated
    by_avx: Sequence[str] = ()  # the methods that select by AVX

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The statistics, a row per method and metric."""
        seed = int(self.information["configuration"].get("seed", 0))
        return compare_methods(self.results, self.methods, self.metrics, seed=seed)

    @cached_property
    def baseline(self) -> str:
        """The method that the others are compared with."""
        return baseline_of(self.methods)

    @cached_property
    def mean_ranks(self) -> pd.Series[float]:
        """Of each method over metrics of faithfulness, the best first."""
        return mean_ranks(self.comparison, self.metrics)


def write_report(
    folder: Path, report: Report, shown: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]
) -> pd.DataFrame:
    """Write ``summary.csv`` and ``report.html``, and return the summary.

    ``shown`` takes the position of an image and gives what :func:`.images.embedded` takes.
    """
    summary = report.comparison
    write_table(folder / "summary.csv", summary)
    chosen = chosen_images(report.images, len(report.methods))
    pictures = {index: embedded(*shown(index)) for index in chosen}
    write_output(folder / "report.html", page(report, pictures))
    return summary


def page(report: Report, pictures: Mapping[int, Sequence[str]]) -> str:
    """The page, with pictures of some images: the image and each method's map over it."""
    parts = {
        "facts": _facts(report),
        "conclusions": _conclusions(report),
        "baseline": report.baseline,
        "methods": report.mean_ranks.index,
        "tables": _tables(report),
        "gallery": _gallery(report, pictures),
    }
    return filled("captum_advise.evaluation.report", parts)


def _facts(report: Report) -> dict[str, Any]:
    configuration, ended = report.information["configuration"], report.information["ended"]
    shown = report.results[report.results["index"].isin(report.images)]
    facts = {
        "Network": configuration.get("network"),
        "Layer": configuration["layer"],
        "Images": shown.get("image", shown["index"]).nunique(),
        "Run": str(ended).replace("T", " ").replace("+00:00", " UTC"),
    }
    return {name: value for name, value in facts.items() if value}


def _conclusions(report: Report) -> list[str]:
    sentences = conclusions(report.comparison, report.metrics, report.by_avx)
    if count := report.failures:
        images = "image" if count == 1 else "images"
        sentences.insert(0, f"{count} {images} could not be evaluated: failures.csv says why.")
    return sentences


def _tables(report: Report) -> dict[str, dict[str, _Cells]]:
    """For each kind of metrics, the cells by heading and method."""
    rows = report.comparison.set_index(["method", "metric"])
    tables: dict[str, dict[str, _Cells]] = {}
    for metric in report.metrics:
        columns = tables.setdefault(_KINDS[metric.kind], {})
        if metric.kind == "faithfulness" and not columns:
            ranks = report.mean_ranks.items()
            columns["mean rank"] = {str(name): {"mean": _number(rank, 2)} for name, rank in ranks}
        columns[metric.heading] = _cells(metric, rows.xs(metric.name, level="metric"))
    return {title: tables[title] for title in _KINDS.values() if title in tables}


def _cells(metric: Metric, rows: pd.DataFrame) -> _Cells:
    """By method, the mean with its interval, and the difference from the baseline with its test."""
    best = rows["mean"].max() if metric.higher_is_better else rows["mean"].min()
    cells: _Cells = {}
    for method, row in rows.iterrows():
        mean, low, high = (_number(row[name], metric.digits) for name in ("mean", "low", "high"))
        cell = cells[str(method)] = {"mean": mean, "low": low, "high": high}
        cell["is_best"] = metric.tested and row["mean"] == best
        if math.isfinite(row["p_holm"]):
            mark, cell["outcome"] = _OUTCOMES[outcome(row)]
            p_value = "< 0.001" if row["p_holm"] < 0.001 else f"= {row['p_holm']:.3f}"
            difference = _number(row["difference"], metric.digits, "+")
            # A line breaks after the comma alone.
            parts = f"{mark} {difference}", f"p {p_value}"
            cell["difference"] = ", ".join(part.replace(" ", "\u00a0") for part in parts)
    return cells


def _number(value: float, digits: int, sign: str = "-") -> str:
    """A number; with ``sign="+"`` plus is said too, and zero has no sign."""
    if not math.isfinite(value):
        return "-"
    rounded = round(value, digits)
    return f"{rounded:{sign}.{digits}f}" if rounded else f"{0:.{digits}f}"


def _gallery(report: Report, pictures: Mapping[int, Sequence[str]]) -> Iterator[dict[str, Any]]:
    rows = report.results.set_index(["index", "method"])
    names = dict(enumerate(report.class_names))
    for index, (image, *maps) in pictures.items():
        first = rows.loc[index].iloc[0]
        classes = int(first["target"]), int(first["predicted"])
        target, predicted = (names.get(one, f"class {one}") for one in classes)
        verdict = (
            "the predicted class" if target == predicted else f"the predicted class is {predicted}"
        )
        yield {
            "index": index,
            "file": first["file"],
            "about": f"{target}, probability {first['confidence']:.3f}; {verdict}",
            "image": image,
            "maps": dict(zip(report.methods, maps, strict=True)),
        }
