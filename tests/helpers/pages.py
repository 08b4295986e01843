"""What a page of an explanation holds."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image


class Elements(HTMLParser):
    """The elements of a page that closes all that it opens."""

    VOID = {"meta", "input", "br", "img", "link"}

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "elements are not closed"

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        if self._open:
            tag, attributes = self.found[-1]
            key = attributes.get("id", tag) if self._open[-1] == tag else self._open[-1]
            self.texts[key] = self.texts.get(key, "") + text

    def all(self, tag: str) -> list[dict]:
        """The attributes of the elements of a kind, in order."""
        return [attributes for found, attributes in self.found if found == tag]


def articles(page: str) -> list[str]:
    """The HTML of each example of a page."""
    return re.findall(r"<article>.*?</article>", page, re.DOTALL)


class Figure:
    """An image with heat, what is drawn below it, and its caption."""

    def __init__(self, text: str):
        elements = Elements(text)
        self.label = elements.all("svg")[0]["aria-label"]
        self.images = [attributes["href"] for attributes in elements.all("image")]
        self.modes = elements.all("circle")
        self.samples = "".join(attributes["d"] for attributes in elements.all("path")).count("M")
        self.is_selected = "selected" in elements.found[0][1].get("class", "")
        caption = text.partition("<figcaption>")[2]
        self.caption = " ".join(re.sub(r"<[^>]*>", "", caption).split())

    def heat(self) -> np.ndarray:
        """What the only image shows, (H, W) in [0, 1]."""
        (address,) = self.images
        return picture(address)[..., 3] / 255


def figures(page: str, label: str = "") -> list[Figure]:
    """The figures of a page whose labels begin so."""
    found = map(Figure, re.findall(r"<figure.*?</figure>", page, re.DOTALL))
    return [figure for figure in found if figure.label.startswith(label)]


def picture(address: str) -> np.ndarray:
    """An image that a page holds, (H, W, 4) in 0 to 255."""
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def table(article: str) -> dict[str, list[str]]:
    """The rows of an example's table: the cells by the name of the row."""
    rows = re.findall(r"<tr.*?</tr>", article, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return {name: values for name, *values in cells}
