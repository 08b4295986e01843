"""The screenshots of the HTML page and of a report: ``python docs/images/screenshot.py``.

Needs Chromium, chromedriver and Selenium. The images come from scikit-image.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver import Chrome
from skimage import data

from captum_advise.cli import main

HERE = Path(__file__).parent
COMPARED = ("astronaut", "camera", "chelsea", "coffee", "rocket", "stereo_motorcycle")
METHODS = "gated-grad-cam,layer-advise,grad-cam,layer-cam,random,gaussian"


@contextmanager
def browser(page: Path, width: int, height: int) -> Iterator[Chrome]:
    """A page in a window of this size."""
    options = webdriver.ChromeOptions()
    # Else Selenium looks for a browser to download.
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        resize(driver, width, height)
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, width: int, height: int) -> None:
    """Set the size of what the browser shows, in pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def save(driver: Chrome, name: str) -> None:
    """Write what the browser shows, in 256 colours that are chosen for it."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    palette = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    few = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    few.save(HERE / name, optimize=True)


def page(folder: Path) -> None:
    """The page of a cat, as far as its first units."""
    main(["explain", "--html", "--output", str(folder)])
    with browser(folder / "chelsea.html", 1280, 1695) as driver:
        save(driver, "page.png")


def report(folder: Path) -> None:
    """The metrics and the gallery of a comparison of six images."""
    images, output = folder / "images", folder / "report"
    images.mkdir()
    for name in COMPARED:
        image = getattr(data, name)()
        Image.fromarray(image[0] if isinstance(image, tuple) else image).save(
            images / f"{name}.png"
        )
    main(
        [
            *("evaluate", "--data", str(images), "--methods", METHODS, "--steps", "16"),
            *("--output", str(output)),
        ]
    )
    with browser(output / "report.html", 1280, 1000) as driver:
        driver.execute_script(
            "for (const part of document.querySelectorAll("
            "'#metrics :is(h3, .scroll):not(#metrics .scroll:first-of-type),"
            " #gallery details:not([open])')) part.style.display = 'none';"
        )
        gallery = driver.find_element("id", "gallery").rect
        resize(driver, 1280, int(gallery["y"] + gallery["height"]))
        save(driver, "report.png")


if __name__ == "__main__":
    for draw in (page, report):
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder))
