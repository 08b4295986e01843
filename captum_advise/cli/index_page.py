"""The page that lists the results of several images."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from captum_advise.visualization.html import filled, template


def index_page(
    setup: str,
    header: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    failures: Sequence[str],
    *,
    with_pages: bool,
) -> str:
    """A page with what failed, a table of all images, and their panels.

    Args:
        setup: What was done, in a sentence.
        header: Column titles; the first column is the image.
        rows: By the name of an image's results, the cells of its row.
        failures: Why images could not be explained.
        with_pages: Whether there is a NAME.html beside each NAME.png and NAME.json.
    """
    lines, figures = [], []
    for number, (name, (image, *cells)) in enumerate(rows.items(), 1):
        # Names may have bytes that are not text.
        anchor, file, shown = f"image-{number}", quote(os.fsencode(name)), html.escape(image)
        page = f'<a href="{file}.html">page</a>, ' if with_pages else ""
        texts = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><td><a href="#{anchor}">{shown}</a></td>{texts}</tr>')
        figures.append(
            f'<figure id="{anchor}"><figcaption>{shown} ({page}<a href="{file}.json">all numbers'
            f'</a>)</figcaption><a href="{file}.png"><img src="{file}.png" loading="lazy" '
            'alt="Image, maps, and the groups of units"></a></figure>'
        )
    failed = "".join(f"<li>{html.escape(text)}</li>" for text in failures)
    title = f"{len(failures)} image{'s' * (len(failures) > 1)} not explained"
    parts = {
        "setup": html.escape(setup),
        "failures": f'<div class="failures"><h2>{title}</h2><ul>{failed}</ul></div>' * bool(failed),
        "heads": "".join(f"<th>{html.escape(cell)}</th>" for cell in header),
        "rows": "\n".join(lines),
        "figures": "\n".join(figures),
    }
    return filled(template("captum_advise.cli", "index_template"), parts)
