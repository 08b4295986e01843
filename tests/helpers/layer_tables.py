"""Tables of layers, one row per family of networks, between two marks of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_table import markdown_table
from model_families import FAMILIES


@dataclass(frozen=True)
class LayerTables:
    """The tables of a page, one per package.

    Attributes:
        page: The page.
        marks: What stands before and after a table, to be formatted with the package.
        header: The titles of the columns.
        row: Package, family and name of a network to its cells.
    """

    page: Path
    marks: tuple[str, str]
    header: Sequence[str]
    row: Callable[[str, str, str], Sequence[str]]

    def table(self, package: str, names: Sequence[str] | None = None) -> list[str]:
        """The lines of a table, of all networks or of some."""
        families = FAMILIES[package].items()
        members = [member for member in families if names is None or member[1] in names]
        return markdown_table(
            self.header, [self.row(package, *member) for member in members]
        ).splitlines()

    def written(self, package: str) -> list[str]:
        """The lines that the page has."""
        return self._parts(self.page.read_text(encoding="utf-8"), package)[1].splitlines()

    def write(self) -> None:
        """Write all tables to the page."""
        text = self.page.read_text(encoding="utf-8")
        for package in FAMILIES:
            before, _, after = self._parts(text, package)
            begin, end = (mark.format(package) for mark in self.marks)
            table = "\n".join(self.table(package))
            text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
        self.page.write_text(text, encoding="utf-8")

    def _parts(self, text: str, package: str) -> tuple[str, str, str]:
        begin, end = (mark.format(package) for mark in self.marks)
        before, _, rest = text.partition(begin)
        written, _, after = rest.partition(end)
        return before, written.strip(), after
