from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from example_reports import FAILURES, SHOWN, page_of, report, results
from hypothesis import given
from hypothesis import strategies as st

from captum_advise.evaluation.columns import MOSAIC_METRICS
from captum_advise.evaluation.report.conclusions import conclusions
from captum_advise.evaluation.report.images import chosen_images, embedded, worst_images
from captum_advise.evaluation.report.page import render
from captum_advise.evaluation.report.statistics import compare_methods

GAINS = {"layer-advise": 0.1, "grad-cam": 0.05, "random": 0.0}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "{{script}} {{data}} \\u003c",
    "\u2028 \u202e 'quoted' & more",
)
# Without sparseness, which describes a map.
FAITHFULNESS = (
    *("insertion AUC", "deletion AUC", "insertion from black", "deletion to blurred"),
    *("ROAD", "μ-fidelity", "ARCC", "ADCC"),
)
VOID = {"meta", "img", "input", "br", "link"}


class Outline(HTMLParser):
    """The elements of a page, which must be closed in order, and its scripts."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.scripts = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def _listed(word):
    return f"{', '.join(FAITHFULNESS[:-1])} {word} {FAITHFULNESS[-1]}"


def data_of(page):
    return json.loads(Outline(page).scripts[0])


def test_the_page_is_well_formed_and_loads_nothing():
    page = page_of(report(GAINS))
    outline = Outline(page)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\{\{\w+\}\}", page)
    for tag, attributes in outline.elements:
        assert tag not in {"link", "iframe", "object", "base", "form"}
        assert not {"src", "srcset", "style", "onclick"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.elements:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name, ids[0]) in ids
        assert attributes.get("href", f"#{ids[0]}")[1:] in ids
    assert len(outline.scripts) == 2
    assert "innerHTML" not in page
    assert "insertAdjacentHTML" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_stays_text(text):
    plain = Outline(page_of(report(GAINS)))
    methods = {text: 0.1, "grad-cam": 0.05, "random": 0.0}
    page = page_of(report(methods, names=[text], network=text))
    outline = Outline(page)
    assert outline.elements == plain.elements
    assert outline.scripts[1] == plain.scripts[1]
    data = data_of(page)
    assert data["network"] == data["methods"][0] == data["gallery"][0]["file"] == text
    page.encode("utf-8")


@given(st.recursive(st.text() | st.floats() | st.none(), st.lists, max_leaves=5))
def test_data_come_back_as_they_were_up_to_seven_digits(value):
    page = render({"value": value})

    def rounded(entry):
        if isinstance(entry, list):
            return [rounded(part) for part in entry]
        if isinstance(entry, float):
            return float(f"{entry:.7g}") if np.isfinite(entry) else None
        return entry

    assert data_of(page) == {"value": rounded(value)}


def test_the_data_are_those_of_the_results():
    made = report(GAINS)
    data = data_of(page_of(made))
    assert data["methods"] == list(GAINS)
    assert data["methods"][data["baseline"]] == "grad-cam"
    assert (data["images"], data["layer"]) == (40, "features.3")
    assert data["failures"] == {"count": 2, "shown": [list(failure) for failure in FAILURES]}
    assert data["date"] == "2026-01-02T03:04:05+00:00"
    means = made.results.groupby("method").mean(numeric_only=True)
    for row, metric in enumerate(SHOWN):
        for column, method in enumerate(GAINS):
            assert data["means"][row][column] == pytest.approx(means.at[method, metric.name])
    assert [image["file"] for image in data["gallery"]] == [f"image {i}.jpg" for i in range(3)]
    assert data["gallery"][1]["predicted"] == "dog"
    assert data["gallery"][0]["target"] == "dog"
    assert [curve["title"] for curve in data["curves"]] == ["insertion", "deletion"]
    assert data["settings"]["steps"] == 4


def test_without_grad_cam_the_first_method_is_the_baseline():
    data = data_of(page_of(report({"random": 0.0, "layer-advise": 0.1})))
    assert data["methods"][data["baseline"]] == "random"
    one = data_of(page_of(report({"random": 0.0}), embedded=()))
    (only,) = one["conclusions"]
    assert only["first"] == ["The run has one method, random: there is nothing to compare."]
    assert not only["methods"]


def test_conclusions_name_the_best_method_and_what_is_significant():
    comparison = report(GAINS).comparison
    found = conclusions(comparison, "grad-cam", ["layer-advise"])
    assert found.first == (
        f"layer-advise has the best mean rank over {_listed('and')} (1.0 of 3); "
        "grad-cam follows with 2.0.",
        "Compared with grad-cam, significantly:",
    )
    titles = (*FAITHFULNESS, "pointing game", "top pixels in the object", "AVX")
    assert found.methods == (("layer-advise", titles, ()), ("random", (), titles))
    assert found.last == ("AVX and its parts favour layer-advise, which selects by AVX.",)
    # 3 images: the smallest p is 1/4 for each of 2 x 22 tests.
    few = conclusions(report(GAINS, images=3).comparison, "layer-advise")
    assert "can be significant after Holm's correction (images: 3, tests: 44)" in few.first[1]
    assert not few.methods
    equal = conclusions(report({"a": 0.0, "b": 0.0}).comparison, "a")
    over = ", ".join((*FAITHFULNESS, "pointing game", "top pixels in the object"))
    assert equal.first[1] == f"No method differs significantly from a in {over} or AVX."


def test_methods_of_which_the_same_is_true_share_a_conclusion():
    gains = {"a": 0.0, "b": 0.1, "c": -0.1, "d": 0.1, "e": 0.1}
    found = conclusions(report(gains).comparison, "a").methods
    titles = (*FAITHFULNESS, "pointing game", "top pixels in the object", "AVX")
    assert found == (("b, d and e", titles, ()), ("c", (), titles))


def test_only_methods_that_select_by_avx_are_said_to():
    comparison = report({"gated-grad-cam": 0.1, "grad-cam": 0.0, "mine": 0.0}).comparison
    assert not conclusions(comparison, "grad-cam").last
    assert conclusions(comparison, "grad-cam", ["mine", "elsewhere"]).last == (
        "AVX and its parts favour mine, which selects by AVX.",
    )
    both = conclusions(comparison, "grad-cam", ["mine", "grad-cam"]).last
    assert both == ("AVX and its parts favour grad-cam and mine, which select by AVX.",)
    without = compare_methods(results(GAINS), list(GAINS), SHOWN[:3], seed=0)
    assert not conclusions(without, "grad-cam", list(GAINS)).last


def test_methods_that_tie_share_the_best_rank():
    table = results({"a": 0.0})
    both = pd.concat([table, table.assign(method="b")])
    comparison = compare_methods(both, ["a", "b"], SHOWN, seed=0)
    first, _ = conclusions(comparison, "a").first
    assert first == f"All methods have the same mean rank over {_listed('and')}."


def test_worst_images_are_those_of_the_largest_losses():
    table = results({"grad-cam": 0.0, "other": 0.0}, images=12)
    comparison = compare_methods(table, ["grad-cam", "other"], SHOWN[:2], seed=0)
    wide = table.pivot(index="index", columns="method")
    losses = [  # of insertion, and of deletion, of which smaller is better
        wide["insertion"]["grad-cam"] - wide["insertion"]["other"],
        wide["deletion"]["other"] - wide["deletion"]["grad-cam"],
    ]
    worst = [loss[loss > 0].sort_values(ascending=False).index[:5].tolist() for loss in losses]
    found = worst_images(table, comparison)
    assert found[:2] == [indices[0] for indices in worst]
    assert sorted(found) == sorted(index for indices in worst for index in indices)


def test_images_in_mosaics_count_once_and_apart():
    table = results({"grad-cam": 0.0, "other": 0.0}, images=9)
    cells = pd.DataFrame(
        [
            {"index": 100 + cell, "method": method, "grid_top": value + cell, "image": image}
            for cell, image in enumerate(("b", "a", "b", "c"))
            for method, value in (("grad-cam", 0.0), ("other", 0.5))
        ]
    )
    both = pd.concat([table, cells], ignore_index=True)
    metrics = [*SHOWN, *(metric for metric in MOSAIC_METRICS if metric.name == "grid_top")]
    found = compare_methods(both, ["grad-cam", "other"], metrics, seed=0)
    plain = compare_methods(table, ["grad-cam", "other"], SHOWN, seed=0)
    assert found.images == (*plain.images, 3)
    # Image b is in the cells 0 and 2.
    assert found.means[-1] == pytest.approx([(1 + 1 + 3) / 3, (1.5 + 1.5 + 3.5) / 3])
    np.testing.assert_array_equal(found.means[:-1], plain.means)
    np.testing.assert_array_equal(found.low[:-1], plain.low)
    assert found.tests == (*plain.tests, 1)
    for key, difference in plain.differences.items():
        assert found.differences[key] == difference
    of_mosaics = found.differences["grad-cam", "other", "grid_top"]
    assert of_mosaics.p_holm == of_mosaics.p_value == scipy.stats.wilcoxon([0.5] * 3).pvalue


@given(st.integers(1, 3000), st.lists(st.integers(0, 2999)), st.integers(1, 400))
def test_chosen_images_are_few_and_in_order(count, worst, n_methods):
    indices = list(range(0, 2 * count, 2))
    worst = [2 * (index % count) for index in worst]
    chosen = chosen_images(indices, worst, n_methods)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(indices)
    assert 1 <= len(chosen) <= 24
    assert len(chosen) * n_methods <= max(240, 4 * n_methods)
    if count <= 4:
        assert chosen == indices


def test_twelve_images_are_evenly_spread_and_worst_cases_follow():
    assert chosen_images(range(1200), [5, 7], 5) == sorted([*range(0, 1200, 100), 5, 7])
    many = chosen_images(range(1200), [*range(1, 100)], 5)
    assert len(many) == 24
    assert set(range(1, 13)) <= set(many)


def test_the_largest_page_is_below_ten_megabytes():
    """Of images and maps that are noise, which JPEG compresses least."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 300, 400, generator=generator)
    maps = {str(i): torch.rand(1, 1, 300, 400, generator=generator) for i in range(10)}
    image = embedded(0, pixels, maps)
    assert (image.width, image.height, len(image.maps)) == (224, 168, 10)
    square = embedded(0, pixels[..., :300], {name: own[..., :300] for name, own in maps.items()})
    assert 24 * (len(square.source) + sum(map(len, square.maps))) < 9.5e6
