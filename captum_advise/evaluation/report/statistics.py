"""Means with intervals, paired comparisons, and ranks of methods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import Metric

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "grad-cam"
N_RESAMPLES = 2000
# A difference with a smaller p value after correction is called significant.
SIGNIFICANCE = 0.05
# How many values are resampled at once, to bound memory: 80 MB.
_BATCH = 10_000_000

_SUMMARY = (
    *("method", "metric", "images", "mean", "low", "high"),
    *("beats_grad_cam", "p_value", "p_holm"),
)

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A method compared with a baseline method on a metric, image by image.

    Attributes:
        mean: Mean over images of the method's value minus the baseline's.
        low: Lower end of the 95% percentile bootstrap interval of the mean; NaN for one image.
        high: Upper end.
        better: Share of images on which the method is strictly better.
        p_value: Of the paired, two-sided Wilcoxon signed-rank test.
        p_holm: The same, corrected by Holm's method for the tests of all other methods and all
            metrics against this baseline; those on mosaics apart.
        direction: 1 if the method is better by the mean and by the test's signed ranks, -1 if it is
            worse by both, 0 if they disagree.
    """

    mean: float
    low: float
    high: float
    better: float
    p_value: float
    p_holm: float
    direction: int

    @property
    def outcome(self) -> int:
        """1 if the method is significantly better, -1 if it is worse, and 0 otherwise."""
        return self.direction if self.p_holm < SIGNIFICANCE else 0


@dataclass(frozen=True)
class Comparison:
    """All statistics of a run.

    Attributes:
        methods: In the order of the results.
        metrics: All of them.
        images: Number of images of each metric.
        tests: Number of tests against a baseline that the p value of each metric is corrected for.
        means: (metrics, methods).
        low: Lower ends of the 95% percentile bootstrap intervals of the means; NaN for one image.
        high: Upper ends.
        differences: By baseline, method and name of the metric, for metrics that are tested.
        ranks: For each of these metrics by name, the mean over images of each method's rank. The
            best method has rank 1, and ties share. NaN for a method with images of which the metric
            is not known.
    """

    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    images: tuple[int, ...]
    tests: tuple[int, ...]
    means: _Values
    low: _Values
    high: _Values
    differences: dict[tuple[str, str, str], Difference]
    ranks: dict[str, tuple[float, ...]]

    def summary(self) -> pd.DataFrame:
        """One row per method and metric.

        Columns ``method``, ``metric``, ``images``, ``mean``, ``low`` and ``high`` (the interval),
        and the comparison with Grad-CAM: ``beats_grad_cam`` (share of images on which the method is
        strictly better), ``p_value`` and ``p_holm``, as in :class:`Difference`. These three are NaN
        where there is nothing to compare.
        """
        rows: list[dict[str, Any]] = []
        for (column, method), (row, metric) in product(
            enumerate(self.methods), enumerate(self.metrics)
        ):
            found = self.differences.get((REFERENCE, method, metric.name))
            values = [of[row, column] for of in (self.means, self.low, self.high)]
            tests = (found.better, found.p_value, found.p_holm) if found else [np.nan] * 3
            own = [method, metric.name, self.images[row], *values, *tests]
            rows.append(dict(zip(_SUMMARY, own, strict=True)))
        return import_optional("pandas", "evaluation").DataFrame(rows)


def compare_methods(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric], *, seed: int
) -> Comparison:
    """Means, ranks, and all pairs of methods.

    Args:
        results: One row per item and method: ``index``, ``method`` and the metrics' columns. Where
            a metric has no value for any method, it leaves the item out. The column ``image``, if
            there is one, names the image of items that show a part of a mosaic: each image counts
            once, with its mean over these items.
        methods: Names, in the order of the tables.
        metrics: Which columns.
        seed: Seed of the bootstrap.
    """
    tables = _by_image(results, methods, metrics)
    # Each (images, methods).
    values = [np.ascontiguousarray(table.to_numpy(dtype=np.float64)) for table in tables]
    resampled = _resampled_means(tables, values, seed)
    low, high = _interval(resampled)
    # Tests on mosaics are corrected apart.
    families = [
        {metric.name for metric in metrics if metric.tested and (metric.of == "mosaics") == apart}
        for apart in (False, True)
    ]
    return Comparison(
        methods=tuple(methods),
        metrics=tuple(metrics),
        images=tuple(len(table) for table in tables),
        tests=tuple(
            sum(len(family) for family in families if metric.name in family) * (len(methods) - 1)
            for metric in metrics
        ),
        means=np.stack([of_metric.mean(0) for of_metric in values]),
        low=low,
        high=high,
        differences=_differences(methods, metrics, values, families, resampled),
        ranks={
            metric.name: _mean_ranks(own if metric.higher_is_better else -own)
            for metric, own in zip(metrics, values, strict=True)
            if metric.tested
        },
    )


def default_baseline(methods: Sequence[str]) -> str:
    """Grad-CAM if it is among the methods, otherwise the first."""
    return REFERENCE if REFERENCE in methods else methods[0]


def _by_image(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric]
) -> list[pd.DataFrame]:
    """The values of each metric, a row per image and a column per method."""
    image = results["index"]
    if "image" in results:
        image = results["image"].where(results["image"].notna(), image)
    names = [metric.name for metric in metrics]
    means = results.groupby([image.rename("image"), "method"])[names].mean()
    tables = []
    for name in names:
        table = means[name].unstack()[list(methods)]
        known = table.notna().any(axis=1)
        # Nobody may know it, as the seconds of saved maps.
        tables.append(table[known] if known.any() else table)
    return tables


def holm(p_values: npt.ArrayLike) -> _Values:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: (n,). Those that are NaN do not count, and stay so.

    Returns:
        (n,). The probability of any false rejection is at most the level of the test.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p_values.shape, np.nan)
    corrected[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return corrected


def _resampled_means(
    tables: Sequence[pd.DataFrame], values: Sequence[_Values], seed: int
) -> _Values:
    """Means of resampled images, (metrics, methods, resamples), NaN for one image.

    All methods and all metrics of the same images share the resampled images, so differences of
    these means are those of a paired bootstrap.
    """
    resampled = np.full((len(tables), values[0].shape[1], N_RESAMPLES), np.nan)
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, table in enumerate(tables):
        groups.setdefault(tuple(table.index), []).append(row)
    for images, rows in groups.items():
        if len(images) < 2:
            continue
        of_group = np.stack([values[row] for row in rows])
        bootstrap = import_optional("scipy.stats", "evaluation").bootstrap(
            (np.nan_to_num(of_group),),
            np.mean,
            axis=1,
            n_resamples=N_RESAMPLES,
            batch=max(1, _BATCH // of_group.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        # As the seconds of saved maps.
        unknown = np.any(np.isnan(of_group), axis=1)[..., np.newaxis]
        resampled[rows] = np.where(unknown, np.nan, bootstrap.bootstrap_distribution)
    return resampled


def _interval(resampled: _Values) -> tuple[_Values, _Values]:
    """The ends of the 95% percentile interval, over the last axis."""
    low, high = np.percentile(resampled, [2.5, 97.5], axis=-1)
    return low, high


def _differences(
    methods: Sequence[str],
    metrics: Sequence[Metric],
    values: Sequence[_Values],
    families: Sequence[Collection[str]],
    resampled: _Values,
) -> dict[tuple[str, str, str], Difference]:
    """All ordered pairs of methods on each tested metric."""
    found: dict[tuple[str, str, str], Difference] = {}
    for row, metric in enumerate(metrics):
        if not metric.tested:
            continue
        for (i, baseline), (j, method) in permutations(enumerate(methods), 2):
            difference = values[row][:, j] - values[row][:, i]
            gain = difference if metric.higher_is_better else -difference
            is_known = not np.isnan(gain).any()
            low, high = _interval(resampled[row, j] - resampled[row, i])
            twin = found.get((method, baseline, metric.name))
            found[baseline, method, metric.name] = Difference(
                mean=float(difference.mean()),
                low=float(low),
                high=float(high),
                better=float((gain > 0).mean()) if is_known else np.nan,
                p_value=twin.p_value if twin else p_value_of(gain),  # the same both ways
                p_holm=np.nan,
                direction=_direction(gain) if is_known else 0,
            )
    for baseline, family in product(methods, families):
        keys = [key for key in found if key[0] == baseline and key[2] in family]
        corrected = holm([found[key].p_value for key in keys])
        for key, p_value in zip(keys, corrected.tolist(), strict=True):
            found[key] = replace(found[key], p_holm=p_value)
    return found


def _direction(gain: _Values) -> int:
    """The sign of gains by their mean and by their signed ranks, 0 if these differ."""
    differing = gain[gain != 0]  # as the test has it
    ranks = import_optional("scipy.stats", "evaluation").rankdata(np.abs(differing))
    by_mean, by_ranks = np.sign(gain.mean()), np.sign((np.sign(differing) * ranks).sum())
    return int(by_mean) if by_mean == by_ranks else 0


def p_value_of(gain: _Values) -> float:
    """Of the paired, two-sided Wilcoxon signed-rank test of gains, one for each image.

    NaN if a gain is not known: saved maps have no value of some metrics.
    """
    if np.isnan(gain).any():
        return np.nan
    # Without any difference the test has nothing to rank.
    if not gain.any():
        return 1.0
    stats = import_optional("scipy.stats", "evaluation")
    return float(stats.wilcoxon(gain).pvalue)


def _mean_ranks(merit: _Values) -> tuple[float, ...]:
    """Mean ranks of the columns of (images, methods), the largest first."""
    table = import_optional("pandas", "evaluation").DataFrame(-merit)
    return tuple(table.loc[:, table.notna().all()].rank(axis=1).mean().reindex(table.columns))
