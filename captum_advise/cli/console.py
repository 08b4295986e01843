"""What commands show and where they write: lines, tables, progress, errors, the output folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from captum_advise._utils.errors import on_one_line
from captum_advise._utils.optional_dependencies import import_optional

T = TypeVar("T")

_console = Console()
_WIDEST = 1000


def show(content: str | Table) -> None:
    """Print a line, never wrapped, or a table."""
    with _bar().external_write_mode(file=sys.stdout):
        if isinstance(content, Table):
            # In a file or a pipe, lines may be of any length.
            (_console if _console.is_terminal else Console(width=_WIDEST)).print(content)
        else:
            text = on_one_line(content)
            _console.print(text, emoji=False, markup=False, highlight=False, soft_wrap=True)


def show_error(text: str) -> None:
    """Print an error on stderr."""
    show_message(f"error: {on_one_line(text)}")


def show_message(text: str) -> None:
    """Print a line on stderr."""
    with _bar().external_write_mode(file=sys.stderr):
        typer.echo("\n".join(map(on_one_line, text.split("\n"))), err=True)


def _bar() -> Any:
    """Tqdm's bar, which takes time to import."""
    return import_optional("tqdm", "demo").tqdm


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print warnings on stderr, each in one line and without its place in the code."""

    def show_warning(message: Warning | str, *_place: object) -> None:
        show_message(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        yield


def progress(items: Iterable[T], label: str, *, hidden: bool = False) -> Iterable[T]:
    """The items, with a progress bar on a terminal's stderr that vanishes at the end."""
    bar: Iterable[T] = _bar()(items, desc=label, leave=False, disable=hidden or None)
    return bar


def make_folder(folder: Path) -> None:
    """Make an output folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        taken = "a file has this name; give another --output"
        why = taken if folder.exists() else error.strerror
        raise OSError(f"The output folder {folder} cannot be made: {why}.") from error
