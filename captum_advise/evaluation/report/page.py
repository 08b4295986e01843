"""``report.html``: the results of a run as one page that works without a network connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.curves import MeanCurve
from captum_advise.evaluation.output import write_output
from captum_advise.evaluation.report.conclusions import conclusions, mean_ranks
from captum_advise.evaluation.report.images import (
    ReportImage,
    chosen_images,
    embedded,
    heat_colours,
    worst_images,
)
from captum_advise.evaluation.report.statistics import (
    N_RESAMPLES,
    Comparison,
    compare_methods,
    default_baseline,
)
from captum_advise.visualization.html import embedded_json, filled, template

if TYPE_CHECKING:
    import pandas as pd

# Failures that are listed; the others are in failures.csv.
_FAILURES = 20
_SHOWN_ABOVE = {"network", "layer"}


@dataclass(frozen=True)
class Report:
    """What a report is about.

    Attributes:
        results: One row per item and method: ``index``, ``file``, ``method``, ``target``,
            ``predicted``, ``confidence``, and the metrics, empty where an item has none. Items that
            show an image within a mosaic name it in the column ``image``.
        methods: Names, in the order of the tables.
        metrics: Which columns.
        curves: The mean curves, by metric and method.
        information: The content of ``report.json``.
        class_names: By class index; empty if they are not known.
        failures: Names of items that could not be evaluated, with the reasons.
        by_avx: The methods that select by AVX.
    """

    results: pd.DataFrame
    methods: Sequence[str]
    metrics: Sequence[Metric]
    curves: Mapping[tuple[str, str], MeanCurve]
    information: Mapping[str, Any]
    class_names: Sequence[str] = ()
    failures: Sequence[tuple[str, str]] = ()
    by_avx: Sequence[str] = ()

    @cached_property
    def images(self) -> pd.DataFrame:
        """The results without mosaics, which never come alone."""
        results = self.results
        whole = results[results["image"].isna()] if "image" in results else results
        return whole if len(whole) else results

    @cached_property
    def comparison(self) -> Comparison:
        """The statistics."""
        seed = int(self.information["configuration"].get("seed", 0))
        return compare_methods(self.results, self.methods, self.metrics, seed=seed)


def write_report(
    folder: Path, report: Report, shown: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]]
) -> pd.DataFrame:
    """Write ``summary.csv`` and ``report.html``, and return the summary.

    ``shown`` gives, for the position of an image, the image, (3, H, W) in [0, 1], and the map
    (1, 1, h, w) of each method.
    """
    summary = report.comparison.summary()
    write_output(folder / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    worst = worst_images(report.images, report.comparison)
    chosen = chosen_images(sorted(set(report.images["index"])), worst, len(report.methods))
    images = [embedded(index, *shown(index)) for index in chosen]
    write_output(folder / "report.html", render(content(report, images)))
    return summary


def render(data: Mapping[str, Any]) -> str:
    """The page with its style, its script and its data inside.

    Texts may hold anything: they reach the page as JSON, and the script sets them as text.
    """
    parts = {"data": embedded_json(_short(data))}
    return filled(template("captum_advise.evaluation.report", "page_template"), parts)


def content(report: Report, images: Sequence[ReportImage]) -> dict[str, Any]:
    """The data of the page. Lists by method and by metric follow those of the report."""
    comparison, methods = report.comparison, report.methods
    information, configuration = report.information, report.information["configuration"]
    settings = {name: own for name, own in configuration.items() if name not in _SHOWN_ABOVE}
    settings |= {"bootstrap": f"{N_RESAMPLES} resamples", "machine": information.get("machine")}
    n_tests = sorted({count for count in comparison.tests if count}, reverse=True)
    return {
        "network": str(configuration.get("network") or "The model"),
        "layer": str(configuration.get("layer", "")),
        "images": int(report.images["index"].nunique()),
        "failures": {"count": len(report.failures), "shown": [*report.failures[:_FAILURES]]},
        "date": str(information["sessions"][-1]["ended"]),
        "settings": {name: value for name, value in settings.items() if value is not None},
        "methods": list(methods),
        "baseline": methods.index(default_baseline(methods)),
        "tests": f"{' and '.join(map(str, n_tests)) or 'no'} tests against the baseline",
        "metrics": [
            {
                "name": metric.name,
                "title": metric.title,
                "higher": metric.higher_is_better,
                "group": metric.kind,
                "digits": metric.digits,
            }
            for metric in report.metrics
        ],
        "means": comparison.means.tolist(),
        "lows": comparison.low.tolist(),
        "highs": comparison.high.tolist(),
        "differences": [_differences(comparison, baseline) for baseline in methods],
        "ranks": [comparison.ranks[m.name] if m.judges else None for m in report.metrics],
        "mean_ranks": mean_ranks(comparison)[1],
        "conclusions": [vars(conclusions(comparison, name, report.by_avx)) for name in methods],
        "curves": [
            {
                "name": metric.name,
                "title": metric.title.removesuffix(" AUC"),
                **vars(metric.curve),
                "lines": [_line(report.curves.get((metric.name, method))) for method in methods],
            }
            for metric in report.metrics
            if metric.curve and any(name == metric.name for name, _ in report.curves)
        ],
        "colours": heat_colours(),
        "gallery": [_image(report, image) for image in images],
    }


def _differences(comparison: Comparison, baseline: str) -> list[list[list[float] | None]]:
    """By metric and method: mean, ends, share better, p, p after Holm, outcome."""

    def entry(method: str, metric: Metric) -> list[float] | None:
        found = comparison.differences.get((baseline, method, metric.name))
        return None if found is None else [*astuple(found)[:-1], found.outcome]

    return [[entry(m, metric) for m in comparison.methods] for metric in comparison.metrics]


def _line(curve: MeanCurve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    ends = {end: getattr(curve, end).tolist() for end in ("mean", "low", "high")}
    return {"images": curve.images, **ends}


def _image(report: Report, image: ReportImage) -> dict[str, Any]:
    rows = (
        report.images[report.images["index"] == image.index]
        .set_index("method")
        .loc[[*report.methods]]
    )
    first, names = rows.iloc[0], report.class_names

    def class_name(index: int) -> str:
        return names[index] if index < len(names) else f"class {index}"

    return {
        "file": str(first["file"]),
        "target": class_name(int(first["target"])),
        "predicted": class_name(int(first["predicted"])),
        "confidence": float(first["confidence"]),
        **vars(image),
        "values": [rows[metric.name].astype(float).tolist() for metric in report.metrics],
    }


def _short(value: Any) -> Any:
    """The same with numbers of seven digits, as in the results."""
    if isinstance(value, Mapping):
        return {key: _short(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_short(entry) for entry in value]
    return float(f"{value:.7g}") if isinstance(value, float) and isfinite(value) else value
