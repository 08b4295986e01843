from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from example_reports import SHOWN, page_of, report, results
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.report.conclusions import conclusions
from captum_advise.evaluation.report.images import chosen_images, embedded
from captum_advise.evaluation.report.statistics import compare_methods, mean_ranks
from captum_advise.visualization.heat import heat_colours

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
    """The elements of a page, which must be closed in order, its scripts and its texts."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.scripts, self.texts = [], [], [], []
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
        elif self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data)


JUDGED = (*FAITHFULNESS, "pointing game", "top pixels in the object")


def test_the_page_is_well_formed_and_loads_nothing():
    page = page_of(report(GAINS))
    outline = Outline(page)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\{\{\w+\}\}", page)
    for tag, attributes in outline.elements:
        assert tag not in {"link", "iframe", "object", "base", "form"}
        assert not {"srcset", "style", "onclick"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:").startswith("data:")
    assert len(outline.scripts) == 1
    assert "innerHTML" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_stays_text(text):
    def names(page):
        return [(tag, *attributes) for tag, attributes in Outline(page).elements]

    def page(name):
        made = report({name: 0.1, "grad-cam": 0.05, "random": 0.0}, names=[name], network=name)
        return page_of(made)

    found = Outline(page(text))
    assert names(page(text)) == names(page("mine"))
    assert found.scripts == Outline(page("mine")).scripts
    assert {text, f"0: {text}"} <= {" ".join(own.split(" ")) for own in found.texts}
    page(text).encode("utf-8")


def test_the_numbers_are_those_of_the_results():
    made = report(GAINS)
    outline = Outline(page_of(made))
    texts = set(outline.texts)
    assert {"Network: net", "Layer: features.3", "Images: 40"} <= texts
    assert "Run: 2026-01-02 03:04:05 UTC" in texts
    assert "2 images could not be evaluated: failures.csv says why." in texts
    means = made.results.groupby("method").mean(numeric_only=True)
    for metric in SHOWN:
        # An arrow is never alone in its line.
        assert "\u00a0".join(metric.heading.rsplit(" ", 1)) in texts
        assert {f"{means.at[method, metric.name]:.{metric.digits}f}" for method in GAINS} <= texts
    road = made.comparison.set_index(["method", "metric"]).loc["layer-advise", "road"]
    assert f"[{road['low']:.3f}, {road['high']:.3f}]" in texts
    # It breaks after the comma alone.
    assert f"▲\u00a0{road['difference']:+.3f}, p\u00a0<\u00a00.001" in texts
    assert {"0: image 0.jpg", "1: image 1.jpg", "2: image 2.jpg"} <= texts
    assert "The maps explain dog, probability 0.750; the predicted class." in texts
    assert "The maps explain dog, probability 0.750; the predicted class is cat." in texts
    pictures = [own["alt"] for tag, own in outline.elements if tag == "img"]
    assert pictures[:4] == ["The image image 0.jpg", *(f"The map of {name}" for name in GAINS)]


def test_what_rounds_to_zero_has_no_sign():
    made = report({"layer-advise": 1e-4, "grad-cam": 0.0, "random": -1e-4})
    for metric in SHOWN:
        gain = made.results["method"].map({"layer-advise": 1e-5, "grad-cam": 0, "random": -1e-5})
        made.results[metric.name] = gain + 1e-7 * made.results["index"] - 2e-6
    texts = Outline(page_of(made)).texts
    zeros = {text for text in texts if re.search(r"[+-]0\.0+\b(?!\d)", text)}
    assert not zeros
    assert any(text.startswith("▲\u00a00.000, ") for text in texts)
    assert "[0.000, 0.000]" in texts


def test_what_is_not_known_has_no_value():
    made = report(GAINS)
    made.results.loc[made.results["method"] == "random", "ssim"] = float("nan")
    assert "-" in Outline(page_of(made)).texts


def test_without_grad_cam_the_first_method_is_the_baseline():
    gains = {"random": 0.0, "layer-advise": 0.1}
    assert report(gains).baseline == "random"
    texts = Outline(page_of(report(gains))).texts
    assert any(text.startswith("Compared with random, layer-advise is") for text in texts)
    one = report({"random": 0.0})
    sentence = "The run has one method, random: there is nothing to compare."
    assert conclusions_of(one) == [sentence]
    assert sentence in Outline(page_of(one, embedded=())).texts


def conclusions_of(made, by_avx=()):
    return conclusions(made.comparison, made.metrics, by_avx)


def test_conclusions_name_what_is_significant():
    found = conclusions_of(report(GAINS), ["layer-advise"])
    titles = f"{', '.join(JUDGED)} and AVX"
    assert found == [
        f"Compared with grad-cam, layer-advise is significantly better in {titles}.",
        f"Compared with grad-cam, random is significantly worse in {titles}.",
        "AVX and its parts favour layer-advise, which selects by AVX.",
    ]
    (equal,) = conclusions_of(report({"a": 0.0, "b": 0.0}))
    assert equal == f"No method differs significantly from a in {', '.join(JUDGED)} or AVX."
    others = [metric for metric in SHOWN if not (metric.judges or metric.name == "avx")]
    assert conclusions(report(GAINS).comparison, others) == []


def test_methods_of_which_the_same_is_true_share_a_conclusion():
    gains = {"a": 0.0, "b": 0.1, "c": -0.1, "d": 0.1, "e": 0.1}
    found = conclusions_of(report(gains))
    titles = f"{', '.join(JUDGED)} and AVX"
    assert found == [
        f"Compared with a, b, d and e are significantly better in {titles}.",
        f"Compared with a, c is significantly worse in {titles}.",
    ]


def test_only_methods_that_select_by_avx_are_said_to():
    made = report({"gated-grad-cam": 0.1, "grad-cam": 0.0, "mine": 0.0})

    def last(*methods):
        return conclusions_of(made, methods)[-1]

    assert "AVX and its parts favour" not in last()
    assert last("mine", "elsewhere") == "AVX and its parts favour mine, which selects by AVX."
    both = "AVX and its parts favour grad-cam and mine, which select by AVX."
    assert last("mine", "grad-cam") == both
    without = compare_methods(results(GAINS), list(GAINS), SHOWN[:3], seed=0)
    assert "favour" not in conclusions(without, SHOWN[:3], list(GAINS))[-1]


def test_ranks_of_faithfulness_are_of_the_metrics_that_all_methods_have():
    best, without = report(GAINS), report(GAINS)
    rows = best.results["method"] == "random"
    best.results.loc[rows, "insertion"] = 9.0
    without.results.loc[rows, "insertion"] = np.nan
    assert best.mean_ranks["random"] == pytest.approx((1 + 3 * 7) / 8, abs=0.1)
    assert without.mean_ranks["random"] == pytest.approx(3, abs=0.1)
    assert without.mean_ranks.index.tolist() == list(GAINS)
    rest = report({"grad-cam": 0.0}).comparison
    assert mean_ranks(rest, SHOWN).tolist() == [1.0]
    assert mean_ranks(rest, []).isna().all()


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
    metrics = [
        *SHOWN,
        *(metric for metric in get_metrics(["grid_top"]) if metric.name == "grid_top"),
    ]
    found = compare_methods(both, ["grad-cam", "other"], metrics, seed=0)
    plain = compare_methods(table, ["grad-cam", "other"], SHOWN, seed=0)
    pd.testing.assert_frame_equal(
        found[found["metric"] != "grid_top"].reset_index(drop=True), plain
    )
    of_mosaics = found[found["metric"] == "grid_top"]
    assert of_mosaics["images"].tolist() == [3, 3]
    # Image b is in the cells 0 and 2.
    assert of_mosaics["mean"].tolist() == pytest.approx([(1 + 1 + 3) / 3, (1.5 + 1.5 + 3.5) / 3])
    other = of_mosaics.iloc[1]
    assert other["p_holm"] == other["p_value"] == scipy.stats.wilcoxon([0.5] * 3).pvalue


@given(st.integers(1, 3000), st.integers(1, 400))
def test_chosen_images_are_few_and_in_order(count, n_methods):
    indices = list(range(0, 2 * count, 2))
    chosen = chosen_images(indices, n_methods)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(indices)
    assert 1 <= len(chosen) <= 12
    assert len(chosen) * n_methods <= max(150, 4 * n_methods)
    if count <= 4:
        assert chosen == indices


def test_images_are_evenly_spread():
    assert chosen_images(range(1200), 5) == list(range(0, 1200, 100))
    assert chosen_images([], 5) == []


def test_maps_are_heat_over_the_grey_image():
    pixels = torch.zeros(3, 32, 32)
    pixels[0] = 0.6
    rising = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    image, heat = (pixels_of(source) for source in embedded(pixels, {"rising": rising}))
    np.testing.assert_allclose(image[16, 16], [153, 0, 0], atol=6)
    np.testing.assert_allclose(heat[16, 0], [51, 51, 51], atol=12)  # transparent
    *colour, opacity = heat_colours()(1.0)
    expected = 255 * (opacity * np.array(colour) + (1 - opacity) * 0.2)
    np.testing.assert_allclose(heat[16, -1], expected, atol=25)


def pixels_of(source):
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        return np.asarray(image).astype(float)


def test_the_largest_page_is_below_ten_megabytes():
    """Of images and maps that are noise, which JPEG compresses least."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 224, 224, generator=generator)
    maps = {str(i): torch.rand(1, 1, 224, 224, generator=generator) for i in range(12)}
    assert 12 * sum(map(len, embedded(pixels, maps))) < 9.5e6
