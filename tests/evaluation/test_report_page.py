from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from example_reports import SHOWN, results, run
from hypothesis import given
from hypothesis import strategies as st

from captum_advise.evaluation.report_page import (
    chosen_images,
    content,
    embedded,
    render,
    worst_cases,
)
from captum_advise.evaluation.report_page.conclusions import conclusions
from captum_advise.evaluation.report_page.page import as_json
from captum_advise.evaluation.statistics import compare_methods

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
    *("ROAD", "μ-fidelity"),
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
    page = render(content(run(GAINS)))
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
    plain = Outline(render(content(run(GAINS))))
    methods = {text: 0.1, "grad-cam": 0.05, "random": 0.0}
    page = render(content(run(methods, names=[text], network=text)))
    outline = Outline(page)
    assert outline.elements == plain.elements
    assert outline.scripts[1] == plain.scripts[1]
    data = data_of(page)
    assert data["network"] == data["methods"][0] == data["gallery"][0]["file"] == text
    page.encode("utf-8")


@given(st.recursive(st.text() | st.floats() | st.none(), st.lists, max_leaves=5))
def test_json_comes_back_as_it_was_up_to_seven_digits(value):
    text = as_json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)

    def rounded(entry):
        if isinstance(entry, list):
            return [rounded(part) for part in entry]
        if isinstance(entry, float):
            return float(f"{entry:.7g}") if np.isfinite(entry) else None
        return entry

    assert json.loads(text) == rounded(value)


def test_the_data_are_those_of_the_results():
    made = run(GAINS)
    data = data_of(render(content(made)))
    assert data["methods"] == list(GAINS)
    assert data["methods"][data["baseline"]] == "grad-cam"
    assert (data["images"], data["failed"], data["layer"]) == (40, 2, "features.3")
    assert data["date"] == "2026-01-02T03:04:05+00:00"
    means = made.results.groupby("method").mean(numeric_only=True)
    for row, metric in enumerate(SHOWN):
        for column, method in enumerate(GAINS):
            assert data["means"][row][column] == pytest.approx(means.at[method, metric.name])
    assert [image["file"] for image in data["gallery"]] == [f"image {i}.jpg" for i in range(3)]
    assert data["gallery"][1]["predicted"] == "dog"
    assert data["gallery"][0]["target"] == "dog"
    assert [curve["title"] for curve in data["curves"]] == ["insertion", "deletion"]
    assert ["steps", "4"] in data["settings"]


def test_without_grad_cam_the_first_method_is_the_baseline():
    data = data_of(render(content(run({"random": 0.0, "layer-advise": 0.1}))))
    assert data["methods"][data["baseline"]] == "random"
    one = data_of(render(content(run({"random": 0.0}, embedded=()))))
    assert one["conclusions"] == ["The run has one method, random, so there is nothing to compare."]


def test_conclusions_name_the_best_method_and_what_is_significant():
    comparison = run(GAINS).comparison
    assert conclusions(comparison, "grad-cam") == (
        f"layer-advise has the best mean rank over {_listed('and')} (1.0 of 3); "
        "grad-cam follows with 2.0. "
        + " ".join(
            f"In {title}, layer-advise is significantly better than grad-cam and random is "
            "significantly worse than grad-cam."
            for title in (*FAITHFULNESS, "AVX")
        )
        + " AVX and its parts favour ADVISE, which selects by AVX."
    )
    # 3 images: the smallest p is 1/4 for each of 2 x 18 tests.
    few = conclusions(run(GAINS, images=3).comparison, "layer-advise")
    assert "With 3 images and 38 tests, no difference from layer-advise can be significant" in few
    equal = conclusions(run({"a": 0.0, "b": 0.0}).comparison, "a")
    assert f"No method differs significantly from a in {_listed('or')}." in equal


def test_methods_that_tie_share_the_best_rank():
    table = results({"a": 0.0})
    both = pd.concat([table, table.assign(method="b")])
    comparison = compare_methods(both, ["a", "b"], SHOWN, seed=0)
    assert conclusions(comparison, "a").startswith(
        f"All methods have the same mean rank over {_listed('and')}."
    )


def test_worst_cases_are_the_largest_losses():
    table = results({"grad-cam": 0.0, "other": 0.0}, images=12)
    comparison = compare_methods(table, ["grad-cam", "other"], SHOWN, seed=0)
    worst = worst_cases(table, comparison)
    wide = table.pivot(index="index", columns="method", values="deletion")
    loss = wide["other"] - wide["grad-cam"]  # smaller is better
    expected = loss[loss > 0].sort_values(ascending=False).index[:5].tolist()
    found = worst[("grad-cam", "other", "deletion")]
    assert [entry[0] for entry in found] == expected
    assert found[0][1:] == (wide.at[expected[0], "other"], wide.at[expected[0], "grad-cam"])
    back = {entry[0] for entry in worst[("other", "grad-cam", "deletion")]}
    assert not back & set(loss[loss > 0].index)


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
