"""The output folder of a run: who may write to it, and how files are written."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captum_advise._utils.io import atomic_write

# What a run writes besides its rows. A folder with one of these and without rows is not a run's.
FILES = ("results.csv", "summary.csv", "report.html", "run.json", "failures.csv")


class OutputError(OSError):
    """The output folder cannot be used; the message explains what to do."""

    @classmethod
    def of(cls, path: Path, error: Exception) -> OutputError:
        """The error for a file or folder that cannot be written."""
        # An atomic write raises an error of its own, from the system's.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return cls(
            f"The output {path} cannot be written ({getattr(cause, 'strerror', None) or cause}): "
            "free space, change the permissions, or give another folder; the same command then "
            "continues."
        )


def write_output(path: Path, content: str | None) -> None:
    """Write a file of the output, atomically: all of it, or OutputError and the old one stays.

    None removes the file.
    """
    try:
        if content is None:
            path.unlink(missing_ok=True)
        else:
            atomic_write(path, content)
    except OSError as error:
        raise OutputError.of(path, error) from error


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
