from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import re
from importlib import resources

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam
from example_explanations import explanation as several_maps
from example_explanations import setup_with
from messages import one_sentence
from pages import Elements, data_of, unpacked
from PIL import Image
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, Units, adaptive_kde, count_modes, visualization
from captum_advise.pixels import normalize_maps
from captum_advise.visualization.explanation_page import _affordable

HOSTILE = "</script><script>alert(1)</script><!--\"'&<img src=x onerror=alert(1)>\u2028{{script}}"


class Made:
    """A page of two images, and what it was made of."""

    def __init__(self, class_names=None, names=None):
        self.net = network(Net)
        self.images = images(2)
        advise = LayerAdvise(
            self.net,
            self.net.layer,
            pixel_space=PixelSpace.identity(),
            activation_range="minmax",
        )
        self.explanation = advise.explain(self.images, keep_units=True)
        if class_names is not None:
            setup = setup_with(class_names)
            self.explanation = dataclasses.replace(self.explanation, setup=setup)
        self.page = visualization.page(self.explanation, names=names)
        self.examples = data_of(self.page)["examples"]


@pytest.fixture(scope="module")
def made():
    return Made()


def example_of(explanation):
    """The data of the page of one example."""
    (found,) = data_of(visualization.page(explanation))["examples"]
    return found


def maps_of(found, kind):
    return [shown for shown in found["maps"] if shown["kind"] == kind]


def test_nothing_is_fetched(made):
    urls = re.findall(r"https?://[^\s\"'<>]+", made.page)
    assert set(urls) == {"http://www.w3.org/2000/svg"}
    elements = Elements(made.page).found
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in elements)
    assert not [attributes for _, attributes in elements if {"src", "href"} & set(attributes)]
    assert "@import" not in made.page
    assert "url(" not in made.page


def test_only_the_pages_own_script_may_run(made):
    folder = resources.files("captum_advise.visualization") / "page_template"
    heat, page, style = (
        (folder / name).read_text(encoding="utf-8") for name in ("heat.js", "page.js", "page.css")
    )
    script = heat + page
    (policy,) = [
        attributes["content"]
        for tag, attributes in Elements(made.page).found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for part, content in {"script": script, "style": style}.items():
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{part}-src"] == f"'sha256-{digest}'"
        assert f"<{part}>{content}</{part}>" in made.page
    assert "innerHTML" not in script


def test_every_control_has_a_label(made):
    elements = Elements(made.page).found
    labelled = {attributes["for"] for tag, attributes in elements if "for" in attributes}
    enclosed = {"example", "opacity"}  # within their labels
    for tag, attributes in elements:
        if tag in ("input", "select"):
            assert attributes["id"] in labelled | enclosed


# --- data


def test_maps_of_groups_are_those_of_the_explanation(made):
    for index, example in enumerate(made.examples):
        candidates = made.explanation.candidates[index]
        for shown, candidate in zip(maps_of(example, "group"), candidates, strict=True):
            assert shown["name"] == f"relevance {candidate.relevance}"
            np.testing.assert_array_equal(
                unpacked(shown["values"]), candidate.attributions[0].numpy()
            )
            np.testing.assert_array_equal(unpacked(shown["units"]), candidate.units.numpy())
            assert shown["n_units"] == len(candidate.units)
            for name in ("avx", "average_drop", "ssim", "fsim", "mse"):
                assert shown["metrics"][name] == getattr(candidate.metrics, name).item()
        (selected,) = [shown for shown in example["maps"] if shown["selected"]]
        np.testing.assert_array_equal(
            unpacked(selected["values"]), made.explanation.attributions[index, 0].numpy()
        )
        assert selected["name"] == f"relevance {made.explanation.selected[index]}"


def test_maps_of_methods_come_first(made):
    grad_cam = LayerGradCam(made.net, made.net.layer).attribute(
        made.images, made.explanation.target
    )
    for index, example in enumerate(made.examples):
        own, other = maps_of(example, "method")
        assert example["maps"][:2] == [own, other]
        assert (own["name"], other["name"]) == ("LayerAdvise", "Grad-CAM")
        expected = made.explanation.attributions[index, 0].numpy()
        np.testing.assert_array_equal(unpacked(own["values"]), expected)
        selected = made.explanation.selected_units[index].nonzero()[:, 0].numpy()
        np.testing.assert_array_equal(unpacked(own["units"]), selected)
        assert own["n_units"] == len(selected)
        assert own["metrics"]["avx"] == made.explanation.metrics.avx[index].item()
        np.testing.assert_allclose(
            unpacked(other["values"]), grad_cam[index, 0].detach().numpy(), atol=1e-6
        )
        assert (other["units"], other["n_units"]) == (None, 12)


def test_units(made):
    # An in-place ReLU follows the layer: these are the values before it.
    feature_maps = LayerActivation(made.net, made.net.layer).attribute(made.images).detach()
    captum = LayerGradCam(made.net, made.net.layer)
    expected = captum.attribute(made.images, made.explanation.target, attr_dim_summation=False)
    for index, example in enumerate(made.examples):
        units = example["units"]
        maps = feature_maps[index].numpy()
        low, step = unpacked(units["low"]), unpacked(units["step"])
        values = low[:, None, None] + step[:, None, None] * unpacked(units["activations"])
        # 16 bits: half a step at most.
        np.testing.assert_allclose(step, np.ptp(maps, (1, 2)) / 65535, rtol=1e-5)
        assert (np.abs(values - maps) <= 0.51 * step[:, None, None] + 1e-7).all()
        contributions = unpacked(units["factor"])[:, None, None] * maps
        np.testing.assert_allclose(contributions, expected[index].detach().numpy(), atol=1e-6)
        evidence = np.maximum(contributions, 0).sum((1, 2))
        np.testing.assert_allclose(
            unpacked(units["evidence"]), evidence / evidence.sum(), rtol=1e-4, atol=1e-7
        )
        np.testing.assert_array_equal(
            unpacked(units["relevance"]), made.explanation.unit_relevance[index].numpy()
        )
        np.testing.assert_array_equal(unpacked(units["index"]), np.arange(12))
        ranges = np.stack([maps.min((1, 2)), maps.max((1, 2))], 1)
        np.testing.assert_array_equal(unpacked(units["ranges"]), ranges)


def test_densities_and_their_modes(made):
    for index, example in enumerate(made.examples):
        units = example["units"]
        rows = normalize_maps(made.explanation.units.feature_maps[index].flatten(1).double())
        grid = torch.linspace(0, 1, 144, dtype=torch.float64)
        density = adaptive_kde(rows, grid, n_bandwidths=10).density
        curves = unpacked(units["curves"])
        assert len(curves) == 12
        for unit, (curve, modes) in enumerate(zip(curves, units["modes"], strict=True)):
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
    page = visualization.page(fewer)
    for before, after in zip(made.examples, data_of(page)["examples"], strict=True):
        before, after = (example["units"]["modes"] for example in (before, after))
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
    assert elements.texts["title"] == f"Explanation, {HOSTILE}"
    assert [example["name"] for example in made.examples] == names
    assert {example["class"] for example in made.examples} == {HOSTILE}
    made.page.encode("utf-8")


# --- other explanations


def test_without_units(explanation):
    example = example_of(explanation)
    assert example["units"] is None
    assert example["class"] == "class 285"
    assert [shown["name"] for shown in example["maps"]] == [
        "LayerAdvise",
        "Grad-CAM",
        "relevance 1",
        "relevance 2",
        "relevance 3",
    ]
    # The candidates have other units than the selected ones.
    assert not any(shown["selected"] for shown in example["maps"])


def test_the_recommended_map_comes_first():
    large = torch.linspace(-1, 1, 224 * 224).reshape(1, 1, 224, 224)
    first, second, *_ = example_of(several_maps(gated_grad_cam=large))["maps"]
    assert (first["name"], second["name"]) == ("GatedGradCam", "LayerAdvise")
    assert first["n_units"] is first["units"] is first["metrics"] is None
    # Without the negative part, in eight bits.
    values = unpacked(first["values"]) / 255
    np.testing.assert_allclose(values, large[0, 0].clamp(min=0).numpy(), atol=0.003)


def test_the_most_probable_classes(made):
    named = dataclasses.replace(made.explanation, setup=setup_with([f"no. {n}" for n in range(7)]))
    for confidences, example in zip(
        made.explanation.confidences, data_of(visualization.page(named))["examples"], strict=True
    ):
        best = confidences.sort(descending=True)
        names = [found["name"] for found in example["top"]]
        assert names == [f"no. {number}" for number in best.indices[:5].tolist()]
        values = [found["confidence"] for found in example["top"]]
        assert values == best.values[:5].tolist()
        assert example["class"] == names[0]
    assert [example["top"] for example in made.examples] == [[], []]  # no names


def test_the_network_is_named():
    with_setup = Made(class_names=["<b>"] * 7)
    assert f"Network: {html.escape(str(with_setup.explanation.setup))}" in with_setup.page


def test_a_page_of_one_example(made):
    assert example_of(made.explanation[1]) == made.examples[1]


def test_metrics_that_do_not_apply_are_null(explanation):
    nothing = torch.tensor([float("nan")])
    metrics = dataclasses.replace(explanation.metrics, ssim=nothing, avx=nothing)
    candidate = dataclasses.replace(explanation.candidates[0][1], metrics=metrics[0])
    changed = dataclasses.replace(explanation, candidates=((candidate,),))
    (shown,) = maps_of(example_of(changed), "group")
    assert shown["metrics"]["ssim"] is shown["metrics"]["avx"] is None


@pytest.mark.parametrize(
    ("units", "positions", "images", "shown"),
    [(1280, 49, 1, 1280), (512, 196, 1, 512), (64, 112 * 112, 1, 59), (2048, 56 * 56, 20, 11)],
)
def test_size_is_bounded(units, positions, images, shown):
    assert _affordable(units, positions, 1_500_000 // images) == shown


def test_the_page_of_a_wide_layer_stays_small():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 400, 112, 112, generator=draw)
    contributions = maps * torch.randn(1, 400, 1, 1, generator=draw)
    evidence = contributions.relu().sum((0, 2, 3))
    net = network(Net)
    base = LayerAdvise(net, net.layer).explain(images(1), unit_selection=None)
    waves = 10 * torch.rand(1, 400, 1, generator=draw).double()  # noise would have 4,000 modes
    densities = 1 + (waves * torch.linspace(0, torch.pi, 112 * 112).double()).sin()
    explanation = dataclasses.replace(
        base,
        attributions=contributions.sum(1, keepdim=True),
        selected_units=torch.ones(1, 400, dtype=torch.bool),
        candidates=((),),
        units=Units(maps, contributions, densities, torch.zeros(1, 400, 2)),
    )
    page = visualization.page(explanation)
    units = data_of(page)["examples"][0]["units"]
    shown = unpacked(units["index"])
    best = evidence.topk(len(shown)).indices.sort().values
    assert len(page) < 3_000_000
    assert units["count"] == 400
    assert 8 < len(shown) < 400
    assert shown.tolist() == best.tolist()
    assert len(unpacked(units["curves"])) == len(units["modes"]) == len(shown)


def test_a_layer_of_one_position(made):
    """Has no densities."""
    units = made.explanation.units
    single = Units(
        *(part[..., :1, :1] for part in (units.feature_maps, units.contributions)),
        torch.full((2, 12, 1), torch.nan, dtype=torch.float64),
        units.ranges,
    )
    page = visualization.page(dataclasses.replace(made.explanation, units=single))
    found = data_of(page)["examples"][0]["units"]
    assert found["modes"] == [[]] * 12
    assert not unpacked(found["curves"]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["one"]}, "as many names, got 1"),
        ({"maps": {"other": torch.full((2, 1, 12, 12), torch.nan)}}, "finite"),
        ({"maps": {"other": torch.rand(2, 1, 4, 4, 4)}}, "volumes"),
    ],
)
def test_what_cannot_be_shown(made, change, message):
    names = change.pop("names", None)
    with pytest.raises(ValueError) as error:
        visualization.page(dataclasses.replace(made.explanation, **change), names=names)
    assert message in one_sentence(error)
