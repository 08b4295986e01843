"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, centred: bool = False
) -> str:
    """A table in Markdown.

    Args:
        header: Column titles.
        rows: One sequence of cells per row, as long as the header.
        centred: Whether all columns but the first are centred.
    """
    rule = ["---", *(":-:" if centred else "---" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
