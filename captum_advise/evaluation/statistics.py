"""Means with intervals, and paired comparisons with Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.columns import Metric

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "grad-cam"
N_RESAMPLES = 2000
# How many values are resampled at once, to bound memory: 80 MB.
_BATCH = 10_000_000

_Values = npt.NDArray[np.float64]


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
        ``beats_grad_cam`` (share of images on which the method is strictly better) and
        ``p_value`` (paired, two-sided Wilcoxon signed-rank test of the difference). The last two
        are NaN where there is nothing to compare.
    """
    pandas = import_optional("pandas", "evaluation")
    tables = [
        results.pivot(index="index", columns="method", values=metric.name)[list(methods)]
        for metric in metrics
    ]
    # (metrics, images, methods)
    values = np.stack([table.to_numpy(dtype=np.float64) for table in tables])
    low, high = _interval(values, seed)
    rows = []
    for column, method in enumerate(methods):
        for row, metric in enumerate(metrics):
            share, p_value = np.nan, np.nan
            if metric.tested and REFERENCE in methods and method != REFERENCE:
                gain = values[row, :, column] - values[row, :, list(methods).index(REFERENCE)]
                share, p_value = _compared(gain if metric.higher_is_better else -gain)
            rows.append(
                {
                    "method": method,
                    "metric": metric.name,
                    "images": values.shape[1],
                    "mean": values[row, :, column].mean(),
                    "low": low[row, column],
                    "high": high[row, column],
                    "beats_grad_cam": share,
                    "p_value": p_value,
                }
            )
    return pandas.DataFrame(rows)


def _interval(values: _Values, seed: int) -> tuple[_Values, _Values]:
    """Interval of the mean over axis 1; all methods and metrics share the resampled images."""
    n_images = values.shape[1]
    if n_images < 2:
        missing = np.full((values.shape[0], values.shape[2]), np.nan)
        return missing, missing
    unknown = np.isnan(values).any(1)  # as the seconds of saved maps
    bootstrap = import_optional("scipy.stats", "evaluation").bootstrap(
        (np.nan_to_num(values),),
        np.mean,
        axis=1,
        n_resamples=N_RESAMPLES,
        batch=max(1, _BATCH // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = bootstrap.confidence_interval
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def _compared(gain: _Values) -> tuple[float, float]:
    """The share of gains above zero, and the p value. Saved maps have no value of some metrics."""
    if np.isnan(gain).any():
        return np.nan, np.nan
    share = float((gain > 0).mean())
    # Without any difference the test has nothing to rank.
    stats = import_optional("scipy.stats", "evaluation")
    p_value = stats.wilcoxon(gain).pvalue if gain.any() else 1.0
    return share, float(p_value)
