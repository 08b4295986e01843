"""HTML from texts that may hold anything: what is not ``Markup`` yet is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape


def tag(name: str, *content: str, **attributes: str) -> Markup:
    """An element. In names of attributes, ``_`` stands for ``-`` or follows a word of Python."""
    given = joined(
        Markup(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"')
        for key, value in attributes.items()
    )
    start = Markup(f"<{name}{given}>")
    return start if name == "img" else joined([start, *content, Markup(f"</{name}>")])


def joined(content: Iterable[str]) -> Markup:
    """Texts and elements, one after the other."""
    return Markup("").join(content)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], baseline: str = "") -> Markup:
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
