"""The data of the page: what its script shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from captum_advise.evaluation.columns import Curve, Metric
from captum_advise.evaluation.curves import Curves
from captum_advise.evaluation.report_page.conclusions import conclusions
from captum_advise.evaluation.report_page.images import ReportImage, heat_colours
from captum_advise.evaluation.statistics import (
    N_RESAMPLES,
    REFERENCE,
    Comparison,
)

if TYPE_CHECKING:
    import pandas as pd

# Worst cases that are listed for each baseline, method and metric.
_N_WORST = 5
# Parts of the configuration that are shown elsewhere, or that only a program compares.
_NOT_SHOWN = {"format", "network", "layer", "methods", "model", "weights_sha256", "transform"}

Worst = dict[tuple[str, str, str], list[tuple[int, float, float]]]


@dataclass(frozen=True)
class Run:
    """What the page is about.

    Attributes:
        results: One row per image and method.
        comparison: Their statistics.
        curves: The curves that were stored.
        curve_titles: How they are drawn.
        images: Those that are embedded.
        information: The content of ``run.json``.
        class_names: By class index; empty if they are not known.
        seed: Of the bootstrap.
    """

    results: pd.DataFrame
    comparison: Comparison
    curves: Curves
    curve_titles: Sequence[Curve]
    images: Sequence[ReportImage]
    information: Mapping[str, Any]
    class_names: Sequence[str]
    seed: int


def content(run: Run) -> dict[str, Any]:
    """The data of the page. Lists by method and by metric follow the comparison's order."""
    comparison, information = run.comparison, run.information
    configuration = information.get("configuration", {})
    sessions = information.get("sessions") or [{}]
    methods = comparison.methods
    worst = worst_cases(run.results, comparison)
    return {
        "network": str(configuration.get("network") or "The model"),
        "layer": str(configuration.get("layer", "")),
        "images": comparison.images,
        "failed": int(information.get("images_failed", 0)),
        "date": str(sessions[-1].get("ended", "")),
        "settings": list(_settings(configuration, information)),
        "resamples": N_RESAMPLES,
        "seed": run.seed,
        "methods": list(methods),
        "baseline": methods.index(default_baseline(methods)),
        "metrics": [_metric(metric) for metric in comparison.metrics],
        "means": comparison.means.tolist(),
        "lows": comparison.low.tolist(),
        "highs": comparison.high.tolist(),
        "differences": _differences(comparison),
        "ranks": [_ranks(comparison, metric) for metric in comparison.metrics],
        "conclusions": [conclusions(comparison, baseline) for baseline in methods],
        "curves": [_curve(run, curve) for curve in run.curve_titles],
        "colours": heat_colours(),
        "gallery": [_image(run, image) for image in run.images],
        "worst": [
            [
                [worst.get((baseline, method, metric.name), []) for metric in comparison.metrics]
                for method in methods
            ]
            for baseline in methods
        ],
        "files": _files(run.results, worst),
    }


def default_baseline(methods: Sequence[str]) -> str:
    """Grad-CAM if it is among the methods, otherwise the first."""
    return REFERENCE if REFERENCE in methods else methods[0]


def worst_cases(results: pd.DataFrame, comparison: Comparison) -> Worst:
    """By baseline, method and metric, the images on which the method loses most.

    Each with the method's value and the baseline's. Images on which it does not lose are left out.
    """
    worst: Worst = {}
    for metric in comparison.metrics:
        if not metric.tested:
            continue
        table = results.pivot(index="index", columns="method", values=metric.name)
        for baseline in comparison.methods:
            for method in comparison.methods:
                if method == baseline:
                    continue
                loss = table[baseline] - table[method]
                if not metric.higher_is_better:
                    loss = -loss
                loss = loss[loss > 0].nlargest(_N_WORST)
                worst[(baseline, method, metric.name)] = [
                    (int(index), float(table.at[index, method]), float(table.at[index, baseline]))
                    for index in loss.index
                ]
    return worst


def worst_images(worst: Worst, comparison: Comparison) -> list[int]:
    """The worst cases against the default baseline, those of each method in turn."""
    baseline = default_baseline(comparison.methods)
    primary = [m.name for m in comparison.metrics if m.kind == "faithfulness"]
    lists = [
        worst[(baseline, method, metric)]
        for metric in primary
        for method in comparison.methods
        if method != baseline
    ]
    places = range(max(map(len, lists), default=0))
    return [entries[place][0] for place in places for entries in lists if place < len(entries)]


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
        if found is None:
            return None
        return [
            *(found.mean, found.low, found.high, found.better),
            *(found.p_value, found.p_holm, found.outcome),
        ]

    return [
        [
            [entry(baseline, metric, method) for method in comparison.methods]
            for metric in comparison.metrics
        ]
        for baseline in comparison.methods
    ]


def _ranks(comparison: Comparison, metric: Metric) -> dict[str, Any] | None:
    ranks = comparison.ranks.get(metric.name)
    if ranks is None:
        return None
    return {"mean": ranks.mean, "p": ranks.p_value, "critical": ranks.critical_difference}


def _curve(run: Run, curve: Curve) -> dict[str, Any]:
    titles = {metric.name: metric.title for metric in run.comparison.metrics}
    lines = []
    for method in run.comparison.methods:
        mean = run.curves.means.get((curve.name, method))
        lines.append(
            None
            if mean is None
            else {
                "images": mean.images,
                "mean": mean.mean.tolist(),
                "low": mean.low.tolist(),
                "high": mean.high.tolist(),
            }
        )
    return {
        "name": curve.name,
        "title": titles.get(curve.name, curve.name).removesuffix(" AUC"),
        "x": curve.x_title,
        "y": curve.y_title,
        "start": curve.start,
        "end": curve.end,
        "lines": lines,
    }


def _image(run: Run, image: ReportImage) -> dict[str, Any]:
    rows = run.results[run.results["index"] == image.index].set_index("method")
    methods, metrics = run.comparison.methods, run.comparison.metrics
    first = rows.loc[methods[0]]
    return {
        "index": image.index,
        "file": str(first["file"]),
        "target": _class(run, int(first["target"])),
        "predicted": _class(run, int(first["predicted"])),
        "confidence": float(first["confidence"]),
        "source": image.source,
        "width": image.width,
        "height": image.height,
        "maps": image.maps,
        "values": [[float(rows.at[m, metric.name]) for m in methods] for metric in metrics],
        "curves": [[_values(run, image, m, curve) for m in methods] for curve in run.curve_titles],
    }


def _values(run: Run, image: ReportImage, method: str, curve: Curve) -> list[float] | None:
    values = run.curves.single.get((image.index, method, curve.name))
    return None if values is None else values.tolist()


def _class(run: Run, index: int) -> str:
    return run.class_names[index] if index < len(run.class_names) else f"class {index}"


def _files(results: pd.DataFrame, worst: Worst) -> dict[str, str]:
    """The names of the images among the worst cases."""
    indices = {entry[0] for entries in worst.values() for entry in entries}
    shown = results[results["index"].isin(indices)].drop_duplicates("index")
    return {
        str(index): str(file) for index, file in zip(shown["index"], shown["file"], strict=True)
    }


def _settings(
    configuration: Mapping[str, Any], information: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for name, value in configuration.items():
        if name not in _NOT_SHOWN and value is not None:
            yield name, _in_words(value)
    if "machine" in information:
        yield "machine", _in_words(information["machine"])


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        if value.keys() == {"name", "sha256"}:
            return str(value["name"])
        return ", ".join(
            f"{key} {_in_words(entry)}" for key, entry in value.items() if entry is not None
        )
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return json.dumps(value)
