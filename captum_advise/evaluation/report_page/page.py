"""The template of the page, and how it is filled in."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def render(content: Mapping[str, Any]) -> str:
    """The page with its style, its script and its data inside.

    Args:
        content: The data, which the script shows. Texts in it may hold anything: they reach the
            page as JSON, and the script sets them as text.
    """
    style, script = _part("report.css"), _part("report.js")
    values = {
        # The page runs this script, and loads nothing.
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": as_json(content),
    }
    # In one pass, because the data may hold what looks like a placeholder.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], _part("report.html"))


def as_json(value: Any) -> str:
    """JSON that can stand in a ``<script>`` element: ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    """The value, with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float):
        # Seven digits, as in the results.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"
