"""``report.html``: the results of a run as one page that works without a network connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_advise.evaluation.columns import Curve, Metric
from captum_advise.evaluation.curves import MeanCurve
from captum_advise.evaluation.output import write_output
from captum_advise.evaluation.report.conclusions import conclusions, judges, mean_ranks
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
class Run:
    """What the page is about.

    Attributes:
        results: One row per item and method.
        comparison: Their statistics.
        curves: The mean curves, by curve and method.
        curve_titles: How they are drawn.
        images: Those that are embedded.
        information: The content of ``run.json``.
        class_names: By class index; empty if they are not known.
        failures: Names of items that could not be evaluated, with the reasons.
        by_avx: The methods that select by AVX.
    """

    results: pd.DataFrame
    comparison: Comparison
    curves: Mapping[tuple[str, str], MeanCurve]
    curve_titles: Sequence[Curve]
    images: Sequence[ReportImage]
    information: Mapping[str, Any]
    class_names: Sequence[str] = ()
    failures: Sequence[tuple[str, str]] = ()
    by_avx: Sequence[str] = ()


def write_report(
    folder: Path,
    *,
    results: pd.DataFrame,
    methods: Sequence[str],
    metrics: Sequence[Metric],
    curve_titles: Sequence[Curve],
    curves: Mapping[tuple[str, str], MeanCurve],
    shown: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]],
    information: Mapping[str, Any],
    class_names: Sequence[str] = (),
    failures: Sequence[tuple[str, str]] = (),
    by_avx: Sequence[str] = (),
) -> pd.DataFrame:
    """Write ``summary.csv`` and ``report.html``, and return the summary.

    The results have one row per item and method: ``index``, ``file``, ``method``, ``target``,
    ``predicted``, ``confidence``, and the metrics, empty where an item has none. Items that show an
    image within a mosaic name it in the column ``image``. ``shown`` gives, for the position of an
    image, the image, (3, H, W) in [0, 1], and the map (1, 1, h, w) of each method. The other
    arguments are the attributes of :class:`Run`.
    """
    seed = int(information["configuration"]["seed"])
    comparison = compare_methods(results, methods, metrics, seed=seed)
    summary = comparison.summary()
    write_output(folder / "summary.csv", summary.to_csv(index=False, float_format="%.7g"))
    images = results[results["image"].isna()] if "image" in results else results
    worst = worst_images(images, comparison)
    chosen = chosen_images(sorted(set(images["index"])), worst, len(methods))
    run = Run(
        results=images,
        comparison=comparison,
        curves=curves,
        curve_titles=curve_titles,
        images=[embedded(index, *shown(index)) for index in chosen],
        information=information,
        class_names=class_names,
        failures=failures,
        by_avx=by_avx,
    )
    write_output(folder / "report.html", render(content(run)))
    return summary


def render(data: Mapping[str, Any]) -> str:
    """The page with its style, its script and its data inside.

    Texts may hold anything: they reach the page as JSON, and the script sets them as text.
    """
    parts = {"data": embedded_json(_short(data))}
    return filled(template("captum_advise.evaluation.report", "page_template"), parts)


def content(run: Run) -> dict[str, Any]:
    """The data of the page. Lists by method and by metric follow the comparison's order."""
    comparison, information = run.comparison, run.information
    configuration = information.get("configuration", {})
    sessions = information.get("sessions") or [{}]
    methods = comparison.methods
    n_tests = sorted({count for count in comparison.tests if count}, reverse=True)
    titles = {metric.name: metric.title for metric in comparison.metrics}
    return {
        "network": str(configuration.get("network") or "The model"),
        "layer": str(configuration.get("layer", "")),
        "images": int(run.results["index"].nunique()),
        "failures": {"count": len(run.failures), "shown": [*run.failures[:_FAILURES]]},
        "date": str(sessions[-1].get("ended", "")),
        "settings": list(_settings(configuration, information)),
        "methods": list(methods),
        "baseline": methods.index(default_baseline(methods)),
        "tests": f"{' and '.join(map(str, n_tests)) or 'no'} tests against the baseline",
        "metrics": [_metric(metric) for metric in comparison.metrics],
        "means": comparison.means.tolist(),
        "lows": comparison.low.tolist(),
        "highs": comparison.high.tolist(),
        "differences": _differences(comparison),
        "ranks": [_ranks(comparison, metric) for metric in comparison.metrics],
        "mean_ranks": mean_ranks(comparison)[1],
        "conclusions": [vars(conclusions(comparison, name, run.by_avx)) for name in methods],
        "curves": [
            _curve(run, curve, titles.get(curve.name, curve.name).removesuffix(" AUC"))
            for curve in run.curve_titles
            if any(name == curve.name for name, _ in run.curves)
        ],
        "colours": heat_colours(),
        "gallery": [_image(run, image) for image in run.images],
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "title": metric.title,
        "higher": metric.higher_is_better,
        "group": metric.kind,
        "digits": metric.digits,
    }


def _differences(comparison: Comparison) -> list[list[list[list[float] | None]]]:
    """By baseline, metric and method: mean, ends, share better, p, p after Holm, outcome."""

    def entry(baseline: str, metric: Metric, method: str) -> list[float] | None:
        found = comparison.differences.get((baseline, method, metric.name))
        return None if found is None else [*astuple(found)[:-1], found.outcome]

    return [
        [
            [entry(baseline, metric, method) for method in comparison.methods]
            for metric in comparison.metrics
        ]
        for baseline in comparison.methods
    ]


def _ranks(comparison: Comparison, metric: Metric) -> dict[str, Any] | None:
    if not judges(metric):
        return None
    ranks = comparison.ranks[metric.name]
    return {"mean": ranks.mean, "p": ranks.p_value, "critical": ranks.critical_difference}


def _curve(run: Run, curve: Curve, title: str) -> dict[str, Any]:
    means = [run.curves.get((curve.name, method)) for method in run.comparison.methods]
    return {
        "name": curve.name,
        "title": title,
        "x": curve.x_title,
        "y": curve.y_title,
        "start": curve.start,
        "end": curve.end,
        "lines": [
            found
            and {
                "images": found.images,
                **{end: getattr(found, end).tolist() for end in ("mean", "low", "high")},
            }
            for found in means
        ],
    }


def _image(run: Run, image: ReportImage) -> dict[str, Any]:
    rows = run.results[run.results["index"] == image.index].set_index("method")
    methods, metrics = run.comparison.methods, run.comparison.metrics
    first = rows.loc[methods[0]]
    return {
        "file": str(first["file"]),
        "target": _class(run, int(first["target"])),
        "predicted": _class(run, int(first["predicted"])),
        "confidence": float(first["confidence"]),
        **vars(image),
        "values": [[float(rows.at[m, metric.name]) for m in methods] for metric in metrics],
    }


def _class(run: Run, index: int) -> str:
    return run.class_names[index] if index < len(run.class_names) else f"class {index}"


def _settings(
    configuration: Mapping[str, Any], information: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for name, value in configuration.items():
        if name not in _SHOWN_ABOVE and value is not None:
            yield name, _in_words(value)
    yield "bootstrap", f"{N_RESAMPLES} resamples"
    if "machine" in information:
        yield "machine", _in_words(information["machine"])


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {_in_words(entry)}" for key, entry in value.items() if entry is not None
        )
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return json.dumps(value)


def _short(value: Any) -> Any:
    """The same with numbers of seven digits, as in the results."""
    if isinstance(value, Mapping):
        return {key: _short(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_short(entry) for entry in value]
    return float(f"{value:.7g}") if isinstance(value, float) and isfinite(value) else value
