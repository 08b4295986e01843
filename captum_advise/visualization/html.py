"""HTML files that load nothing from a network: images within them, templates, allowed scripts."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from captum_advise._version import __version__

# Files of ours are known by it: see captum_advise.cli.image_results.
GENERATOR = "captum-advise"


def data_uri(image: Any, kind: str = "JPEG", quality: int = 92) -> str:
    """A PIL image, or one (H, W, 3) or (H, W) in [0, 1], as an address that HTML holds itself."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    with io.BytesIO() as stream:
        image.save(stream, format=kind, quality=quality, subsampling=0, optimize=kind == "JPEG")
        content = base64.b64encode(stream.getvalue()).decode()
        return f"data:image/{kind.lower()};base64,{content}"


def filled(package: str, parts: Mapping[str, Any]) -> str:
    """A page made of the template of a package, in which texts are escaped.

    Args:
        package: Dotted name. Its folder ``page_template`` has one HTML file, a template of Jinja,
            one CSS file and one JavaScript file.
        parts: What the template names. ``style``, ``script``, ``version`` and ``generator`` are
            known, and ``policy``: only this style and this script are used, and nothing is fetched,
            whatever the texts hold.
    """
    # Imported here: figures do not wait for it.
    from jinja2 import Environment
    from markupsafe import Markup

    folder = resources.files(package).joinpath("page_template")

    def content(ending: str) -> str:
        (file,) = (file for file in folder.iterdir() if file.name.endswith(ending))
        return file.read_text(encoding="utf-8")

    style, script = content(".css"), content(".js")
    known = {
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        "generator": GENERATOR,
        "version": __version__,
        **parts,
    }
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = page.from_string(content(".html")).render(known)
    # Names of files may hold bytes that are not UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
