"""The screenshot of the HTML page: ``python docs/images/screenshot.py``.

Needs Chromium, chromedriver and Selenium.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

from captum_advise.cli import main

WIDTH, HEIGHT = 1280, 1070


def screenshot(page: Path) -> Image.Image:
    """A page with the map of Advise, after a click on the map."""
    options = webdriver.ChromeOptions()
    # Else Selenium looks for a browser to download.
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.as_uri())
        Select(driver.find_element("id", "comparison")).select_by_visible_text("Advise")
        stage = driver.find_element("id", "map-stage")
        ActionChains(driver).move_to_element_with_offset(stage, -40, -30).click().perform()
        driver.find_elements("css selector", "#ranking button")[1].click()
        return Image.open(io.BytesIO(driver.get_screenshot_as_png()))
    finally:
        driver.quit()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(["explain", "--html", "--output", folder])
        picture = screenshot(Path(folder) / "chelsea.html").convert("RGB")
    # A palette makes the file a third as large.
    picture.quantize(256, dither=Image.Dither.NONE).save(
        Path(__file__).parent / "page.png", optimize=True
    )
