"""The page in a browser: what its script shows, and that it works with a keyboard alone."""

from __future__ import annotations

import os
import shutil

import pytest
from example_reports import page_of, report

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

BROWSER = os.environ.get("CHROME") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
DRIVER = shutil.which("chromedriver")
OPTIONS = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking")
OPTIONS += ("disable-component-update", "disable-sync", "no-first-run", "disable-quic")
HOSTILE = "<img src=x onerror=\"document.title='hit'\"></script><b>.jpg"
LAST = 38
TABLE = "#metrics .scroll:first-of-type"
METHODS = {"layer-advise": 0.1, "grad-cam": 0.05, "<i>third</i>": 0.02, "random": 0.0}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    names = [HOSTILE, *(f"image {i}.jpg" for i in range(1, 40))]
    made = page_of(report(METHODS, names=names), embedded=(0, 1, LAST))
    path.write_text(made, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    emulate(browser)
    width(browser, 1200)
    browser.get(address)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert "hit" not in browser.title


def emulate(browser, scheme="light"):
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    listed = [{"name": name, "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})


def width(browser, pixels):
    metrics = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def find(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def find_all(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def focused(page):
    return page.switch_to.active_element


def test_methods_are_sorted_by_their_mean_ranks(page):
    rows = find_all(page, f"{TABLE} tbody tr")
    cells = [row.find_elements(By.TAG_NAME, "td")[0].text for row in rows]
    assert cells[0] == "1.00"
    assert cells == sorted(cells, key=float)


def test_failures_and_conclusions_come_before_all_tables(page):
    assert find(page, "#conclusions").text.startswith("2 images could not be evaluated")
    tops = [find(page, name).location["y"] for name in ("#conclusions", "#metrics")]
    assert tops == sorted(tops)


def test_the_images_show_all_maps_and_their_metrics(page):
    first, *others = find_all(page, "#gallery details")
    assert first.get_attribute("open")
    assert not any(other.get_attribute("open") for other in others)
    assert first.find_element(By.TAG_NAME, "summary").text == f"0: {HOSTILE}"
    assert first.find_element(By.TAG_NAME, "img").get_attribute("alt") == f"The image {HOSTILE}"
    assert not find_all(page, "#gallery b, #gallery i")
    captions = [caption.text for caption in first.find_elements(By.TAG_NAME, "figcaption")]
    assert captions == ["image", *METHODS]
    others[-1].find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    WebDriverWait(page, 20).until(lambda _: others[-1].get_attribute("open"))
    assert f"image {LAST}.jpg" in others[-1].text


def test_every_control_is_reached_with_the_tab_key_and_has_a_name(page):
    names = []
    find(page, "body").send_keys(Keys.TAB)
    for _ in range(120):
        element = focused(page)
        if element.tag_name == "body":
            break
        names.append(element.tag_name)
        assert element.accessible_name, names
        style = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert style == "solid"
        element.send_keys(Keys.TAB)
    assert {"a", "summary", "div"} <= set(names)
    for picture in find_all(page, "img"):
        assert picture.get_attribute("alt")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_width_of_400_pixels_in_both_colour_schemes(page, scheme, address):
    width(page, 400)
    emulate(page, scheme)
    page.get(address)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 400
    colours = page.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert contrast(*colours) >= 7
    for selector in ("td small", "td .better", "td .worse"):
        assert contrast(find(page, selector).value_of_css_property("color"), colours[1]) >= 4.5


def contrast(colour, other):
    """Contrast of two colours ``rgb(r, g, b)`` by WCAG 2."""

    def luminance(text):
        parts = [float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted([luminance(colour), luminance(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("media", ["screen", "print"])
def test_what_belongs_to_a_mean_is_smaller(page, media):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    cell = find(page, f"{TABLE} td:nth-child(3)")
    sizes = [
        float(element.value_of_css_property("font-size").removesuffix("px"))
        for element in (cell, cell.find_element(By.TAG_NAME, "small"))
    ]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert sizes[1] < sizes[0]


def test_all_parts_are_printed(page):
    assert find_all(page, "details:not([open])")
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not find_all(page, "details:not([open])")
