from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from importlib import resources

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam
from messages import one_sentence
from pages import Elements, data_of, unpacked
from PIL import Image
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, adaptive_kde, count_modes
from captum_advise.pixels import normalize_maps
from captum_advise.visualization.page import _affordable, one_example, unit_tensors

HOSTILE = "</script><script>alert(1)</script><!--\"'&<img src=x onerror=alert(1)>\u2028{{script}}"


class Made:
    """A page of two images, and what it was made of."""

    def __init__(self, **options):
        self.net = network(Net)
        self.images = images(2)
        self.advise = LayerAdvise(self.net, self.net.layer, pixel_space=PixelSpace.identity())
        self.explanation = self.advise.explain(self.images, activation_range="minmax")
        self.feature_maps, self.contributions = unit_tensors(
            self.advise, self.images, self.explanation.target
        )
        self.page = self.explanation.to_html(
            self.images,
            feature_maps=self.feature_maps,
            contributions=self.contributions,
            activation_range="minmax",
            **options,
        )
        self.examples = data_of(self.page)["examples"]


@pytest.fixture(scope="module")
def made():
    return Made()


def test_units_are_those_of_captum(made):
    # An in-place ReLU follows the layer: these are the values before it.
    activation = LayerActivation(made.net, made.net.layer).attribute(made.images)
    torch.testing.assert_close(made.feature_maps, activation)
    captum = LayerGradCam(made.net, made.net.layer)
    contributions = captum.attribute(made.images, made.explanation.target, attr_dim_summation=False)
    torch.testing.assert_close(made.contributions, contributions)


def test_nothing_is_fetched(made):
    urls = re.findall(r"https?://[^\s\"'<>]+", made.page)
    assert set(urls) == {"http://www.w3.org/2000/svg"}
    elements = Elements(made.page).found
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in elements)
    assert not [attributes for _, attributes in elements if {"src", "href"} & set(attributes)]
    assert "@import" not in made.page
    assert "url(" not in made.page


def test_only_the_pages_own_script_may_run(made):
    script = (
        resources.files("captum_advise.visualization") / "page_template" / "page.js"
    ).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        attributes["content"]
        for tag, attributes in Elements(made.page).found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert f"<script>{script}</script>" in made.page
    assert "innerHTML" not in script


def test_every_control_has_a_label(made):
    elements = Elements(made.page).found
    labelled = {attributes["for"] for tag, attributes in elements if "for" in attributes}
    enclosed = {"example", "opacity", "only"}  # within their labels
    for tag, attributes in elements:
        if tag in ("input", "select"):
            assert attributes["id"] in labelled | enclosed


# --- data


def test_maps_are_those_of_the_explanation(made):
    for index, example in enumerate(made.examples):
        candidates = made.explanation.candidates[index]
        assert len(example["maps"]) == len(candidates)
        for shown, candidate in zip(example["maps"], candidates, strict=True):
            assert shown["name"] == f"relevance {candidate.relevance}"
            np.testing.assert_array_equal(
                unpacked(shown["values"]), candidate.attributions[0].numpy()
            )
            np.testing.assert_array_equal(unpacked(shown["units"]), candidate.units.numpy())
            assert shown["n_units"] == len(candidate.units)
            assert shown["weights"] is None
            for name in ("avx", "average_drop", "ssim", "fsim", "mse"):
                assert shown["metrics"][name] == getattr(candidate.metrics, name).item()
        (selected,) = [shown for shown in example["maps"] if shown["selected"]]
        np.testing.assert_array_equal(
            unpacked(selected["values"]), made.explanation.attributions[index, 0].numpy()
        )
        assert selected["name"] == f"relevance {made.explanation.selected[index]}"


def test_grad_cam_is_the_default_comparison(made):
    expected = LayerGradCam(made.net, made.net.layer).attribute(
        made.images, made.explanation.target
    )
    for example, grad_cam in zip(made.examples, expected, strict=True):
        (comparison,) = example["comparisons"]
        assert comparison["name"] == "Grad-CAM"
        np.testing.assert_allclose(
            unpacked(comparison["values"]), grad_cam[0].detach().numpy(), atol=1e-6
        )


def test_units(made):
    for index, example in enumerate(made.examples):
        units = example["units"]
        maps = made.feature_maps[index].numpy()
        low, step = unpacked(units["low"]), unpacked(units["step"])
        values = low[:, None, None] + step[:, None, None] * unpacked(units["activations"])
        # 16 bits: half a step at most.
        np.testing.assert_allclose(step, np.ptp(maps, (1, 2)) / 65535, rtol=1e-5)
        assert (np.abs(values - maps) <= 0.51 * step[:, None, None] + 1e-7).all()
        contributions = unpacked(units["mean_gradient"])[:, None, None] * maps
        np.testing.assert_allclose(contributions, made.contributions[index].numpy(), atol=1e-6)
        evidence = np.maximum(contributions, 0).sum((1, 2))
        np.testing.assert_allclose(
            unpacked(units["evidence"]), evidence / evidence.sum(), rtol=1e-4, atol=1e-7
        )
        np.testing.assert_array_equal(
            unpacked(units["relevance"]), made.explanation.unit_relevance[index].numpy()
        )
        np.testing.assert_array_equal(unpacked(units["index"]), np.arange(12))


def test_densities_and_their_modes(made):
    for index, example in enumerate(made.examples):
        densities = example["units"]["densities"]
        rows = normalize_maps(made.feature_maps[index].flatten(1).double())
        grid = torch.linspace(0, 1, 144, dtype=torch.float64)
        density = adaptive_kde(rows, grid, n_bandwidths=10).density
        order = unpacked(densities["index"])
        curves = unpacked(densities["curves"])
        assert sorted(order.tolist()) == list(range(12))
        for unit, curve, modes in zip(order, curves, densities["modes"], strict=True):
            assert len(modes) == count_modes(density[unit])
            assert curve.max() >= 250
            for place, height in modes:
                at = (grid - place).abs().argmin()
                assert density[unit, at] >= density[unit, at - 1]
                assert density[unit, at] >= density[unit, at + 1]
                assert height == pytest.approx(
                    float(density[unit, at] / density[unit].max()), abs=1e-4
                )


def test_fewer_modes_than_the_density_has_are_the_most_prominent(made):
    relevance = made.explanation.unit_relevance
    fewer = dataclasses.replace(made.explanation, unit_relevance=relevance.clamp(max=1))
    page = fewer.to_html(
        made.images,
        feature_maps=made.feature_maps,
        contributions=made.contributions,
        activation_range="minmax",
    )
    for before, after in zip(made.examples, data_of(page)["examples"], strict=True):
        before, after = (example["units"]["densities"]["modes"] for example in (before, after))
        for all_modes, (mode,) in zip(before, after, strict=True):
            assert mode in all_modes


def test_image(made):
    for example, image in zip(made.examples, made.images, strict=True):
        head, _, content = example["image"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            shown = np.asarray(picture.convert("RGB")) / 255
        assert example["size"] == [24, 24]
        assert np.abs(shown - image.permute(1, 2, 0).numpy()).mean() < 0.02


def test_hostile_texts_stay_texts():
    names = [HOSTILE, "caf\udce9.jpg"]  # the second was not UTF-8
    made = Made(class_names=[HOSTILE] * 7, names=names)
    assert made.page.count("<script") == 2
    assert made.page.count("</script") == 2
    elements = Elements(made.page)
    assert "img" not in {tag for tag, _ in elements.found}
    assert elements.texts["title"] == f"ADVISE: {HOSTILE}"
    assert [example["name"] for example in made.examples] == names
    assert {example["class"] for example in made.examples} == {HOSTILE}
    made.page.encode("utf-8")


# --- other explanations


def test_without_units(explanation, image):
    page = explanation.to_html(image)
    (example,) = data_of(page)["examples"]
    assert example["units"] is None
    assert example["comparisons"] == []
    assert example["class"] == "class 285"
    assert [shown["name"] for shown in example["maps"]] == [
        "relevance 2 selected",  # the candidates have other units
        "relevance 1",
        "relevance 2",
        "relevance 3",
    ]


def test_comparisons(explanation, grad_cam, image):
    large = torch.linspace(-1, 1, 224 * 224).reshape(1, 1, 224, 224)
    page = explanation.to_html(image, comparisons={"all units": grad_cam, "large": large.numpy()})
    (example,) = data_of(page)["examples"]
    first, second = example["comparisons"]
    assert (first["name"], first["n_units"]) == ("all units", 30)
    assert first["metrics"]["avx"] == pytest.approx(0.55)
    # Without the negative part, in eight bits.
    values = unpacked(second["values"]) / 255
    np.testing.assert_allclose(values, large[0, 0].clamp(min=0).numpy(), atol=0.003)
    assert second["metrics"] is None


def test_a_selected_map_that_is_not_a_candidate_goes_first(explanation, image):
    weighted = dataclasses.replace(explanation, unit_weights=0.5 * explanation.unit_weights)
    (example,) = data_of(weighted.to_html(image))["examples"]
    first, *others = example["maps"]
    assert first["selected"]
    assert not any(shown["selected"] for shown in others)
    assert unpacked(first["weights"]).tolist() == [0.5] * 6
    assert first["name"] == "relevance 2 weighted"


def test_a_page_of_one_example(made):
    second = slice(1, 2)
    page = one_example(made.explanation, 1).to_html(
        made.images[second],
        feature_maps=made.feature_maps[second],
        contributions=made.contributions[second],
        activation_range="minmax",
    )
    assert data_of(page)["examples"] == made.examples[second]
    maps = torch.rand(3, 1, 9, 9)
    assert torch.equal(one_example(maps, 1), maps[second])


def test_maps_of_the_same_name_are_numbered(explanation, image):
    first, second, _ = explanation.candidates[0]
    several = tuple(dataclasses.replace(c, relevance=None) for c in (first, second))
    page = dataclasses.replace(explanation, candidates=(several,)).to_html(image)
    names = [shown["name"] for shown in data_of(page)["examples"][0]["maps"]]
    assert names == ["relevance 2 selected", "several relevances (1)", "several relevances (2)"]


def test_metrics_that_do_not_apply_are_null(explanation, image):
    nothing = torch.tensor([float("nan")])
    metrics = dataclasses.replace(explanation.metrics, ssim=nothing, avx=nothing)
    candidate = dataclasses.replace(explanation.candidates[0][1], metrics=metrics[0])
    page = dataclasses.replace(explanation, candidates=((candidate,),)).to_html(image)
    (_, shown) = data_of(page)["examples"][0]["maps"]
    assert shown["metrics"]["ssim"] is shown["metrics"]["avx"] is None


@pytest.mark.parametrize(
    ("units", "positions", "images", "shown"),
    [(1280, 49, 1, 1280), (512, 196, 1, 512), (64, 112 * 112, 1, 59), (2048, 56 * 56, 20, 11)],
)
def test_size_and_time_are_bounded(units, positions, images, shown):
    assert _affordable(units, positions, 1_500_000 // images)[0] == shown


def test_the_page_of_a_wide_layer_stays_small():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 400, 112, 112, generator=draw)
    contributions = maps * torch.randn(1, 400, 1, 1, generator=draw)
    evidence = contributions.relu().sum((0, 2, 3))
    net = network(Net)
    base = LayerAdvise(net, net.layer).explain(images(1), unit_selection=None)
    explanation = dataclasses.replace(
        base,
        attributions=contributions.sum(1, keepdim=True),
        unit_weights=torch.ones(1, 400),
        candidates=((),),
    )
    page = explanation.to_html(images(1), feature_maps=maps, contributions=contributions)
    units = data_of(page)["examples"][0]["units"]
    best = evidence.topk(len(unpacked(units["index"]))).indices.sort().values
    assert len(page) < 3_000_000
    assert units["count"] == 400
    assert unpacked(units["index"]).tolist() == best.tolist()
    assert units["densities"] is None  # which would take minutes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": images(3)}, "as many images, got 3"),
        ({"names": ["one"]}, "as many names, got 1"),
        ({"comparisons": {"other": torch.zeros(1, 12, 12)}}, "as many maps of other, got 1"),
        ({"comparisons": {"other": torch.full((2, 12, 12), torch.nan)}}, "finite"),
        ({"contributions": None}, "belong together"),
        ({"feature_maps": torch.rand(2, 12, 3, 3)}, "must be (2, 12, 12, 12)"),
        ({"feature_maps": torch.rand(2, 12, 12, 12)}, "mean gradient"),
        ({"activation_range": "tanh"}, "activation_range"),
    ],
)
def test_bad_arguments(made, arguments, message):
    given = {
        "images": made.images,
        "feature_maps": made.feature_maps,
        "contributions": made.contributions,
    } | arguments
    with pytest.raises(ValueError) as error:
        made.explanation.to_html(given.pop("images"), **given)
    assert message in one_sentence(error)


def test_maps_must_be_those_of_images(explanation, image):
    volume = dataclasses.replace(explanation, attributions=torch.rand(1, 1, 4, 4, 4))
    with pytest.raises(ValueError) as error:
        volume.to_html(image)
    assert "maps of images" in one_sentence(error)
