"""Checks of metrics: which of them notice that a map was degraded, and which can be gamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from captum_advise._core.scoring import as_masks
from captum_advise._utils.markdown import markdown_table
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import METRICS, MOSAIC_METRICS, Metric
from captum_advise.evaluation.methods import (
    ClassMaps,
    Context,
    Method,
    MethodLike,
    SavedMaps,
    as_method,
    get_methods,
)
from captum_advise.evaluation.mosaics import by_image
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, p_value_of
from captum_advise.evaluation.runner import Evaluation, evaluate
from captum_advise.evaluation.store import write_output
from captum_advise.pixels import normalize_maps

if TYPE_CHECKING:
    import pandas as pd

ORIGINAL = "original"
_OTHER_CLASS = "other class"


def _shifted(maps: Tensor) -> Tensor:
    return maps.roll([side // 2 for side in maps.shape[2:]], (2, 3))


def _shuffled(maps: Tensor) -> Tensor:
    order = torch.randperm(maps.shape[2:].numel()).to(maps.device)
    return maps.flatten(2)[..., order].view_as(maps)


def _blurred(maps: Tensor) -> Tensor:
    window = [side // 4 * 2 + 1 for side in maps.shape[2:]]
    return F.avg_pool2d(maps, window, 1, [side // 2 for side in window], count_include_pad=False)


def _random(maps: Tensor) -> Tensor:
    return torch.rand(maps.shape).to(maps)


def _root(maps: Tensor) -> Tensor:
    return normalize_maps(maps).sqrt()


def _square(maps: Tensor) -> Tensor:
    return normalize_maps(maps).square()


# What makes a map worse, and what leaves the order of its pixels.
_WORSE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "shifted": _shifted,
    "shuffled": _shuffled,
    "blurred": _blurred,
    _OTHER_CLASS: torch.clone,
    "random": _random,
}
_MONOTONE: Mapping[str, Callable[[Tensor], Tensor]] = {"root": _root, "square": _square}


@dataclass(frozen=True)
class Section:
    """A table of the report.

    Attributes:
        title: Its title.
        text: What it shows.
        column: The column of :func:`check_metrics` that it shows.
        changes: The changes that it shows.
    """

    title: str
    text: str
    column: str
    changes: tuple[str, ...]

    def rows(self, table: pd.DataFrame) -> list[list[str]]:
        """A metric's name, and its share for each change; * marks a significant one."""
        rows = []
        for metric in dict.fromkeys(table["metric"]):
            entries = table[table["metric"] == metric].set_index("change").loc[[*self.changes]]
            shares = zip(entries[self.column], entries["p_value"], strict=True)
            rows.append(
                [metric, *(f"{share:.0%}{'*' if p < SIGNIFICANCE else ''}" for share, p in shares)]
            )
        return rows


SECTIONS = (
    Section(
        "Degraded maps",
        "Share of images on which the metric gets worse; more is better.",
        "worse",
        tuple(_WORSE),
    ),
    Section(
        "Monotone changes",
        "Share of images on which the metric gets better although the order of the pixels is the "
        "same; a metric with a large share can be gamed.",
        "better",
        tuple(_MONOTONE),
    ),
)
NOTE = (
    f"* p < {SIGNIFICANCE} (paired Wilcoxon signed-rank test, not corrected for the number of "
    "tests)."
)


@dataclass(frozen=True)
class _Degraded:
    """A method whose maps are changed afterwards.

    All changes draw the same random numbers for the map: that of a method that draws samples would
    otherwise not be the one that is compared.
    """

    method: Method
    change: Callable[[Tensor], Tensor]
    of_other_class: bool = False
    at_full_size: bool = False
    random_stream = ORIGINAL

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        if self.of_other_class:
            with torch.no_grad():
                n_classes = model(inputs).shape[1]
            with torch.random.fork_rng(devices=[]):
                offset = torch.randint(1, n_classes, target.shape)
            target = (target + offset.to(target)) % n_classes
        result = self.method(model, layer, inputs, target, context)
        maps = result.maps if isinstance(result, ClassMaps) else result
        maps = maps.detach().float().sum(1, keepdim=True).relu()
        if self.at_full_size:
            # Interpolation would change the order of the pixels afterwards.
            maps = as_masks(maps, inputs.shape[2:])
        return self.change(maps)


def check_metrics(
    model: nn.Module,
    layer: nn.Module,
    dataset: Dataset[Any],
    output: str | Path,
    *,
    method: str | MethodLike = "grad-cam",
    **options: Any,
) -> pd.DataFrame:
    """Find which metrics notice that the maps of a method have been degraded.

    The maps are shifted by half of their sides, shuffled, blurred (a mean over half of each side),
    replaced by those of a random other class, or by noise. A metric should get worse. The square
    root and the square of a map, enlarged to the input and stretched to [0, 1], leave the order of
    its pixels: a metric that gets better can be gamed.

    Args:
        model: As in :func:`evaluate`.
        layer: As in :func:`evaluate`.
        dataset: As in :func:`evaluate`.
        output: Folder for the report of :func:`evaluate`, with ``metric_checks.csv`` and
            ``metric_checks.md``.
        method: The method whose maps are degraded.
        options: Further arguments of :func:`evaluate`.

    Returns:
        One row per metric and change, with the columns ``metric``, ``change``, ``images``,
        ``original`` and ``changed`` (means), ``worse`` and ``better`` (shares of images on which
        the metric is strictly so) and ``p_value`` (paired, two-sided Wilcoxon signed-rank test).

    Raises:
        ValueError: As :func:`evaluate`.

    Example::

        >>> dataset = [(image, 3) for image in images]
        >>> table = check_metrics(net, net.conv4, dataset, "checks", progress=False)
        >>> table.loc[table["change"] == "shifted", "metric"].head(2).tolist()
        ['insertion', 'deletion']
    """
    return checked(model, layer, dataset, output, method=method, **options)[1]


def checked(
    model: nn.Module,
    layer: nn.Module,
    dataset: Dataset[Any],
    output: str | Path,
    *,
    method: str | MethodLike,
    **options: Any,
) -> tuple[Evaluation, pd.DataFrame]:
    """The evaluation of the degraded maps, and the table of :func:`check_metrics`."""
    if isinstance(method, str):
        (original,) = get_methods([method]).values()
    else:
        original = as_method(method)
    if isinstance(original, SavedMaps):
        raise ValueError("Maps in files cannot be checked, as there is none of another class.")
    methods: dict[str, MethodLike] = {ORIGINAL: _Degraded(original, torch.clone)}
    for name, change in _WORSE.items():
        methods[name] = _Degraded(original, change, of_other_class=name == _OTHER_CLASS)
    for name, change in _MONOTONE.items():
        methods[name] = _Degraded(original, change, at_full_size=True)
    evaluation = evaluate(model, layer, dataset, methods, output, **options)
    parts: list[tuple[pd.DataFrame, tuple[Metric, ...]]] = [(evaluation.results, METRICS)]
    if evaluation.mosaics is not None:
        parts.append((by_image(evaluation.mosaics), MOSAIC_METRICS))
    table = compare_changes(parts)
    write_output(
        evaluation.folder / "metric_checks.csv", table.to_csv(index=False, float_format="%.7g")
    )
    write_output(evaluation.folder / "metric_checks.md", _markdown(table))
    return evaluation, table


def compare_changes(parts: Sequence[tuple[pd.DataFrame, tuple[Metric, ...]]]) -> pd.DataFrame:
    """The table of :func:`check_metrics`.

    Args:
        parts: Results, one row per image and change as ``method``, and their metrics.
    """
    return import_optional("pandas", "evaluation").DataFrame(
        [
            _row(results, metric, change)
            for change in (*_WORSE, *_MONOTONE)
            for results, metrics in parts
            for metric in metrics
            if metric.tested and metric.name in results
        ]
    )


def _row(results: pd.DataFrame, metric: Metric, change: str) -> dict[str, Any]:
    values = results.pivot(index="index", columns="method", values=metric.name)
    original, changed = (values[name].to_numpy(np.float64) for name in (ORIGINAL, change))
    loss = original - changed if metric.higher_is_better else changed - original
    return {
        "metric": metric.name,
        "change": change,
        "images": len(values),
        "original": original.mean(),
        "changed": changed.mean(),
        "worse": float((loss > 0).mean()),
        "better": float((loss < 0).mean()),
        "p_value": p_value_of(loss),
    }


def _markdown(table: pd.DataFrame) -> str:
    sections = ["# Check of metrics", f"{int(table['images'].max())} images. {NOTE}"]
    for section in SECTIONS:
        rows = section.rows(table)
        sections += [
            f"## {section.title}",
            section.text,
            markdown_table(["metric", *section.changes], rows),
        ]
    return "\n\n".join(sections) + "\n"
