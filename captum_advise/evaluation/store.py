"""The output folder of a run. A run that was killed at any time can be continued in it.

During a run each process appends to its own files, ``results.rank0.csv`` and so on, one image at a
time. ``results.csv`` is written when all images are done.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from captum_advise._utils.io import ENCODING, atomic_write
from captum_advise.evaluation.differences import differences

FAILURE_COLUMNS = ("index", "file", "reason")
# The format of a run's configuration and rows. A run in another format cannot be continued.
FORMAT = 4
# What a run writes, besides the files of single processes.
_FILES = (
    *("results.csv", "failures.csv", "run.json", "summary.csv", "summary.md"),
    *("comparison.png", "gallery.png"),
)
_PART = re.compile(r"(results|failures)\.rank[0-9]+\.csv")
_ANEW = "restart=True (--restart) to begin anew"

Rows = list[dict[str, str]]


@dataclass(frozen=True, order=True)
class Image:
    """An image of the results.

    Attributes:
        index: Its position in the data.
        file: Its name.
        content: Its fingerprint.
    """

    index: int
    file: str
    content: str


class OutputError(OSError):
    """The output folder cannot be used; the message explains what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any failure to write to ``path`` into one sentence."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        # An atomic write raises an error of its own, from the system's.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise OutputError(
            f"The output {path} cannot be written ({cause.strerror or cause}): free space, change "
            "the permissions, or give another folder; the same command then continues, without "
            "--restart."
        ) from error


def write_output(path: Path, content: str | bytes) -> None:
    """Write a file of the output, atomically.

    Raises:
        OutputError: It cannot be written; the old file, if there is one, is unchanged.
    """
    with writing(path):
        atomic_write(path, content)


@dataclass(frozen=True)
class RunFolder:
    """The output of a run.

    Attributes:
        path: The folder.
        columns: The columns of the results.
        methods: Each image has one row per method, in this order.
    """

    path: Path
    columns: tuple[str, ...]
    methods: tuple[str, ...]

    @property
    def results(self) -> Path:
        """All rows, once every image is done."""
        return self.path / "results.csv"

    @property
    def failures(self) -> Path:
        """The images that could not be evaluated, if there are any."""
        return self.path / "failures.csv"

    @property
    def information(self) -> Path:
        """Configuration, versions, machine."""
        return self.path / "run.json"

    def part(self, kind: str, rank: int) -> Path:
        """The file that one process appends to; ``kind`` is ``results`` or ``failures``."""
        return self.path / f"{kind}.rank{rank}.csv"

    def parts(self, kind: str) -> list[Path]:
        """The files of all processes, including those of earlier sessions."""
        return [path for path in self._parts() if path.name.startswith(f"{kind}.")]

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Create the folder, and keep other runs out of it while this one lasts.

        Raises:
            OutputError: The folder cannot be created, or another run uses it.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock:
            try:
                fcntl = importlib.import_module("fcntl")
            except ModuleNotFoundError:  # Windows
                yield
                return
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"Another run is writing to {self.path}: wait for it, or give another folder."
                ) from error
            yield

    def prepare(self, configuration: Mapping[str, Any], *, restart: bool = False) -> None:
        """Check that the folder belongs to this run, and repair files that a kill has truncated.

        Args:
            configuration: Of this run.
            restart: Delete the files of the run that the folder holds, whichever run it is.

        Raises:
            OutputError: The folder cannot be written to.
            ValueError: It holds the results of another run, or files that no run has written.
        """
        information = self.information_so_far()
        strangers = [path.name for path in self._written() if not information]
        if strangers:
            raise ValueError(
                f"{self.path} holds {strangers[0]} but no run.json that describes it: give "
                "another folder."
            )
        if restart:
            self._delete()
            information = {}
        else:
            self.check(configuration)
        if not information:
            self.inform({"configuration": configuration})
        for part in self.parts("results"):
            text = self._rendered(self._complete_rows([part]))
            with writing(part):
                truncated = text.encode(**ENCODING) != part.read_bytes()
            if truncated:
                write_output(part, text)
        # Images that failed are tried again.
        with writing(self.path):
            for path in [*self.parts("failures"), self.failures]:
                path.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if _PART.fullmatch(path.name))

    def _written(self) -> list[Path]:
        """The files here that have the names of a run's files, the results first."""
        files = [self.path / name for name in _FILES]
        return [*self._parts(), *(path for path in files if os.path.lexists(path))]

    def _delete(self) -> None:
        """Delete the files of a run. A kill leaves a folder that belongs to the old run."""
        with writing(self.path):
            for path in self._written():
                # The description is replaced when nothing is left that it describes.
                if path != self.information:
                    path.unlink()

    def information_so_far(self) -> dict[str, Any]:
        """The content of ``run.json``, empty if there is no such file.

        Raises:
            ValueError: The file is damaged, or is not a run's.
        """
        try:
            content = json.loads(self.information.read_text(**ENCODING))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(
                f"{self.information} is damaged: give another folder, or remove this one."
            ) from error
        if isinstance(content, dict) and isinstance(content.get("configuration"), dict):
            return content
        raise ValueError(
            f"{self.information} was not written by captum-advise: give another output folder."
        )

    def inform(self, information: Mapping[str, Any]) -> None:
        """Replace ``run.json``."""
        write_output(self.information, json.dumps(information, indent=2, default=str) + "\n")

    def check(self, configuration: Mapping[str, Any]) -> None:
        """Check that the folder does not belong to another run.

        Raises:
            ValueError: It does; the message names what differs.
        """
        earlier = self.information_so_far().get("configuration")
        if earlier is None:
            return
        written_as = earlier.get("format", 1)
        if written_as != FORMAT:
            age = "a later" if isinstance(written_as, int) and written_as > FORMAT else "an earlier"
            raise ValueError(
                f"{self.path} was written by {age} version of captum-advise: give another output "
                f"folder, or {_ANEW}."
            )
        # As JSON returns it.
        given = json.loads(json.dumps(configuration, default=str))
        if earlier != given:
            raise ValueError(
                f"{self.path} holds another run ({'; '.join(differences(earlier, given))}): give "
                "another output folder, the arguments of that run to continue it, or "
                f"{_ANEW}."
            )

    def finished(self) -> list[Image]:
        """The images that have a row for every method."""
        return sorted({_image(row) for row in self._complete_rows(self._sources())})

    def merge(self, *, outdated: Collection[Image] = (), unread: Collection[Image] = ()) -> bool:
        """Make ``results.csv`` and ``failures.csv`` of the processes' files, and remove these.

        Args:
            outdated: Images whose rows no longer hold; the rows are dropped.
            unread: Images that cannot be read, so that it is not known whether their rows hold. The
                rows are put aside, in a file like those of processes.

        Returns:
            Whether there is any row. If there is none, the results stay as they were.
        """
        rows = self._complete_rows(self._sources())
        aside = [row for row in rows if _image(row) in unread]
        rows = [row for row in rows if _image(row) not in outdated and _image(row) not in unread]
        failures = [row for part in self.parts("failures") for row in _read(part, FAILURE_COLUMNS)]
        if failures:
            failures.sort(key=lambda row: int(row["index"]))
            write_output(self.failures, _text(FAILURE_COLUMNS, failures))
        merged = self.parts("results") if rows else []
        if rows and aside:
            ranks = [int(part.stem.rpartition("rank")[2]) for part in merged]
            write_output(self.part("results", 1 + max(ranks, default=-1)), self._rendered(aside))
        if rows:
            write_output(self.results, self._rendered(rows))
        with writing(self.path):
            for part in [*merged, *self.parts("failures")]:
                part.unlink(missing_ok=True)
        return bool(rows)

    def _sources(self) -> list[Path]:
        return [*([self.results] if self.results.exists() else []), *self.parts("results")]

    def _complete_rows(self, sources: Iterable[Path]) -> Rows:
        """The rows of images that have one for each method, by image and method."""
        by_image: dict[Image, dict[str, dict[str, str]]] = {}
        for source in sources:
            for row in _read(source, self.columns):
                by_image.setdefault(_image(row), {}).setdefault(row["method"], row)
        return [
            by_image[image][method]
            for image in sorted(by_image)
            if by_image[image].keys() == set(self.methods)
            for method in self.methods
        ]

    def _rendered(self, rows: Rows) -> str:
        return _text(self.columns, rows)


class Appender:
    """Appends rows to a file. Once :meth:`append` returns, its rows are on the disk."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        with writing(path), ExitStack() as undo:
            self._stream = undo.enter_context(path.open("ab", buffering=0))
            if not path.stat().st_size:
                self._write(_text(columns, []))
            undo.pop_all()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, and wait for the disk.

        Raises:
            OutputError: They cannot be written.
        """
        with writing(self.path):
            self._write(_text(self.columns, rows, header=False))

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode(**ENCODING))
        while rest:
            rest = rest[self._stream.write(rest) :]
        os.fsync(self._stream.fileno())

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()


def _text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([as_field(row[column]) for column in columns] for row in rows)
    return stream.getvalue()


def _image(row: Mapping[str, str]) -> Image:
    return Image(int(row["index"]), row["file"], row["content"])


def as_field(value: Any) -> str:
    """A value as a row holds it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.7g}"
    # One row is one line, so that a truncated row is a truncated line.
    return re.sub(r"[\r\n\0]", " ", str(value))


def _read(path: Path, columns: Sequence[str]) -> Rows:
    """The complete rows of a file that may end in the middle of one."""
    with path.open(newline="", **ENCODING) as stream:  # type: ignore[call-overload]
        lines = stream.read().replace("\0", "").split("\n")
    rows = []
    for line in lines[:-1]:  # the last is empty, or a truncated row
        try:
            (fields,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            continue
        if len(fields) == len(columns) and fields[0].isdecimal():
            rows.append(dict(zip(columns, fields, strict=True)))
    return rows
