"""Means with intervals, paired comparisons, and ranks of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

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
            metrics against this baseline.
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
class Ranks:
    """Ranks of methods on a metric (Demsar, JMLR 7, 2006, images as data sets).

    Attributes:
        mean: Mean over images of each method's rank. The best method has rank 1; ties share. NaN
            for a method with images of which the metric is not known.
        p_value: Of Friedman's test that all methods have the same rank; NaN below three methods or
            two images.
        critical_difference: Nemenyi's: mean ranks that are further apart differ at the 5% level.
    """

    mean: tuple[float, ...]
    p_value: float
    critical_difference: float


@dataclass(frozen=True)
class Comparison:
    """All statistics of a run.

    Attributes:
        methods: In the order of the results.
        metrics: All of them.
        images: Number of images.
        means: (metrics, methods).
        low: Lower ends of the 95% percentile bootstrap intervals of the means; NaN for one image.
        high: Upper ends.
        differences: By baseline, method and name of the metric, for metrics that are tested.
        ranks: By name of the metric, for metrics that are tested.
    """

    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    images: int
    means: _Values
    low: _Values
    high: _Values
    differences: dict[tuple[str, str, str], Difference]
    ranks: dict[str, Ranks]


def summarise(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric], *, seed: int
) -> pd.DataFrame:
    """One row per method and metric.

    Args:
        results: One row per image and method: ``index``, ``method`` and the metrics' columns.
        methods: In the order of the rows.
        metrics: Which columns.
        seed: Seed of the bootstrap.

    Returns:
        Columns ``method``, ``metric``, ``images``, ``mean``, ``low`` and ``high`` (the 95%
        percentile bootstrap interval of the mean over images, NaN for a single image),
        ``beats_grad_cam`` (share of images on which the method is strictly better), ``p_value``
        (paired, two-sided Wilcoxon signed-rank test of the difference) and ``p_holm`` (the same,
        corrected by Holm's method for all tests of the table). The last three are NaN where there
        is nothing to compare.
    """
    return as_table(compare_methods(results, methods, metrics, seed=seed))


def as_table(comparison: Comparison) -> pd.DataFrame:
    """The table that :func:`summarise` returns."""
    rows = []
    for column, method in enumerate(comparison.methods):
        for row, metric in enumerate(comparison.metrics):
            difference = comparison.differences.get((REFERENCE, method, metric.name))
            rows.append(
                {
                    "method": method,
                    "metric": metric.name,
                    "images": comparison.images,
                    "mean": comparison.means[row, column],
                    "low": comparison.low[row, column],
                    "high": comparison.high[row, column],
                    "beats_grad_cam": difference.better if difference else np.nan,
                    "p_value": difference.p_value if difference else np.nan,
                    "p_holm": difference.p_holm if difference else np.nan,
                }
            )
    return import_optional("pandas", "evaluation").DataFrame(rows)


def compare_methods(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric], *, seed: int
) -> Comparison:
    """Means, ranks, and all pairs of methods.

    Args:
        results: As in :func:`summarise`.
        methods: As in :func:`summarise`.
        metrics: As in :func:`summarise`.
        seed: As in :func:`summarise`.
    """
    tables = [
        results.pivot(index="index", columns="method", values=metric.name)[list(methods)]
        for metric in metrics
    ]
    # (metrics, images, methods)
    values = np.stack([table.to_numpy(dtype=np.float64) for table in tables])
    resampled = _resampled_means(values, seed)
    low, high = _interval(resampled)
    tested = [row for row, metric in enumerate(metrics) if metric.tested]
    return Comparison(
        methods=tuple(methods),
        metrics=tuple(metrics),
        images=values.shape[1],
        means=values.mean(1),
        low=low,
        high=high,
        differences=_differences(methods, metrics, values, resampled),
        ranks={metrics[row].name: _ranks(_merit(values[row], metrics[row])) for row in tested},
    )


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


def _resampled_means(values: _Values, seed: int) -> _Values:
    """Means over axis 1 of resampled images, (metrics, methods, resamples), none for one image.

    All methods and metrics share the resampled images, so differences of these means are those of
    a paired bootstrap.
    """
    if values.shape[1] < 2:
        return np.empty((values.shape[0], values.shape[2], 0))
    # As the seconds of saved maps.
    unknown = np.any(np.isnan(values), axis=1)[..., np.newaxis]
    bootstrap = import_optional("scipy.stats", "evaluation").bootstrap(
        (np.nan_to_num(values),),
        np.mean,
        axis=1,
        n_resamples=N_RESAMPLES,
        batch=max(1, _BATCH // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    distribution: _Values = bootstrap.bootstrap_distribution
    return np.where(unknown, np.nan, distribution)


def _interval(resampled: _Values) -> tuple[_Values, _Values]:
    """The ends of the 95% percentile interval, over the last axis."""
    if not resampled.shape[-1]:
        missing = np.full(resampled.shape[:-1], np.nan)
        return missing, missing
    low, high = np.percentile(resampled, [2.5, 97.5], axis=-1)
    return low, high


def _differences(
    methods: Sequence[str], metrics: Sequence[Metric], values: _Values, resampled: _Values
) -> dict[tuple[str, str, str], Difference]:
    """All ordered pairs of methods on each tested metric; the test is the same both ways."""
    p_values: dict[tuple[str, str, str], float] = {}
    differences: dict[tuple[str, str, str], Difference] = {}
    tested = [(row, metric) for row, metric in enumerate(metrics) if metric.tested]
    for row, metric in tested:
        merit = _merit(values[row], metric)
        for i, j in combinations(range(len(methods)), 2):
            p_value = p_value_of(merit[:, i] - merit[:, j])
            for pair in ((i, j), (j, i)):
                p_values[(methods[pair[0]], methods[pair[1]], metric.name)] = p_value
    for i, baseline in enumerate(methods):
        family = [
            (baseline, method, metric.name)
            for method in methods
            if method != baseline
            for _, metric in tested
        ]
        corrected = dict(zip(family, holm([p_values[key] for key in family]), strict=True))
        for row, metric in tested:
            merit = _merit(values[row], metric)
            for j, method in enumerate(methods):
                if i == j:
                    continue
                key = (baseline, method, metric.name)
                low, high = _interval(resampled[row, j] - resampled[row, i])
                gain = merit[:, j] - merit[:, i]
                differences[key] = Difference(
                    mean=float((values[row, :, j] - values[row, :, i]).mean()),
                    low=float(low),
                    high=float(high),
                    better=_share(gain),
                    p_value=p_values[key],
                    p_holm=float(corrected[key]),
                    direction=_direction(gain),
                )
    return differences


def _merit(values: _Values, metric: Metric) -> _Values:
    """Values of which larger is better."""
    return values if metric.higher_is_better else -values


def _share(gain: _Values) -> float:
    """The share of gains above zero; NaN if one is not known."""
    return np.nan if np.isnan(gain).any() else float((gain > 0).mean())


def _direction(gain: _Values) -> int:
    """The sign of gains by their mean and by their signed ranks, 0 if these differ."""
    if np.isnan(gain).any():
        return 0
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


def _ranks(merit: _Values) -> Ranks:
    """Ranks of the columns of (images, methods), the largest first; NaN if a value is not known."""
    stats = import_optional("scipy.stats", "evaluation")
    is_known = ~np.isnan(merit).any(0)
    n_images, n_methods = len(merit), int(is_known.sum())
    mean = np.full(merit.shape[1], np.nan)
    if not n_methods:
        return Ranks(tuple(mean.tolist()), np.nan, np.nan)
    ranks = stats.rankdata(-merit[:, is_known], axis=1)
    mean[is_known] = ranks.mean(0)
    p_value, critical = np.nan, np.nan
    if n_methods > 1:
        quantile = stats.studentized_range.ppf(1 - SIGNIFICANCE, n_methods, np.inf) / np.sqrt(2)
        critical = float(quantile * np.sqrt(n_methods * (n_methods + 1) / (6 * n_images)))
    if n_methods > 2 and n_images > 1:
        # Where all methods tie on all images, the statistic is 0 / 0.
        tied = (ranks == ranks[:, :1]).all()
        p_value = 1.0 if tied else float(stats.friedmanchisquare(*ranks.T).pvalue)
    return Ranks(tuple(mean.tolist()), p_value, critical)
