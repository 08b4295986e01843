from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.report.statistics import compare_methods, holm, outcome

CHOSEN = [m for m in METRICS if m.name in ("insertion", "deletion", "hit", "seconds")]
COMPARED = ("difference", "beats_baseline", "direction", "p_value", "p_holm")


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
    summary = compare_methods(table, ["grad-cam", "better"], CHOSEN, seed=0)
    summary = summary.set_index(["metric", "method"])
    means = table.groupby("method").mean(numeric_only=True)
    wide = table.pivot(index="index", columns="method")
    for metric, sign in (("insertion", 1), ("deletion", -1)):
        gain = sign * (wide[metric]["better"] - wide[metric]["grad-cam"])
        row = summary.loc[(metric, "better")]
        assert row["mean"] == pytest.approx(means.loc["better", metric])
        assert row["beats_baseline"] == (gain > 0).mean()
        assert row["p_value"] == pytest.approx(scipy.stats.wilcoxon(gain).pvalue)
    assert summary.loc[("hit", "better"), "p_value"] == 1
    assert summary.loc[("hit", "better"), "beats_baseline"] == 0
    for key in (("seconds", "better"), ("insertion", "grad-cam")):
        assert np.isnan(summary.loc[key, ["beats_baseline", "p_value"]].astype(float)).all()


def test_intervals_are_those_of_a_normal_mean():
    n = 400
    summary = compare_methods(results(n), ["grad-cam", "better"], CHOSEN, seed=1)
    row = summary.set_index(["metric", "method"]).loc[("insertion", "grad-cam")]
    half = 1.96 / np.sqrt(n)
    assert row["high"] - row["mean"] == pytest.approx(half, rel=0.15)
    assert row["mean"] - row["low"] == pytest.approx(half, rel=0.15)
    again = compare_methods(results(n), ["grad-cam", "better"], CHOSEN, seed=1)
    pd.testing.assert_frame_equal(again, summary)


def test_nothing_is_compared_without_grad_cam_and_a_single_image_has_no_interval():
    table = results(20)
    alone = compare_methods(table[table["method"] == "better"], ["better"], CHOSEN, seed=0)
    assert alone["p_value"].isna().all()
    single = compare_methods(results(1), ["grad-cam", "better"], CHOSEN, seed=0)
    assert single["low"].isna().all()
    assert single["mean"].notna().all()


def test_holm_is_what_r_and_hand_calculation_give():
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") in R.
    five = holm([0.01, 0.02, 0.03, 0.04, 0.05])
    np.testing.assert_allclose(five, [0.05, 0.08, 0.09, 0.09, 0.09])
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04, which may not be below 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, np.nan, 0.8]), [1, np.nan, 1])
    assert holm([]).shape == (0,)


@given(arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values):
    rejected = set()
    for step, position in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[position] > 0.05 / (len(p_values) - step):
            break
        rejected.add(position)
    # Away from the level itself, where products and quotients may round to different sides.
    corrected = holm(p_values)
    assert {i for i, p in enumerate(corrected) if p < 0.05 - 1e-12} <= rejected
    assert rejected <= {i for i, p in enumerate(corrected) if p <= 0.05 + 1e-12}


def test_differences_are_those_of_scipy_on_the_paired_values():
    table = results(30)
    methods = ["grad-cam", "better"]
    comparison = compare_methods(table, methods, CHOSEN, seed=3).set_index(["method", "metric"])
    wide = table.pivot(index="index", columns="method")
    p_values = {}
    for metric in ("insertion", "deletion", "hit"):
        difference = (wide[metric]["better"] - wide[metric]["grad-cam"]).to_numpy()
        found = comparison.loc["better", metric]
        assert found["difference"] == pytest.approx(difference.mean())
        if metric == "hit":
            p_values[metric] = 1.0
            continue
        p_values[metric] = scipy.stats.wilcoxon(difference).pvalue
        assert found["p_value"] == pytest.approx(p_values[metric])
    assert comparison.loc["better", "seconds"][[*COMPARED]].isna().all()
    assert comparison.loc["grad-cam", [*COMPARED]].isna().all(axis=None)
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    for metric, expected in corrected.items():
        assert comparison.loc[("better", metric), "p_holm"] == expected


def test_a_direction_is_that_of_the_mean_and_of_the_test():
    rng = np.random.default_rng(0)
    gains = {
        "better": 0.1 + 0.01 * rng.random(60),
        "worse": -0.1 - 0.01 * rng.random(60),
        # The mean gains by a few images, and the test sees the many that lose.
        "unclear": np.where(np.arange(60) < 8, 0.6, -0.05) + 0.01 * rng.random(60),
        "grad-cam": np.zeros(60),
    }
    for metric, sign in (("insertion", 1), ("deletion", -1)):
        table = pd.DataFrame(
            [
                {"index": index, "method": method, metric: 0.5 + sign * value}
                for method, values in gains.items()
                for index, value in enumerate(values)
            ]
        )
        chosen = [one for one in CHOSEN if one.name == metric]
        found = compare_methods(table, list(gains), chosen, seed=0).set_index("method")
        for method, expected in (("better", 1), ("worse", -1), ("unclear", 0)):
            assert found.loc[method, "p_holm"] < 0.05
            assert found.loc[method, "direction"] == outcome(found.loc[method]) == expected


def test_images_without_a_difference_have_no_rank():
    gains = np.concatenate([np.zeros(40), np.full(12, -0.01), np.full(8, 0.1)])
    table = pd.DataFrame(
        [
            {"index": index, "method": method, "insertion": value}
            for method, values in (("grad-cam", gains * 0), ("better", gains))
            for index, value in enumerate(values)
        ]
    )
    chosen = [one for one in CHOSEN if one.name == "insertion"]
    found = compare_methods(table, ["grad-cam", "better"], chosen, seed=0)
    assert found["direction"].tolist()[1] == 1


# Demsar, JMLR 7, 2006, table 6: areas under the curve of four classifiers on 14 data sets. Of the
# two values 0.975, its ranks place the first before the second, as their omitted digits do.
DEMSAR = """
0.763 0.768 0.771 0.798   0.599 0.591 0.590 0.569   0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657   0.882 0.888 0.886 0.898   0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685   0.583 0.583 0.563 0.625   0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000   0.940 0.962 0.965 0.962   0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975   0.957 0.978 0.946 0.970
"""


def test_ranks_are_those_of_demsar_s_example():
    methods = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
    values = np.array(DEMSAR.split(), dtype=float).reshape(14, 4)
    table = pd.DataFrame(
        [
            {"index": i, "method": method, "insertion": value, "deletion": 1 - value}
            for i, row in enumerate(values)
            for method, value in zip(methods, row, strict=True)
        ]
    )
    found = ranks(table, methods, CHOSEN[:2])
    for metric in ("insertion", "deletion"):
        assert found[metric].tolist() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)


def ranks(table, methods, metrics=CHOSEN):
    """The ranks of the methods by each metric."""
    found = compare_methods(table, methods, metrics, seed=0)
    return found.pivot(index="method", columns="metric", values="rank").loc[methods]


def test_ranks_of_equal_methods_and_of_a_method_that_lacks_an_image():
    table = results(8)
    two = ranks(table, ["grad-cam", "better"])
    assert two["hit"].tolist() == [1.5, 1.5]
    third = table[table["method"] == "better"].assign(method="third")
    three = pd.concat([table, third], ignore_index=True)
    methods = ["grad-cam", "better", "third"]
    assert ranks(three.assign(insertion=0.5), methods)["insertion"].tolist() == [2, 2, 2]
    three.loc[three.index[-1], "insertion"] = np.nan
    found = ranks(three, methods)["insertion"]
    assert found[:2].tolist() == two["insertion"].tolist()
    assert np.isnan(found["third"])
