"""Means with intervals, and paired comparisons with Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from captum_advise.evaluation.extras import package
from captum_advise.evaluation.measures import Measure

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "grad-cam"
N_RESAMPLES = 2000
# Values that are resampled at once, to bound memory: 80 MB.
_AT_ONCE = 10_000_000

_Values = npt.NDArray[np.float64]


def summarise(
    results: pd.DataFrame, methods: Sequence[str], measures: Sequence[Measure], *, seed: int
) -> pd.DataFrame:
    """One row per method and measure.

    Args:
        results: A row per picture and method: ``index``, ``method`` and the measures' columns.
        methods: In the order of the rows.
        measures: Which columns.
        seed: For the bootstrap.

    Returns:
        Columns ``method``, ``measure``, ``pictures``, ``mean``, ``low`` and ``high`` (the 95%
        percentile bootstrap interval of the mean over pictures, NaN for a single one),
        ``beats_grad_cam`` (share of the pictures on which the method is strictly better) and
        ``p_value`` (paired, two-sided Wilcoxon signed-rank test of the difference). The last two
        are NaN where there is nothing to compare.
    """
    pandas = package("pandas")
    tables = [
        results.pivot(index="index", columns="method", values=measure.name)[list(methods)]
        for measure in measures
    ]
    # Measures by pictures by methods.
    values = np.stack([table.to_numpy(dtype=np.float64) for table in tables])
    low, high = _interval(values, seed)
    rows = []
    for column, method in enumerate(methods):
        for row, measure in enumerate(measures):
            beats, p_value = np.nan, np.nan
            if measure.tested and REFERENCE in methods and method != REFERENCE:
                gain = values[row, :, column] - values[row, :, list(methods).index(REFERENCE)]
                beats, p_value = _compared(gain if measure.higher_is_better else -gain)
            rows.append(
                {
                    "method": method,
                    "measure": measure.name,
                    "pictures": values.shape[1],
                    "mean": values[row, :, column].mean(),
                    "low": low[row, column],
                    "high": high[row, column],
                    "beats_grad_cam": beats,
                    "p_value": p_value,
                }
            )
    return pandas.DataFrame(rows)


def _interval(values: _Values, seed: int) -> tuple[_Values, _Values]:
    """Of the mean over axis 1; every method and measure sees the same resampled pictures."""
    n_pictures = values.shape[1]
    if n_pictures < 2:
        missing = np.full((values.shape[0], values.shape[2]), np.nan)
        return missing, missing
    found = package("scipy.stats").bootstrap(
        (values,),
        np.mean,
        axis=1,
        n_resamples=N_RESAMPLES,
        batch=max(1, _AT_ONCE // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def _compared(gain: _Values) -> tuple[float, float]:
    beats = float((gain > 0).mean())
    # Without any difference the test has nothing to rank.
    p_value = package("scipy.stats").wilcoxon(gain).pvalue if gain.any() else 1.0
    return beats, float(p_value)
