"""Means with intervals, comparisons with a baseline, and ranks of methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import Metric

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "grad-cam"
_N_RESAMPLES = 2000
# A difference with a smaller p value after correction is called significant.
SIGNIFICANCE = 0.05
# How many values are resampled at once, to bound memory: 80 MB.
_BATCH = 10_000_000

_COLUMNS = (
    *("method", "metric", "images", "mean", "low", "high", "rank"),
    *("difference", "beats_baseline", "direction", "p_value", "p_holm"),
)

_Values = npt.NDArray[np.float64]


def baseline_of(methods: Sequence[str]) -> str:
    """The method that the others are compared with: Grad-CAM, or the first."""
    return REFERENCE if REFERENCE in methods else methods[0]


def compare_methods(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric], *, seed: int
) -> pd.DataFrame:
    """Means, ranks, and comparisons with the baseline, image by image.

    Args:
        results: One row per item and method: ``index``, ``method`` and the metrics' columns. Where
            a metric has no value for any method, it leaves the item out. The column ``image``, if
            there is one, is the same for items that show parts of one image, as cells of mosaics
            and objects of a scene do: it counts once, with its mean over these items.
        methods: Names, in the order of the tables.
        metrics: Which columns.
        seed: Seed of the bootstrap.

    Returns:
        One row per ``method`` and ``metric``, the columns of ``summary.csv`` that
        docs/reference/evaluation-report.md describes. ``rank`` is NaN for a method with images of
        which the metric is not known. What compares is NaN for the baseline, and for costs.
    """
    baseline = baseline_of(methods)
    tables = _by_image(results, methods, metrics)
    values = [np.ascontiguousarray(table.to_numpy(dtype=np.float64)) for table in tables]
    low, high = _intervals(tables, values, seed)
    rows: list[dict[str, Any]] = []
    for i, metric in enumerate(metrics):
        merits = tables[i] if metric.higher_is_better else -tables[i]
        known = merits.loc[:, merits.notna().all()]
        means, ranks = values[i].mean(0), (-known).rank(axis=1).mean()
        for j, method in enumerate(methods):
            row = {"method": method, "metric": metric.name, "images": len(merits)}
            row |= {"mean": means[j], "low": low[i, j], "high": high[i, j]}
            if metric.tested:
                row["rank"] = ranks.get(method, np.nan)
            if metric.tested and method != baseline:
                difference = float((tables[i][method] - tables[i][baseline]).to_numpy().mean())
                gain = (merits[method] - merits[baseline]).to_numpy(dtype=np.float64)
                row |= {"difference": difference, "p_value": p_value_of(gain), **_better(gain)}
            rows.append(row)
    pandas = import_optional("pandas", "evaluation")
    found: pd.DataFrame = pandas.DataFrame(rows, columns=_COLUMNS)
    # Tests on mosaics are corrected apart.
    of_mosaics = found["metric"].isin([own.name for own in metrics if own.of == "mosaics"])
    compared = found[found["direction"].notna()]
    for _, family in compared.groupby(of_mosaics):
        found.loc[family.index, "p_holm"] = holm(family["p_value"])
    place = {method: j for j, method in enumerate(methods)}
    return found.sort_values(
        "method", key=lambda own: own.map(place), kind="stable", ignore_index=True
    )


def outcome(row: Any) -> int:
    """1 if a row's method is significantly better than the baseline, -1 if worse, else 0."""
    return int(row["direction"]) if row["p_holm"] < SIGNIFICANCE else 0


def mean_ranks(table: pd.DataFrame, metrics: Sequence[Metric]) -> pd.Series[float]:
    """Of each method over the metrics of faithfulness that all have, the best first; or NaN."""
    names = [metric.name for metric in metrics if metric.kind == "faithfulness"]
    ranks = table.pivot(index="metric", columns="method", values="rank")
    own = ranks.loc[names, table["method"].unique()].dropna()
    return own.mean().sort_values(kind="stable")


def _by_image(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[Metric]
) -> list[pd.DataFrame]:
    """The values of each metric, a row per image and a column per method."""
    image = results.get("image", results["index"]).combine_first(results["index"])
    names = [metric.name for metric in metrics]
    means = results.groupby([image.rename("image"), "method"])[names].mean()
    tables = []
    for name in names:
        table = means[name].unstack()[list(methods)]
        known = table.notna().any(axis=1)
        # Nobody may know it, as the class sensitivity of maps that are read from files.
        tables.append(table[known] if known.any() else table)
    return tables


def holm(p_values: npt.ArrayLike) -> _Values:
    """P values (n,) corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Those that are NaN do not count, and stay so.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p_values.shape, np.nan)
    corrected[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return corrected


def _intervals(
    tables: Sequence[pd.DataFrame], values: Sequence[_Values], seed: int
) -> tuple[_Values, _Values]:
    """Ends of the percentile bootstrap intervals of means, (metrics, methods); NaN for one image.

    All methods and all metrics of the same images share the resampled images.
    """
    low, high = np.full((2, len(tables), values[0].shape[1]), np.nan)
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, table in enumerate(tables):
        groups.setdefault(tuple(table.index), []).append(row)
    for images, rows in groups.items():
        if len(images) < 2:
            continue
        of_group = np.stack([values[row] for row in rows])
        bootstrap = stats.bootstrap(
            (np.nan_to_num(of_group),),
            np.mean,
            axis=1,
            n_resamples=_N_RESAMPLES,
            batch=max(1, _BATCH // of_group.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        # As the class sensitivity of maps that are read from files.
        unknown = np.any(np.isnan(of_group), axis=1)
        low[rows], high[rows] = (
            np.where(unknown, np.nan, end)
            for end in np.percentile(bootstrap.bootstrap_distribution, [2.5, 97.5], axis=-1)
        )
    return low, high


def _better(gain: _Values) -> dict[str, float]:
    """On how many images a method is better, and whether the mean and the signed ranks agree."""
    if np.isnan(gain).any():
        return {"beats_baseline": np.nan, "direction": 0}
    differing = gain[gain != 0]  # as the test has it
    ranks = stats.rankdata(np.abs(differing))
    by_mean, by_ranks = np.sign(gain.mean()), np.sign((np.sign(differing) * ranks).sum())
    return {
        "beats_baseline": float((gain > 0).mean()),
        "direction": int(by_mean) if by_mean == by_ranks else 0,
    }


def p_value_of(gain: _Values) -> float:
    """Of the paired, two-sided Wilcoxon signed-rank test of gains, one for each image.

    NaN if a gain is not known: some methods have no class sensitivity.
    """
    if np.isnan(gain).any():
        return np.nan
    # Without any difference the test has nothing to rank.
    if not gain.any():
        return 1.0
    return float(stats.wilcoxon(gain).pvalue)
