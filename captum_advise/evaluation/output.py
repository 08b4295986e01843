"""The output folder of a run: who may write to it, and how files and tables are written."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from captum_advise._utils.io import ENCODING, atomic_write

if TYPE_CHECKING:
    import pandas as pd

# What a run writes besides its rows. A folder with one of these and without rows is not a run's.
FILES = ("results.csv", "summary.csv", "report.html", "run.json", "failures.csv")

_TEXTS = ("file", "content", "method", "layer", "reason")
# Spreadsheets take texts that begin so for formulas.
_FORMULA = ("=", "+", "-", "@", "\t")


class OutputError(OSError):
    """The output folder cannot be used; the message explains what to do."""

    @classmethod
    def of(cls, path: Path, error: Exception) -> OutputError:
        """The error for a file or folder that cannot be written."""
        # An atomic write raises an error of its own, from the system's.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        advice = (
            "free space, change the permissions, or give another folder; the same command then "
            "continues"
        )
        if isinstance(cause, FileExistsError):
            advice = "a file has this name; give that of a folder"
        words = getattr(cause, "strerror", None) or cause
        return cls(f"The output {path} cannot be written ({words}): {advice}.")


def write_output(path: Path, content: str) -> None:
    """Write a file of the output, atomically: all of it, or OutputError and the old one stays."""
    try:
        atomic_write(path, content)
    except OSError as error:
        raise OutputError.of(path, error) from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a CSV file, with seven digits and without formulas of spreadsheets."""
    text = _with_texts(table, _as_field).to_csv(
        index=False, float_format="%.7g", na_rep="nan", lineterminator="\n"
    )
    write_output(path, text)


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the bytes that are not UTF-8, which names of files may have."""
    return _with_texts(table, lambda text: text.encode(**ENCODING).decode(errors="replace"))


def _with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """A table with other texts."""
    return table.assign(**{name: table[name].map(change) for name in _TEXTS if name in table})


def _as_field(text: str) -> str:
    """A text as CSV files hold it: one line, and no formula."""
    line = re.sub(r"[\r\n\0]", " ", text)
    return f"'{line}" if line.startswith(_FORMULA) and line != "-" else line


@contextmanager
def reserved(folder: Path, rows: str) -> Iterator[None]:
    """Create the folder of a run, and keep other runs out of it while this one lasts.

    Raises:
        OutputError: The folder cannot be created, or another run uses it.
        ValueError: It holds files that no run has written: no file ``rows``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Whatever a link of this name leads to is not ours.
        flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
        lock = os.fdopen(os.open(folder / ".lock", flags, 0o666), "r+")
    except OSError as error:
        raise OutputError.of(folder, error) from error
    with lock:
        with suppress(ModuleNotFoundError):  # Windows
            fcntl = importlib.import_module("fcntl")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"Another run is writing to {folder}: wait for it, or give another folder."
                ) from error
        strangers = [name for name in FILES if os.path.lexists(folder / name)]
        if strangers and not (folder / rows).exists():
            raise ValueError(
                f"{folder} holds {strangers[0]} but no {rows}, from which it would have been "
                "written: give another folder."
            )
        yield
