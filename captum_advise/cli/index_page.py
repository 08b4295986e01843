"""The page that lists the results of several images."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

_STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin-bottom: 2em; }
th, td { text-align: left; padding: 0.3em 1.5em 0.3em 0; border-bottom: 1px solid #ddd; }
figure { margin: 0 0 2em; }
figcaption { padding: 0.3em 0; }
img { max-width: 100%; height: auto; }
"""


def index_page(
    title: str,
    header: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    failures: Mapping[str, str],
    *,
    with_pages: bool = False,
) -> str:
    """A page with a table of all images, their panels, and what failed.

    Args:
        title: What was done, in a sentence.
        header: Column titles; the first column is the image.
        rows: By the name of an image's results, the cells of its row. The page is in the same
            folder as NAME.png and NAME.json.
        failures: By image, why it could not be explained.
        with_pages: Whether there is a NAME.html for each image.
    """
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines, figures = [], []
    for number, (name, (image, *cells)) in enumerate(rows.items(), 1):
        # Names may have bytes that are not text.
        anchor, file = f"image-{number}", quote(os.fsencode(name))
        page = f'<a href="{file}.html">page</a>, ' if with_pages else ""
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><td><a href="#{anchor}">{html.escape(image)}</a></td>{texts}</tr>')
        figures.append(
            f'<figure id="{anchor}"><figcaption>{html.escape(image)} '
            f'({page}<a href="{file}.json">all numbers</a>)</figcaption>'
            f'<a href="{file}.png"><img src="{file}.png" loading="lazy" '
            f'alt="Image, maps, and the groups of units of ADVISE"></a></figure>'
        )
    failed = "".join(
        f"<li>{html.escape(image)}: {html.escape(text)}</li>" for image, text in failures.items()
    )
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>ADVISE explanations</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>ADVISE explanations</h1><p>{html.escape(title)}</p>",
        f"<table><thead><tr>{heads}</tr></thead><tbody>",
        *lines,
        "</tbody></table>",
        *figures,
        f"<h2>Not explained</h2><ul>{failed}</ul>" if failed else "",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"
