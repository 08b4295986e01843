"""The page in a browser: what its script shows, and that it works with a keyboard alone."""

from __future__ import annotations

import os
import shutil

import pytest
from example_reports import page_of, report

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

BROWSER = os.environ.get("CHROME") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
DRIVER = shutil.which("chromedriver")
OPTIONS = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking")
OPTIONS += ("disable-component-update", "disable-sync", "no-first-run", "disable-quic")
HOSTILE = "<img src=x onerror=\"document.title='hit'\"></script><b>.jpg"
LAST = 38
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


def order(page):
    heads = find_all(page, "#table tbody th")
    return [head.text.partition("\n")[0] for head in heads]


def focused(page):
    return page.switch_to.active_element


def test_headings_sort_the_table_by_click_and_by_keyboard(page):
    assert order(page) == list(METHODS)
    buttons = find_all(page, "#table thead button")
    insertion = next(button for button in buttons if button.text.startswith("insertion"))
    column = insertion.get_attribute("data-column")
    insertion.click()
    assert order(page) == ["layer-advise", "grad-cam", "<i>third</i>", "random"]
    head = find(page, f"#table th:has([data-column='{column}'])")
    assert head.get_attribute("aria-sort") == "descending"
    assert len(find_all(page, "#table th[aria-sort='none']")) == len(buttons) - 1
    # The button of the new table has the focus.
    focused(page).send_keys(Keys.ENTER)
    assert order(page) == ["random", "<i>third</i>", "grad-cam", "layer-advise"]
    head = find(page, f"#table th:has([data-column='{column}'])")
    assert head.get_attribute("aria-sort") == "ascending"
    find(page, "#table [data-column='-1']").send_keys(Keys.SPACE)
    assert order(page) == sorted(METHODS)


def test_another_baseline_changes_all_comparisons(page):
    assert "Compared with grad-cam, significantly:" in find(page, "#conclusions").text
    assert find(page, "#conclusions dt").text == "layer-advise"
    assert "▼ worse in insertion AUC" in find(page, "#conclusions").text
    assert find(page, "#table tr.is-baseline th").text.startswith("grad-cam")
    forest = find(page, "#forest svg").get_attribute("aria-label")
    assert "difference from grad-cam" in forest
    assert "layer-advise +0.0" in forest
    worse = len(find_all(page, "#table small.worse"))
    assert worse > 0
    Select(find(page, "#baseline")).select_by_visible_text("random")
    assert "Compared with random, significantly:" in find(page, "#conclusions").text
    assert "▼" not in find(page, "#conclusions").text
    assert find(page, "#table tr.is-baseline th").text.startswith("random")
    assert not find_all(page, "#table small.worse")
    forest = find(page, "#forest svg").get_attribute("aria-label")
    assert "difference from random" in forest
    assert "grad-cam +0.0" in forest


def test_ranks_are_sorted(page):
    names = [row.text.partition("\n")[0] for row in find_all(page, "#ranks tbody th")]
    assert [name.partition(" ")[0] for name in names] == list(METHODS)
    rows = find_all(page, "#ranks tbody tr")
    cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]
    assert set(cells[0]) == {"1.00"}
    means = [sum(map(float, row[1:7])) / 6 for row in cells]  # six metrics of faithfulness
    assert [float(row[0]) for row in cells] == pytest.approx(means, abs=0.01)


def test_failures_and_conclusions_come_before_all_tables(page):
    assert "2 images could not be evaluated" in find(page, "#failures").text
    assert "torn.jpg The file is truncated." in find(page, "#failures").text
    tops = [find(page, name).location["y"] for name in ("#failures", "#conclusions", "#ranks")]
    assert tops == sorted(tops)


def test_a_table_that_is_wider_than_its_place_says_so(page, address):
    def more(selector):
        return "more" in find(page, f".wide:has({selector})").get_attribute("class")

    assert more("#table")
    region = find(page, "#table")
    page.execute_script("arguments[0].scrollLeft = arguments[0].scrollWidth", region)
    WebDriverWait(page, 20).until(lambda _: not more("#table"))
    assert not more("#ranks")
    width(page, 400)
    page.get(address)
    assert more("#ranks")


def test_the_images_show_all_maps_and_their_metrics(page):
    assert HOSTILE in find(page, "#image-caption").text
    assert find(page, "#maps img").get_attribute("alt") == f"The image {HOSTILE}"
    assert not find_all(page, "#gallery b, #gallery i")
    first = find(page, "#maps img").get_attribute("src")
    find(page, "#next").click()
    assert "image 1.jpg" in find(page, "#image-caption").text
    assert find(page, "#maps img").get_attribute("src") != first
    Select(find(page, "#image")).select_by_index(2)
    assert f"image {LAST}.jpg" in find(page, "#image-caption").text
    find(page, "#next").send_keys(Keys.ENTER)
    assert HOSTILE in find(page, "#image-caption").text
    captions = [caption.text for caption in find_all(page, "#maps figcaption")]
    assert captions == ["image", *METHODS]
    data = page.execute_script("return JSON.parse(document.getElementById('data').textContent)")
    rows = find_all(page, "#values tbody tr")
    for number, row in enumerate(rows):
        value = data["gallery"][0]["values"][0][number]
        assert row.find_element(By.TAG_NAME, "td").text == f"{value:.3f}"
    assert rows[0].find_elements(By.CSS_SELECTOR, "td:first-of-type strong")
    assert not rows[1].find_elements(By.CSS_SELECTOR, "td:first-of-type strong")


def test_what_is_not_known_has_no_value(browser, tmp_path):
    made = report(METHODS)
    made.results.loc[made.results["method"] == "random", "ssim"] = float("nan")
    path = tmp_path / "report.html"
    path.write_text(page_of(made), encoding="utf-8")
    browser.get(path.as_uri())
    heads = [head.text for head in find_all(browser, "#values thead th")]
    cells = find_all(browser, "#values tbody tr:last-child td")
    assert cells[heads.index("SSIM ↑") - 1].text == "\N{EN DASH}"


def test_maps_are_drawn_in_heat_whose_opacity_is_the_evidence(page):
    colours = page.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).colours"
    )

    def pixel(number):
        return page.execute_script(
            "const target = document.querySelectorAll('#maps canvas')[arguments[0]];"
            "return [...target.getContext('2d').getImageData(8, 8, 1, 1).data];",
            number,
        )

    WebDriverWait(page, 20).until(lambda _: pixel(3)[3] > 0)
    # The maps have the values 0, 40, 80, 120, which JPEG and premultiplied alpha round.
    for number, value in enumerate((0, 40, 80, 120)):
        *colour, alpha = pixel(number)
        assert abs(alpha - value) <= 3
        if value:
            assert max(abs(a - b) for a, b in zip(colour, colours[value], strict=True)) <= 12


def test_methods_can_be_hidden_from_the_curves(page):
    drawn = len(find_all(page, "#lines path.series"))
    assert drawn == 2 * len(METHODS)
    find_all(page, "#legend input")[0].send_keys(Keys.SPACE)
    assert len(find_all(page, "#lines path.series")) == drawn - 2
    assert "layer-advise" not in find(page, "#lines svg").get_attribute("aria-label")


def test_every_control_is_reached_with_the_tab_key_and_has_a_name(page):
    names = []
    body = find(page, "body")
    body.send_keys(Keys.TAB)
    assert focused(page).text == "Skip to the results"
    for _ in range(80):
        element = focused(page)
        if element.tag_name == "body":
            break
        names.append(element.get_attribute("id") or element.tag_name)
        assert element.accessible_name, names
        style = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert style == "solid"
        element.send_keys(Keys.TAB)
    assert {"baseline", "ranks", "table", "image", "previous", "next"} <= set(names)
    for picture in find_all(page, "svg[role=img]"):
        assert picture.get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_width_of_400_pixels_in_both_colour_schemes(page, scheme, address):
    width(page, 400)
    emulate(page, scheme)
    page.get(address)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 400
    # Text of the charts stays inside, at its size.
    outside = page.execute_script(
        "return [...document.querySelectorAll('.panel svg text')].filter((text) => {"
        "  const box = text.getBoundingClientRect();"
        "  const own = text.ownerSVGElement.getBoundingClientRect();"
        "  return box.width && (box.left < own.left - 2 || box.right > own.right + 2);"
        "}).map((text) => text.textContent)"
    )
    assert outside == []
    colours = page.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert contrast(*colours) >= 7
    for selector in (
        "td small",
        "#table .better",
        "#table .worse",
        ".failures summary",
    ):
        assert contrast(find(page, selector).value_of_css_property("color"), colours[1]) >= 4.5
    series = page.execute_script(
        "const marks = [...document.querySelectorAll('.panel .mark')];"
        "return marks.map((mark) => getComputedStyle(mark).stroke)"
    )
    assert min(contrast(colour, colours[1]) for colour in set(series)) >= 3


def contrast(colour, other):
    """Contrast of two colours ``rgb(r, g, b)`` by WCAG 2."""

    def luminance(text):
        parts = [float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted([luminance(colour), luminance(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_all_parts_are_printed(page):
    opened = len(find_all(page, "details[open]"))  # the failures
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not find_all(page, "details:not([open])")
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(find_all(page, "details[open]")) == opened
