"""Means with intervals, paired comparisons, and ranks of methods."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
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
        images: Number of images of each metric.
        tests: Number of tests against a baseline that the p value of each metric is corrected for.
        means: (metrics, methods).
        low: Lower ends of the 95% percentile bootstrap intervals of the means; NaN for one image.
        high: Upper ends.
        differences: By baseline, method and name of the metric, for metrics that are tested.
        ranks: By name of the metric, for metrics that are tested.
    """

    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    images: tuple[int, ...]
    tests: tuple[int, ...]
    means: _Values
    low: _Values
    high: _Values
    differences: dict[tuple[str, str, str], Difference]
    ranks: dict[str, Ranks]

    def summary(self) -> pd.DataFrame:
        """One row per method and metric.

        Columns ``method``, ``metric``, ``images``, ``mean``, ``low`` and ``high`` (the interval),
        and the comparison with Grad-CAM: ``beats_grad_cam`` (share of images on which the method is
        strictly better), ``p_value`` and ``p_holm``, as in :class:`Difference`. These three are NaN
        where there is nothing to compare.
        """
        rows = []
        for column, method in enumerate(self.methods):
            for row, metric in enumerate(self.metrics):
                found = self.differences.get((REFERENCE, method, metric.name))
                rows.append(
                    {
                        "method": method,
                        "metric": metric.name,
                        "images": self.images[row],
                        "mean": self.means[row, column],
                        "low": self.low[row, column],
                        "high": self.high[row, column],
                        "beats_grad_cam": found.better if found else np.nan,
                        "p_value": found.p_value if found else np.nan,
                        "p_holm": found.p_holm if found else np.nan,
                    }
                )
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
    merits = {
        metric.name: own if metric.higher_is_better else -own
        for metric, own in zip(metrics, values, strict=True)
        if metric.tested
    }
    families = _families(results, merits)
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
        differences=_differences(methods, metrics, values, merits, families, resampled),
        ranks={name: _ranks(merit) for name, merit in merits.items()},
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


def _families(results: pd.DataFrame, metrics: Iterable[str]) -> list[set[str]]:
    """The metrics whose tests are corrected together: those on images, and those on mosaics."""
    tiled = results[results["image"].notna()] if "image" in results else results[:0]
    on_mosaics = {name for name in metrics if tiled[name].notna().any()}
    return [set(metrics) - on_mosaics, on_mosaics]


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
    merits: Mapping[str, _Values],
    families: Sequence[Collection[str]],
    resampled: _Values,
) -> dict[tuple[str, str, str], Difference]:
    """All ordered pairs of methods on each tested metric; the test is the same both ways."""
    p_values: dict[tuple[str, str, str], float] = {}
    for name, merit in merits.items():
        for i, j in combinations(range(len(methods)), 2):
            p_value = p_value_of(merit[:, i] - merit[:, j])
            p_values[methods[i], methods[j], name] = p_value
            p_values[methods[j], methods[i], name] = p_value
    corrected: dict[tuple[str, str, str], float] = {}
    for baseline, family in product(methods, families):
        keys = [key for key in p_values if key[0] == baseline and key[2] in family]
        corrected |= dict(zip(keys, holm([p_values[key] for key in keys]), strict=True))
    differences = {}
    for (i, baseline), (j, method) in permutations(enumerate(methods), 2):
        for row, metric in enumerate(metrics):
            if not metric.tested:
                continue
            key = (baseline, method, metric.name)
            low, high = _interval(resampled[row, j] - resampled[row, i])
            gain = merits[metric.name][:, j] - merits[metric.name][:, i]
            differences[key] = Difference(
                mean=float((values[row][:, j] - values[row][:, i]).mean()),
                low=float(low),
                high=float(high),
                better=_share(gain),
                p_value=p_values[key],
                p_holm=float(corrected[key]),
                direction=_direction(gain),
            )
    return differences


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
