"""The page of an explanation in a real browser."""

from __future__ import annotations

import dataclasses
import json

import matplotlib
import numpy as np
import pytest
import torch
from browser import chromium, complaints
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, visualization
from captum_advise.pixels import normalize_maps, upsample_maps

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)>"


class Shown:
    """A page of two images in a browser."""

    def __init__(self, driver, folder):
        net = network(Net)
        self.inputs = images(2, height=48, width=48)
        advise = LayerAdvise(
            net, net.layer, pixel_space=PixelSpace.identity(), activation_range="minmax"
        )
        found = advise.explain(self.inputs, keep_units=True)
        self.fine = torch.zeros(2, 1, 48, 48)
        self.fine[..., 10:14, 30:40] = 1
        # The recommended map comes first, as in what captum_advise.explain makes.
        self.explanation = dataclasses.replace(
            found, maps={"gated-grad-cam": self.fine} | found.maps
        )
        self.contributions = found.units.contributions
        page = visualization.page(self.explanation, names=["first.png", HOSTILE])
        self.path = folder / "page.html"
        self.path.write_text(page, encoding="utf-8")
        self.driver = driver

    def open(self):
        self.driver.get(self.path.as_uri())
        return self

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def choose(self, select, text):
        """An option of one of the lists."""
        from selenium.webdriver.support.ui import Select

        Select(self.find(f"#{select}")).select_by_visible_text(text)

    def press(self, selector, *keys):
        self.run("arguments[0].focus()", self.find(selector))
        self.driver.switch_to.active_element.send_keys(*keys)

    def point(self, selector, row, column, click=False):
        """Move the pointer to a position of the layer, 24 x 24."""
        from selenium.webdriver.common.action_chains import ActionChains

        box = self.find(selector)
        offset = [
            (part + 0.5) / 24 * length - length / 2
            for part, length in ((column, box.size["width"]), (row, box.size["height"]))
        ]
        actions = ActionChains(self.driver).move_to_element_with_offset(box, *map(round, offset))
        (actions.click() if click else actions).perform()

    def ranking(self):
        return [int(button.get_attribute("data-unit")) for button in self.all("#ranking button")]

    def expected_ranking(self, evidence):
        order = evidence.argsort(descending=True)
        return order[evidence[order] > 0][:10].tolist()


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def made(browser, tmp_path_factory):
    return Shown(browser, tmp_path_factory.mktemp("page"))


@pytest.fixture
def shown(made):
    made.open()
    yield made
    assert complaints(made.driver) == []


def options_of(shown, select):
    return [option.get_attribute("textContent") for option in shown.all(f"#{select} option")]


def test_starts_with_the_recommended_map(shown):
    groups = [f"relevance {c.relevance}" for c in shown.explanation.candidates[0]]
    groups[groups.index(f"relevance {int(shown.explanation.selected[0])}")] += " ✓"
    methods = ["GatedGradCam", "LayerAdvise", "Grad-CAM"]
    assert options_of(shown, "map") == [*methods, *groups]
    assert options_of(shown, "comparison") == [*methods, *groups, "Image"]
    assert shown.find("#map option:checked").text == "GatedGradCam"
    assert shown.find("#comparison option:checked").text == "Grad-CAM"
    shown.choose("map", "LayerAdvise")
    avx = shown.explanation.metrics.avx[0].item()
    assert f"AVX {avx:.3f}" in shown.find("#map-note").text


def test_heat_is_that_of_the_protocol(shown):
    shown.choose("map", "LayerAdvise")
    pixels = shown.run(
        "const c = document.querySelector('#map-stage canvas');"
        "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    heat = np.array(pixels).reshape(48, 48, 4)
    maps = normalize_maps(shown.explanation.attributions[:1].relu())
    expected = upsample_maps(maps, (48, 48))[0, 0].numpy()
    assert np.abs(heat[..., 3] / 255 - expected).max() < 0.51 / 255 + 1e-4
    # The canvas stores colours multiplied by the opacity: exact only where that is high.
    opaque = expected > 0.5
    colours = matplotlib.colormaps["plasma"](np.rint(255 * expected).astype(int), bytes=True)
    difference = np.abs(heat[..., :3].astype(int) - colours[..., :3])[opaque]
    assert difference.max() <= 6


def test_through_the_maps(shown):
    count = len(shown.explanation.maps) + len(shown.explanation.candidates[0])
    seen = set()
    for _ in range(count):
        shown.find("#next-map").click()
        seen.add(shown.find("#map option:checked").text)
    assert len(seen) == count


def test_through_the_groups(shown):
    candidates = shown.explanation.candidates[0]
    assert len(candidates) > 1
    _, _, *buttons = shown.all("thead button")  # after those of LayerAdvise and Grad-CAM
    for candidate, button in zip(candidates, buttons, strict=True):
        # A label may cover what is scrolled away.
        shown.run("arguments[0].scrollIntoView({inline: 'nearest'})", button)
        button.click()
        assert shown.find("#map option:checked").text.startswith(f"relevance {candidate.relevance}")
        count = len(candidate.units)
        assert f"{count} unit" in shown.find("#map-note").text
        column = [cell.text for cell in shown.all("td.current")]
        assert column[0] == str(count)
        assert column[1] == f"{candidate.metrics.avx.item():.3f}"
        assert button.get_attribute("aria-pressed") == "true"
        members = {int(unit.get_attribute("data-unit")) for unit in shown.all("#ranking .member")}
        assert members == set(shown.ranking()) & set(candidate.units.tolist())


def test_a_map_that_is_no_sum_of_units_has_none(shown):
    assert not shown.all("#ranking .member")
    assert not shown.all("td.current")
    shown.choose("map", "Grad-CAM")
    assert len(shown.all("#ranking .member")) == len(shown.ranking())


def test_ranking_and_a_click_on_a_unit(shown):
    evidence = shown.contributions[0].relu().sum((1, 2))
    assert shown.ranking() == shown.expected_ranking(evidence)
    button = shown.all("#ranking button")[2]
    unit = int(button.get_attribute("data-unit"))
    before = shown.run("return document.querySelector('#unit-stage canvas').toDataURL()")
    button.click()
    assert shown.find("#unit").get_attribute("value") == str(unit)
    assert shown.find("#density-title").text.startswith(f"Unit {unit} of 12")
    assert shown.run("return document.querySelector('#unit-stage canvas').toDataURL()") != before
    relevance = int(shown.explanation.unit_relevance[0, unit])
    assert len(shown.all("#density .mode")) == relevance
    facts = shown.find("#facts").text.splitlines()
    assert facts[facts.index("Relevance") + 1] == str(relevance)
    share = evidence[unit] / evidence.sum()
    assert facts[facts.index("Share of the evidence") + 1] == f"{100 * share:.1f}%"
    assert shown.find("#ranking [aria-current]").get_attribute("data-unit") == str(unit)


def test_a_unit_by_its_number(shown):
    from selenium.webdriver.common.keys import Keys

    box = shown.find("#unit")
    box.send_keys(Keys.CONTROL, "a", Keys.NULL, "7", Keys.ENTER)
    assert shown.find("#density-title").text.startswith("Unit 7 of 12")
    box.send_keys(Keys.CONTROL, "a", Keys.NULL, "99", Keys.ENTER)
    assert shown.run("return arguments[0].validationMessage", box)
    assert shown.find("#density-title").text.startswith("Unit 7 of 12")


def test_pointer_over_the_image(shown):
    shown.point("#map-stage", 5, 17)
    assert shown.find("#place").text == "Row 6 of 24, column 18 of 24"
    assert shown.ranking() == shown.expected_ranking(shown.contributions[0, :, 5, 17])
    shown.point("#comparison-stage", 20, 3)
    assert shown.find("#place").text == "Row 21 of 24, column 4 of 24"
    shown.point("#map-stage", 8, 9, click=True)
    shown.point("#map-stage", 2, 2)  # held
    assert shown.find("#place").text == "Row 9 of 24, column 10 of 24"
    shown.find("#whole").click()
    assert shown.find("#place").text == "Whole image"
    assert shown.run("return document.activeElement.id") == "map-stage"


def test_keyboard_over_the_image(shown):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    shown.press("#map-stage", Keys.ARROW_RIGHT)
    assert shown.find("#place").text == "Row 13 of 24, column 13 of 24"
    shown.press("#map-stage", Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert shown.find("#place").text == "Row 15 of 24, column 14 of 24"
    expected = shown.expected_ranking(shown.contributions[0, :, 14, 13])
    assert shown.ranking() == expected
    live = f"Row 15 of 24, column 14 of 24: unit {expected[0]} "
    WebDriverWait(shown.driver, 5).until(
        lambda _: shown.find("#live").get_attribute("textContent").startswith(live)
    )
    shown.press("#map-stage", Keys.ESCAPE)
    assert shown.find("#place").text == "Whole image"


def test_opacity_by_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    shown.press("#opacity", *[Keys.ARROW_LEFT] * 4)
    percent = int(shown.find("#opacity").get_attribute("value"))
    assert percent < 65
    assert shown.find("#opacity-value").text == f"{percent}%"
    for stage in ("map", "comparison", "unit"):
        assert (
            shown.run(f"return document.querySelector('#{stage}-stage canvas').style.opacity")
            == f"{percent / 100:g}"
        )


def test_every_control_is_reached_by_tab_and_shows_it(shown):
    from selenium.webdriver.common.keys import Keys

    shown.run("document.activeElement.blur()")
    reached = []
    for _ in range(60):
        shown.driver.switch_to.active_element.send_keys(Keys.TAB)
        key, outline = shown.run(
            "const e = document.activeElement;"
            "return [e.id || e.dataset.unit || e.textContent, getComputedStyle(e).outlineStyle]"
        )
        if key in reached:
            break
        reached.append(key)
        if shown.run("return document.activeElement !== document.body"):
            assert outline == "solid", key
    wanted = "example opacity map next-map map-stage comparison unit next-unit unit-stage"
    assert set(wanted.split()) <= set(reached)
    assert {str(unit) for unit in shown.ranking()} <= set(reached)


def test_another_image_with_a_hostile_name(shown):
    title = shown.driver.title
    shown.press("#example", "2")
    shown.run(
        "const e = document.getElementById('example'); e.value = 1;"
        "e.dispatchEvent(new Event('change'))"
    )
    assert HOSTILE in shown.find("#summary").text
    assert shown.driver.title == title
    assert shown.ranking() == shown.expected_ranking(shown.contributions[1].relu().sum((1, 2)))
    assert len(shown.all("script")) == 2


def test_compare_with_a_map_at_the_size_of_the_image(shown):
    shown.choose("comparison", "GatedGradCam")
    assert shown.find("#comparison-note").text == "48 x 48 positions"
    heat = shown.run(
        "const c = document.querySelector('#comparison-stage canvas');"
        "const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [c.height, c.width, Array.from(pixels.filter((_, at) => at % 4 === 3))]"
    )
    assert heat[:2] == [48, 48]
    opacity = np.array(heat[2]).reshape(48, 48)
    np.testing.assert_array_equal(opacity, 255 * shown.fine[0, 0].numpy())
    # The map has neither units nor metrics.
    heads = [head.text for head in shown.all("#metrics-head th")]
    assert "Grad-CAM" in heads
    assert "GatedGradCam" not in heads


def test_compare_with_the_image_alone(shown):
    shown.choose("comparison", "Image")
    assert shown.find("#comparison-note").text == "Without heat"
    image = "return getComputedStyle(document.querySelector('#comparison-stage img')).filter"
    assert shown.run(image) == "none"


def test_nothing_moves_while_the_pointer_does(shown):
    """However many units have evidence at a position."""
    places = (
        "return ['table-title', 'density-title', 'unit-stage', 'ranking'].map((id) => " + TOP + ")"
    )
    before, counts = shown.run(places), {len(shown.ranking())}
    for row, column in [(0, 0), (5, 17), (23, 23), (12, 3)]:
        shown.point("#map-stage", row, column)
        assert shown.run(places) == before
        counts.add(len(shown.ranking()))
    assert len(counts) > 1


TOP = "document.getElementById(id).getBoundingClientRect().top"


def test_the_density_shades_what_does_not_count(shown):
    outside = shown.all("#density .outside")
    assert len(outside) == 2
    labels = [text.get_attribute("textContent") for text in shown.all("#density text")]
    assert {"activation", "density"} <= set(labels)
    unit = int(shown.find("#unit").get_attribute("value"))
    low, high = shown.explanation.units.ranges[0, unit].tolist()
    shown_range = [float(labels[0]), float(labels[2])]
    np.testing.assert_allclose(shown_range, [low, high], rtol=0.01, atol=1e-3)


def test_an_explanation_for_those_who_know_nothing_of_it(shown):
    shown.find("#help summary").click()
    text = shown.find("#help").text
    assert "What do I see?" in text
    assert "AVX" in text
    assert "relevance" in text


def test_the_explanation_is_printed(shown):
    assert shown.find("#help").get_attribute("open") is None
    shown.run("dispatchEvent(new Event('beforeprint'))")
    assert shown.find("#help").get_attribute("open") is not None
    shown.run("dispatchEvent(new Event('afterprint'))")
    assert shown.find("#help").get_attribute("open") is None


@pytest.mark.parametrize("width", [320, 400, 700, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_any_width_in_light_and_dark(shown, width, scheme):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    try:
        shown.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        shown.open()
        assert shown.run("return document.documentElement.scrollWidth") <= width
        assert worst_contrast(shown) >= 4.5
    finally:
        shown.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const isText = (child) => child.nodeType === 3 && child.textContent.trim();
const style = (node) => getComputedStyle(node);
const found = [];
for (const node of document.querySelectorAll("body *")) {
  if (!Array.from(node.childNodes).some(isText)) continue;
  if (!node.checkVisibility() || node.closest("script, svg, .unseen")) continue;
  let ground = node;
  while (parse(style(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const colours = [parse(style(node).color), parse(style(ground).backgroundColor)];
  found.push([node.textContent.slice(0, 30), ...colours]);
}
return JSON.stringify(found);
"""


def worst_contrast(shown) -> float:
    """The lowest contrast of a text with its ground, as WCAG 2 defines it."""

    def luminance(colour):
        parts = torch.tensor(colour[:3]).double() / 255
        linear = torch.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ torch.tensor([0.2126, 0.7152, 0.0722]).double())

    def contrast(first, second):
        low, high = sorted((luminance(first), luminance(second)))
        return (high + 0.05) / (low + 0.05)

    found = json.loads(shown.run(CONTRAST))
    assert len(found) > 30
    return min(contrast(colour, ground) for _, colour, ground in found)
