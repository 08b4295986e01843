"""The page of an explanation in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from browser import chromium, complaints
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, visualization

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)>"


class Shown:
    """A page of two images in a browser."""

    def __init__(self, driver, folder):
        net = network(Net)
        advise = LayerAdvise(
            net, net.layer, pixel_space=PixelSpace.identity(), activation_range="minmax"
        )
        found = advise.explain(images(2, height=48, width=48), keep_units=True)
        fine = torch.zeros(2, 1, 48, 48)
        fine[..., 10:14, 30:40] = 1
        # The recommended map comes first, as in what captum_advise.explain makes.
        explanation = dataclasses.replace(found, maps={"gated-grad-cam": fine} | found.maps)
        page = visualization.page(explanation, names=["first.png", HOSTILE])
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


def test_every_image_is_drawn(shown):
    stages = shown.all("svg.stage, svg.density")
    assert len(stages) > 20
    for stage in stages:
        assert stage.size["width"] > 100
        assert stage.size["height"] > 50


def test_opacity_by_keyboard(shown):
    from selenium.webdriver.common.keys import Keys

    slider = shown.find("#opacity")
    slider.send_keys(*[Keys.ARROW_LEFT] * 4)
    percent = int(slider.get_attribute("value"))
    assert percent < 65
    assert shown.find("output").text == f"{percent}%"
    opacity = (
        "return Array.from(document.querySelectorAll('.heat'), e => getComputedStyle(e).opacity)"
    )
    assert set(shown.run(opacity)) == {f"{percent / 100:g}"}


def test_every_control_is_reached_by_tab_and_shows_it(shown):
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(4):
        shown.driver.switch_to.active_element.send_keys(Keys.TAB)
        key, outline = shown.run(
            "const e = document.activeElement;"
            "return [e.id || e.className || e.textContent, getComputedStyle(e).outlineStyle]"
        )
        reached.append(key)
        assert outline == "solid", key
    assert reached == ["opacity", "What do I see?", "scroll", "scroll"]


def test_a_hostile_name(shown):
    assert HOSTILE in shown.find("article:nth-of-type(2) > p").text
    assert shown.driver.title.startswith("Explanation")
    assert len(shown.all("script")) == 1


def test_an_explanation_for_those_who_know_nothing_of_it(shown):
    shown.find("#help summary").click()
    text = shown.find("#help").text
    assert "What do I see?" in text
    assert "AVX" in text
    assert "relevance" in text
    for heading in shown.all("thead th"):
        assert re.split(r" [↑↓(]", heading.text)[0].casefold() in text.casefold()


def test_the_explanation_is_printed(shown):
    assert shown.find("#help").get_attribute("open") is None
    shown.run("dispatchEvent(new Event('beforeprint'))")
    assert shown.find("#help").get_attribute("open") is not None
    shown.run("dispatchEvent(new Event('afterprint'))")
    assert shown.find("#help").get_attribute("open") is None


def test_lines_of_the_table_are_printed_across_all_columns(shown):
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    # A sticky cell hides the lines of the table below its ground.
    position = shown.find("tbody th").value_of_css_property("position")
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert position == "static"


def test_a_tall_image_fits_the_window(browser, tmp_path):
    net = network(Net)
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())
    path = tmp_path / "page.html"
    path.write_text(visualization.page(advise.explain(images(1, height=144, width=24))), "utf-8")
    browser.get(path.as_uri())
    for stage in browser.find_elements("css selector", "svg.stage"):
        assert 100 < stage.size["height"] < 500


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
