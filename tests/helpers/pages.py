"""What a page of an explanation holds."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np


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


def data_of(page: str) -> dict:
    """The data of a page, read as a browser reads them."""
    return json.loads(Elements(page).texts["data"])


def unpacked(packed: dict) -> np.ndarray:
    """An array of the data."""
    content = base64.b64decode(packed["data"])
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    return np.frombuffer(content, dtype).reshape(packed["shape"])
