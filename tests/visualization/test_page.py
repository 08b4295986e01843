from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import re
from importlib import resources

import matplotlib
import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam
from example_explanations import explanation as several_maps
from example_explanations import setup_with
from messages import one_sentence
from pages import Elements, articles, figures, picture, table
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, Units, visualization
from captum_advise.pixels import normalize_maps, upsample_maps

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
        self.examples = articles(self.page)


@pytest.fixture(scope="module")
def made():
    return Made()


def heat_of(values, size=(24, 24)):
    """A map (h, w) as the protocol makes a mask of it."""
    return upsample_maps(normalize_maps(values[None, None].relu()), size)[0, 0].numpy()


def test_nothing_is_fetched(made):
    elements = Elements(made.page)
    assert not re.findall(r"https?://", made.page)
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in elements.found)
    for _, attributes in elements.found:
        for address in {"src", "href"} & set(attributes):
            assert attributes[address].startswith(("data:image/", "#"))
    assert "@import" not in made.page
    assert "url(" not in made.page


def test_only_the_pages_own_script_may_run(made):
    folder = resources.files("captum_advise.visualization") / "page_template"
    script, style = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css")
    )
    (policy,) = [
        attributes["content"]
        for attributes in Elements(made.page).all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for part, content in {"script": script, "style": style}.items():
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{part}-src"] == f"'sha256-{digest}'"
        assert f"<{part}>{content}</{part}>" in made.page
    assert "innerHTML" not in script


def test_every_image_has_a_label(made):
    for attributes in Elements(made.page).all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]


# --- maps


def test_maps_of_groups_are_those_of_the_explanation(made):
    for index, example in enumerate(made.examples):
        candidates = made.explanation.candidates[index]
        shown = figures(example, "Map of the units of ")
        for figure, candidate in zip(shown, candidates, strict=True):
            is_selected = candidate.relevance == made.explanation.selected[index]
            caption = candidate.describe() + ", selected" * is_selected
            assert figure.caption == caption
            assert figure.is_selected == is_selected
            heat = heat_of(candidate.attributions[0])
            np.testing.assert_allclose(figure.heat(), heat, atol=0.51 / 255)
            cells = table(example)[f"relevance {candidate.relevance}"]
            names = ("avx", "average_drop", "ssim", "fsim", "mse")
            values = [f"{getattr(candidate.metrics, name).item():.3f}" for name in names]
            assert cells[:5] == values


def test_maps_of_methods(made):
    grad_cam = LayerGradCam(made.net, made.net.layer).attribute(
        made.images, made.explanation.target
    )
    for index, example in enumerate(made.examples):
        image, own, other, *_ = figures(example)
        labels = ("The image", "Map of LayerAdvise", "Map of Grad-CAM")
        assert (image.label, own.label, other.label) == labels
        expected = heat_of(made.explanation.attributions[index, 0])
        np.testing.assert_allclose(own.heat(), expected, atol=0.51 / 255)
        count = int(made.explanation.selected_units[index].sum())
        avx = f"{made.explanation.metrics.avx[index].item():.3f}"
        assert own.caption == f"LayerAdvise: {count} unit{'s' * (count > 1)}, AVX {avx}"
        assert table(example)["LayerAdvise"][0] == avx
        expected = heat_of(grad_cam[index, 0].detach())
        np.testing.assert_allclose(other.heat(), expected, atol=0.51 / 255 + 1e-4)
        assert other.caption.startswith("Grad-CAM: all 12 units")


def test_colours_are_those_of_figures(made):
    own = figures(made.examples[0], "Map of LayerAdvise")[0]
    pixels = picture(own.images[0])
    assert (
        pixels[..., :3] == matplotlib.colormaps["plasma"](pixels[..., 3], bytes=True)[..., :3]
    ).all()


def test_image(made):
    for example, image in zip(made.examples, made.images, strict=True):
        shown = figures(example, "The image")[0].images[0]
        assert shown.startswith("data:image/jpeg;base64,")
        colours = picture(shown)[..., :3] / 255
        assert np.abs(colours - image.permute(1, 2, 0).numpy()).mean() < 0.02


def test_the_recommended_map_comes_first():
    large = torch.linspace(-1, 1, 224 * 224).reshape(1, 1, 224, 224)
    page = visualization.page(several_maps(gated_grad_cam=large))
    first, second, *_ = figures(page, "Map of ")
    assert first.caption == "GatedGradCam: 224 x 224 positions"
    assert second.label == "Map of LayerAdvise"
    np.testing.assert_allclose(first.heat(), large[0, 0].clamp(min=0).numpy(), atol=0.003)
    # It has no metrics.
    assert "GatedGradCam" not in table(page)


# --- units


def test_units(made):
    # An in-place ReLU follows the layer: these are the values before it.
    feature_maps = LayerActivation(made.net, made.net.layer).attribute(made.images).detach()
    captum = LayerGradCam(made.net, made.net.layer)
    expected = captum.attribute(made.images, made.explanation.target, attr_dim_summation=False)
    for index, example in enumerate(made.examples):
        evidence = expected[index].detach().relu().sum((1, 2))
        best = evidence.argsort(descending=True)[:10]
        best = best[evidence[best] > 0].tolist()
        shown = figures(example, "Activation of unit ")
        assert [figure.label.split()[-1] for figure in shown] == [str(unit) for unit in best]
        for figure, unit in zip(shown, best, strict=True):
            maps = feature_maps[index, unit]
            heat = heat_of(maps - maps.min())
            np.testing.assert_allclose(figure.heat(), heat, atol=0.51 / 255 + 1e-4)
            relevance = int(made.explanation.unit_relevance[index, unit])
            share = f"{100 * evidence[unit] / evidence.sum():.1f}% of the evidence"
            assert figure.caption.startswith(f"Unit {unit}, relevance {relevance}: {share}")
            is_in = bool(made.explanation.selected_units[index, unit])
            assert ("not in the map of LayerAdvise" in figure.caption) != is_in
            assert figure.caption.endswith("144 of 144 activations count.")
            assert len(figure.modes) == relevance


def test_activations_out_of_the_range_are_counted(made):
    units = made.explanation.units
    ranges = torch.zeros_like(units.ranges)
    ranges[..., 1] = 1e-3
    page = visualization.page(
        dataclasses.replace(made.explanation, units=dataclasses.replace(units, ranges=ranges))
    )
    for index, example in enumerate(articles(page)):
        for figure in figures(example, "Activation of unit "):
            values = units.feature_maps[index, int(figure.label.split()[-1])]
            below, above = (values < 0).sum().item(), (values > 1e-3).sum().item()
            text = f"{144 - below - above} of 144 activations count"
            text += f", {below} lie below" * bool(below) + f", {above} lie above" * bool(above)
            assert figure.caption.endswith(f"{text}.")


def test_fewer_modes_than_the_density_has_are_the_most_prominent(made):
    relevance = made.explanation.unit_relevance
    fewer = dataclasses.replace(made.explanation, unit_relevance=relevance.clamp(max=1))
    for before, after in zip(made.examples, articles(visualization.page(fewer)), strict=True):
        label = "Activation of unit "
        for one, other in zip(figures(before, label), figures(after, label), strict=True):
            (mode,) = other.modes
            assert mode in one.modes


def test_a_layer_of_one_position(made):
    """Has no densities."""
    units = made.explanation.units
    single = Units(
        *(part[..., :1, :1] for part in (units.feature_maps, units.contributions)),
        torch.full((2, 12, 1), torch.nan, dtype=torch.float64),
        units.ranges,
    )
    page = visualization.page(dataclasses.replace(made.explanation, units=single))
    shown = figures(page, "Activation of unit ")
    assert shown
    for figure in shown:
        assert "The density of so few different activations is not defined." in figure.caption
        assert figure.modes == []


def test_the_page_of_a_wide_layer_stays_small():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 400, 112, 112, generator=draw)
    contributions = maps * torch.randn(1, 400, 1, 1, generator=draw)
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
    assert len(figures(page, "Activation of unit ")) == 10
    assert len(page) < 500_000


# --- texts


def test_hostile_texts_stay_texts():
    names = [HOSTILE, "caf\udce9.jpg"]  # the second was not UTF-8
    made = Made(class_names=[HOSTILE] * 7, names=names)
    assert made.page.count("<script") == 1
    assert made.page.count("</script") == 1
    elements = Elements(made.page)
    assert len(elements.all("img")) == 1  # the scale
    assert elements.texts["title"] == f"Explanation, {HOSTILE}"
    assert elements.texts["h2"] == 2 * HOSTILE
    assert HOSTILE in elements.texts["p"]
    assert "caf?.jpg" in elements.texts["p"]
    made.page.encode("utf-8")


def test_without_units(explanation):
    page = visualization.page(explanation)
    assert "<h2>class 285</h2>" in page
    assert "confidence 42.0%" in page
    shown = [figure.label.removeprefix("Map of ") for figure in figures(page, "Map of ")]
    groups = [f"the units of relevance {relevance}" for relevance in (1, 2, 3)]
    assert shown == ["LayerAdvise", "Grad-CAM", *groups]
    # The candidates have other units than the selected ones.
    assert not any(figure.is_selected for figure in figures(page))


def test_the_most_probable_classes(made):
    named = dataclasses.replace(made.explanation, setup=setup_with([f"no. {n}" for n in range(7)]))
    for confidences, example in zip(
        made.explanation.confidences, articles(visualization.page(named)), strict=True
    ):
        best = confidences.sort(descending=True)
        listed = re.findall(r"<li>(.*?) <span>(.*?)</span></li>", example)
        assert listed == [
            (f"no. {number}", f"{100 * value:.1f}%")
            for number, value in zip(
                best.indices[:5].tolist(), best.values[:5].tolist(), strict=True
            )
        ]
        assert f"<h2>{listed[0][0]}</h2>" in example
    assert "<li>" not in made.page  # no names


def test_the_network_is_named():
    with_setup = Made(class_names=["<b>"] * 7)
    assert f"Network: {html.escape(str(with_setup.explanation.setup))}" in with_setup.page


def test_metrics_that_do_not_apply(explanation):
    nothing = torch.tensor([float("nan")])
    metrics = dataclasses.replace(explanation.metrics, ssim=nothing, avx=nothing)
    candidate = dataclasses.replace(explanation.candidates[0][1], metrics=metrics[0])
    changed = dataclasses.replace(explanation, candidates=((candidate,),))
    cells = table(visualization.page(changed))["relevance 2"]
    assert cells == ["-", "0.500", "-", "0.500", "0.500", "0.500", "yes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["one"]}, "as many names, got 1"),
        ({"maps": {"other": torch.full((2, 1, 12, 12), torch.nan)}}, "finite"),
        ({"maps": {"other": torch.rand(2, 1, 4, 4, 4)}}, "must be (h, w)"),
    ],
)
def test_what_cannot_be_shown(made, change, message):
    names = change.pop("names", None)
    with pytest.raises(ValueError) as error:
        visualization.page(dataclasses.replace(made.explanation, **change), names=names)
    assert message in one_sentence(error)
