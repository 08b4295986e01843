"""The output folder of a run: appended, repaired, merged, never half-written.

While a run is going, each process appends to files of its own, ``results.rank0.csv`` and so on, a
picture at a time. ``results.csv`` appears when all pictures are done.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

FAILURE_COLUMNS = ("index", "file", "reason")
# Names of files that are not in UTF-8 are kept as they are.
_ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}

Rows = list[dict[str, str]]


class OutputError(OSError):
    """The output folder cannot be used; the message says what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Any failure to write to ``path`` as one sentence."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"The output {path} cannot be written ({error.strerror or error}): make room or "
            "permit it, or give another folder; the same command then continues."
        ) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or the new one, whole, at every moment."""
    data = content.encode(**_ENCODING) if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class RunFolder:
    """A run's output.

    Attributes:
        path: The folder.
        columns: Of the results.
        methods: Each picture has one row for each, in this order.
    """

    path: Path
    columns: tuple[str, ...]
    methods: tuple[str, ...]

    @property
    def results(self) -> Path:
        """All rows, once every picture is done."""
        return self.path / "results.csv"

    @property
    def failures(self) -> Path:
        """The pictures that could not be evaluated, if there are any."""
        return self.path / "failures.csv"

    @property
    def information(self) -> Path:
        """Configuration, versions, machine."""
        return self.path / "run.json"

    def part(self, kind: str, rank: int) -> Path:
        """What one process appends to; ``kind`` is ``results`` or ``failures``."""
        return self.path / f"{kind}.rank{rank}.csv"

    def parts(self, kind: str) -> list[Path]:
        """Those of all processes, of earlier runs too."""
        return sorted(self.path.glob(f"{kind}.rank*.csv"))

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Make the folder, and keep a second run out of it as long as this one lasts."""
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

    def prepare(self, configuration: Mapping[str, Any]) -> None:
        """Refuse another run's folder, and undo what a kill has torn.

        Raises:
            OutputError: The folder cannot be written to.
            ValueError: It holds results of another configuration.
        """
        self.check(configuration)
        if not self.information.exists():
            strangers = [entry.name for entry in self.path.glob("results*.csv")]
            if strangers:
                raise ValueError(
                    f"{self.path} holds {strangers[0]} but no run.json that says what it is of: "
                    "give another folder."
                )
            self.inform({"configuration": configuration})
        for part in self.parts("results"):
            text = self._rendered(self._whole_pictures([part]))
            with writing(part):
                torn = text.encode(**_ENCODING) != part.read_bytes()
            if torn:
                write_whole(part, text)
        # Pictures that failed are tried again.
        with writing(self.path):
            for path in [*self.parts("failures"), self.failures]:
                path.unlink(missing_ok=True)

    def information_so_far(self) -> dict[str, Any]:
        """What ``run.json`` holds; nothing if it is not there."""
        try:
            known = json.loads(self.information.read_text(**_ENCODING))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(
                f"{self.information} is damaged: give another folder, or remove this one."
            ) from error
        return known if isinstance(known, dict) else {}

    def inform(self, information: Mapping[str, Any]) -> None:
        """Replace ``run.json``."""
        write_whole(self.information, json.dumps(information, indent=2, default=str) + "\n")

    def check(self, configuration: Mapping[str, Any]) -> None:
        """Raise ValueError if the folder is of another configuration; say what differs."""
        known = self.information_so_far().get("configuration")
        if known is None:
            return
        # As JSON would give it back.
        asked = json.loads(json.dumps(configuration, default=str))
        differences = [
            f"{name} was {known.get(name)!r} and is now {asked.get(name)!r}"
            for name in dict.fromkeys([*known, *asked])
            if known.get(name) != asked.get(name)
        ]
        if differences:
            raise ValueError(
                f"{self.path} holds another run: {'; '.join(differences)}. Give another output "
                "folder, or the arguments of that run to continue it."
            )

    def finished(self) -> set[int]:
        """Places of the pictures that have a row for every method."""
        return {int(row["index"]) for row in self._whole_pictures(self._sources())}

    def merge(self) -> None:
        """Make ``results.csv`` and ``failures.csv`` from the parts, and remove these."""
        write_whole(self.results, self._rendered(self._whole_pictures(self._sources())))
        failures = [row for part in self.parts("failures") for row in _read(part, FAILURE_COLUMNS)]
        if failures:
            failures.sort(key=lambda row: int(row["index"]))
            write_whole(self.failures, _text(FAILURE_COLUMNS, failures))
        with writing(self.path):
            for part in [*self.parts("results"), *self.parts("failures")]:
                part.unlink(missing_ok=True)

    def _sources(self) -> list[Path]:
        return [*([self.results] if self.results.exists() else []), *self.parts("results")]

    def _whole_pictures(self, sources: Iterable[Path]) -> Rows:
        """Rows of the pictures that have one for each method, by picture and method."""
        by_picture: dict[int, dict[str, dict[str, str]]] = {}
        for source in sources:
            for row in _read(source, self.columns):
                by_picture.setdefault(int(row["index"]), {}).setdefault(row["method"], row)
        return [
            by_picture[index][method]
            for index in sorted(by_picture)
            if by_picture[index].keys() == set(self.methods)
            for method in self.methods
        ]

    def _rendered(self, rows: Rows) -> str:
        return _text(self.columns, rows)


class Appender:
    """Appends rows to a file; what it has returned from is on the disk."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        with writing(path), ExitStack() as undo:
            self._stream = undo.enter_context(path.open("ab", buffering=0))
            if not path.stat().st_size:
                self._write(_text(columns, []))
            undo.pop_all()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, flush and wait for the disk."""
        with writing(self.path):
            self._write(_text(self.columns, rows, header=False))

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode(**_ENCODING))
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
    writer.writerows([_field(row[column]) for column in columns] for row in rows)
    return stream.getvalue()


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.7g}"
    # A field holds one line, so that a torn row is a torn line.
    return str(value).replace("\r", " ").replace("\n", " ")


def _read(path: Path, columns: Sequence[str]) -> Rows:
    """Whole rows of a file that may end in the middle of one."""
    with path.open(newline="", **_ENCODING) as stream:  # type: ignore[call-overload]
        lines = stream.read().replace("\0", "").split("\n")
    rows = []
    for line in lines[:-1]:  # behind the last newline is nothing, or a torn row
        try:
            (fields,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            continue
        if len(fields) == len(columns) and fields[0].isdecimal():
            rows.append(dict(zip(columns, fields, strict=True)))
    return rows
