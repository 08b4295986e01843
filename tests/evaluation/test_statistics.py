from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.statistics import summarise

CHOSEN = [m for m in METRICS if m.name in ("insertion", "deletion", "hit", "seconds")]


def results(n, seed=0):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {
                "index": index,
                "method": method,
                "insertion": generator.normal(shift, 1),
                "deletion": generator.normal(shift, 1),
                "hit": index % 2,
                "seconds": 1.0,
            }
            for index in range(n)
            for shift, method in enumerate(("grad-cam", "better"))
        ]
    )


def test_means_shares_and_p_values_are_those_of_pandas_and_scipy():
    table = results(60)
    summary = summarise(table, ["grad-cam", "better"], CHOSEN, seed=0)
    summary = summary.set_index(["metric", "method"])
    means = table.groupby("method").mean(numeric_only=True)
    wide = table.pivot(index="index", columns="method")
    for metric, sign in (("insertion", 1), ("deletion", -1)):
        gain = sign * (wide[metric]["better"] - wide[metric]["grad-cam"])
        row = summary.loc[(metric, "better")]
        assert row["mean"] == pytest.approx(means.loc["better", metric])
        assert row["beats_grad_cam"] == (gain > 0).mean()
        assert row["p_value"] == pytest.approx(scipy.stats.wilcoxon(gain).pvalue)
    assert summary.loc[("hit", "better"), "p_value"] == 1
    assert summary.loc[("hit", "better"), "beats_grad_cam"] == 0
    for key in (("seconds", "better"), ("insertion", "grad-cam")):
        assert np.isnan(summary.loc[key, ["beats_grad_cam", "p_value"]].astype(float)).all()


def test_intervals_are_those_of_a_normal_mean():
    n = 400
    summary = summarise(results(n), ["grad-cam", "better"], CHOSEN, seed=1)
    row = summary.set_index(["metric", "method"]).loc[("insertion", "grad-cam")]
    half = 1.96 / np.sqrt(n)
    assert row["high"] - row["mean"] == pytest.approx(half, rel=0.15)
    assert row["mean"] - row["low"] == pytest.approx(half, rel=0.15)
    again = summarise(results(n), ["grad-cam", "better"], CHOSEN, seed=1)
    pd.testing.assert_frame_equal(again, summary)


def test_nothing_is_compared_without_grad_cam_and_a_single_image_has_no_interval():
    table = results(20)
    alone = summarise(table[table["method"] == "better"], ["better"], CHOSEN, seed=0)
    assert alone["p_value"].isna().all()
    single = summarise(results(1), ["grad-cam", "better"], CHOSEN, seed=0)
    assert single["low"].isna().all()
    assert single["mean"].notna().all()
