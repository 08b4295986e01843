"""HTML from texts that may hold anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML; all other text is escaped before it enters a page."""


def tag(name: str, *content: str, **attributes: str) -> Html:
    """An element. In names of attributes, ``_`` stands for ``-`` or follows a word of Python."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    start = f"<{name}{given}>"
    return Html(start if name == "img" else f"{start}{joined(content)}</{name}>")


def joined(content: Iterable[str]) -> Html:
    """Texts and elements, one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in content))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], baseline: str = "") -> Html:
    """A table in a place that scrolls. The first cell of a row is its heading.

    The row of the ``baseline`` says so.
    """
    cells = [tag("th", text, scope="col") for text in head]
    body = []
    for first, *others in rows:
        mark = [tag("small", "baseline")] if first == baseline else []
        row = [tag("th", first, *mark, scope="row"), *(tag("td", cell) for cell in others)]
        body.append(tag("tr", *row, class_="is-baseline" if mark else ""))
    found = tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *body))
    return tag("div", found, class_="scroll", role="region", tabindex="0", aria_label=head[0])
