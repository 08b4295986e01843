"""HTML files that load nothing from a network: images within them, templates, allowed scripts."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._version import __version__

# Files of ours are known by it: see captum_advise.cli.image_results.
GENERATOR = "captum-advise"


def data_uri(image: Any, kind: str = "JPEG", quality: int = 92) -> str:
    """An image as an address that an HTML file holds itself.

    Args:
        image: PIL image, or (H, W, 3) or (H, W) in [0, 1].
        kind: ``"JPEG"`` or ``"PNG"``.
        quality: Of a JPEG, 1 to 95.
    """
    # Imported here: a command's help does not wait for NumPy.
    np, pil = import_optional("numpy", "demo"), import_optional("PIL.Image", "demo")
    is_pil = isinstance(image, pil.Image)
    picture = image if is_pil else pil.fromarray(np.rint(image * 255).astype(np.uint8))
    with io.BytesIO() as stream:
        picture.save(stream, format=kind, quality=quality, subsampling=0, optimize=kind == "JPEG")
        content = base64.b64encode(stream.getvalue()).decode()
        return f"data:image/{kind.lower()};base64,{content}"


def template(package: str, folder: str) -> dict[str, str]:
    """The parts of a template: ``page``, ``style`` and ``script``, as far as there are files.

    Args:
        package: Dotted name of the package that has the folder.
        folder: With one HTML file, one CSS file, and JavaScript files, which are joined by name.
    """
    kinds = {".html": "page", ".css": "style", ".js": "script"}
    parts: dict[str, str] = {}
    for file in sorted(resources.files(package).joinpath(folder).iterdir(), key=str):
        if part := kinds.get(Path(file.name).suffix):
            parts[part] = parts.get(part, "") + file.read_text(encoding="utf-8")
    return parts


def filled(template: Mapping[str, str], parts: Mapping[str, Any]) -> str:
    """A page made of a template of Jinja, in which texts are escaped.

    Args:
        template: From :func:`template`.
        parts: What the template names. ``style``, ``script``, ``version`` and ``generator`` are
            known, and ``policy``: only this style and this script are used, and nothing is fetched,
            whatever the texts hold.
    """
    # Imported here: a command's help does not wait for it.
    from jinja2 import Environment
    from markupsafe import Markup

    rules = ["default-src 'none'", "img-src data:"]
    rules += [
        f"{part}-src '{_digest(template[part])}'"
        for part in ("style", "script")
        if part in template
    ]
    known = {
        **{part: Markup(content) for part, content in template.items()},
        "policy": "; ".join([*rules, "base-uri 'none'", "form-action 'none'"]),
        "generator": GENERATOR,
        "version": __version__,
        **parts,
    }
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = page.from_string(template["page"]).render(known)
    # Names of files may hold bytes that are not UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def finite(value: Any, digits: int | None = None) -> Any:
    """The same with None, JSON's null, for the numbers that JSON does not have.

    ``digits`` rounds to so many significant digits.
    """
    if isinstance(value, dict):
        return {key: finite(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, digits) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}") if digits and isinstance(value, float) else value


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
