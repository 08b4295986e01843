"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, centred: bool = False
) -> str:
    """A table in Markdown; ``centred`` is about all columns but the first."""
    rule = ["---", *(":-:" if centred else "---" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
