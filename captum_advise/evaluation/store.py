"""The output folder of a run. A run that was killed at any time can be continued in it.

During a run each process appends to its own files, ``results.rank0.csv`` and so on, one image at a
time. When all images are done, ``rows.csv`` receives these rows. It holds every row that was ever
computed for this configuration. ``results.csv`` has those of the images and methods of the latest
call.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from captum_advise._utils.io import ENCODING, atomic_write
from captum_advise.evaluation.differences import changed_methods, differences

FAILURE_COLUMNS = ("index", "file", "reason")
# The format of a run's configuration and rows. A run in another format cannot be continued.
FORMAT = 4
# What a run writes, besides the files of single processes.
_FILES = (
    *("rows.csv", "results.csv", "results.parquet", "failures.csv", "run.json"),
    *("summary.csv", "summary.md"),
    *("comparison.png", "gallery.png", "curves.csv", "report.html"),
)
_MAPS = "maps"
_MAP = re.compile(r"[0-9a-f]{32}\.png")
_PART = re.compile(r"(results|failures|curves)\.rank[0-9]+\.csv")
_ANEW = "restart=True (--restart) to begin anew"


@dataclass(frozen=True, order=True)
class Image:
    """An image of the results, wherever it lies in the data.

    Attributes:
        file: Its name.
        content: Its fingerprint.
    """

    file: str
    content: str


class _Row(NamedTuple):
    """A row of the results as its line, whose first field is the position in the data."""

    image: Image
    method: str
    line: str

    @property
    def position(self) -> int:
        """The position in the data when it was computed."""
        return int(self.line.partition(",")[0])

    def at(self, index: int) -> str:
        """The line for another position."""
        return f"{index},{self.line.partition(',')[2]}"


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
        methods: Each image of ``results.csv`` has one row per method, in this order.
    """

    path: Path
    columns: tuple[str, ...]
    methods: tuple[str, ...]

    @property
    def results(self) -> Path:
        """The rows of the latest call's images and methods, once every image is done."""
        return self.path / "results.csv"

    @property
    def rows(self) -> Path:
        """All rows of earlier calls, in any order of images."""
        return self.path / "rows.csv"

    @property
    def parquet(self) -> Path:
        """The same rows for tools that read Parquet."""
        return self.path / "results.parquet"

    @property
    def curves(self) -> Path:
        """The curves of all rows."""
        return self.path / "curves.csv"

    @property
    def failures(self) -> Path:
        """The images that could not be evaluated, if there are any."""
        return self.path / "failures.csv"

    @property
    def information(self) -> Path:
        """Configuration, versions, machine."""
        return self.path / "run.json"

    def part(self, kind: str, rank: int) -> Path:
        """The file that one process appends to: ``results``, ``failures`` or ``curves``."""
        return self.path / f"{kind}.rank{rank}.csv"

    def parts(self, kind: str) -> list[Path]:
        """The files of all processes, including those of earlier sessions."""
        return [path for path in self._parts() if path.name.startswith(f"{kind}.")]

    def map_file(self, image: Image, method: str) -> Path:
        """The picture of a map that took many forward passes."""
        key = "\0".join((image.file, image.content, method))
        return self.path / _MAPS / f"{sha256(key.encode(**ENCODING)).hexdigest()[:32]}.png"

    def keep_map(self, image: Image, method: str, picture: bytes) -> None:
        """Write the picture of a map.

        Raises:
            OutputError: It cannot be written.
        """
        path = self.map_file(image, method)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        write_output(path, picture)

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

    def prepare(
        self, configuration: Mapping[str, Any], *, restart: bool = False, recompute: bool = False
    ) -> None:
        """Check that the folder belongs to this run, and repair files that a kill has truncated.

        Methods that are new are added to the configuration of the folder.

        Args:
            configuration: Of this run.
            restart: Delete the files of the run that the folder holds, whichever run it is.
            recompute: Delete the rows of another configuration: those of the methods that differ,
                or all rows if something else differs.

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
        given = _as_json(configuration)
        earlier = information.get("configuration", {})
        if restart:
            self._delete()
            earlier = {}
        elif earlier:
            self._check_format(earlier)
            earlier = self._that_rows_hold_for(earlier, given, recompute=recompute)
        together = _together(earlier, given)
        if not earlier:
            self.inform({"configuration": together})
        elif together != information["configuration"]:
            self.inform({**information, "configuration": together})
        for part in self.parts("results"):
            text = _lines(self.columns, _read(part, self.columns))
            with writing(part):
                truncated = text.encode(**ENCODING) != part.read_bytes()
            if truncated:
                write_output(part, text)
        # Images that failed are tried again.
        with writing(self.path):
            for path in [*self.parts("failures"), self.failures]:
                path.unlink(missing_ok=True)

    def _that_rows_hold_for(
        self, earlier: dict[str, Any], given: dict[str, Any], *, recompute: bool
    ) -> dict[str, Any]:
        """The part of the earlier configuration that rows depend on.

        Raises:
            ValueError: The given one differs from it, and nothing is to be computed again.
        """
        with_rows = self._methods_with_rows()
        if not with_rows:
            return {}
        earlier = _with_methods(earlier, with_rows)
        if not differences(earlier, given):
            return earlier
        if not recompute:
            raise self._refusal(earlier, given)
        changed = changed_methods(earlier, given)
        kept = _with_methods(earlier, with_rows - changed)
        if differences(kept, given):
            self._delete()
            return {}
        self._delete(kept=[row for row in self._rows() if row.method not in changed])
        return kept

    def _methods_with_rows(self) -> set[str]:
        # The columns may be those of other settings.
        return {row.method for source in self._sources() for row in _read(source)}

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if _PART.fullmatch(path.name))

    def _written(self) -> list[Path]:
        """The files here that have the names of a run's files, the rows first."""
        files = [self.path / name for name in _FILES]
        maps = sorted(p for p in (self.path / _MAPS).glob("*.png") if _MAP.fullmatch(p.name))
        return [*self._parts(), *(path for path in files if os.path.lexists(path)), *maps]

    def _delete(self, *, kept: Sequence[_Row] = ()) -> None:
        """Delete the files of a run, or what does not belong to some of its rows.

        A kill leaves a folder that belongs to the old run, because its rows go last. The
        description is replaced when nothing is left that it describes.
        """
        sources = self._sources()
        staying = {self.information, *sources}
        if kept:
            # Curves of rows that go are replaced when these are computed again.
            staying |= {self.curves, *self.parts("curves")}
            staying |= {self.map_file(row.image, row.method) for row in kept}
        with writing(self.path):
            for path in self._written():
                if path not in staying:
                    path.unlink()
            with suppress(OSError):  # it has maps that are kept, or there is none
                (self.path / _MAPS).rmdir()
            if kept:
                write_output(self.rows, _lines(self.columns, kept))
            for path in sources:
                if path != self.rows or not kept:
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
        self._check_format(earlier)
        given = _as_json(configuration)
        if differences(earlier, given):
            raise self._refusal(earlier, given)

    def _check_format(self, earlier: Mapping[str, Any]) -> None:
        written_as = earlier.get("format", 1)
        if written_as != FORMAT:
            age = "a later" if isinstance(written_as, int) and written_as > FORMAT else "an earlier"
            raise ValueError(
                f"{self.path} was written by {age} version of captum-advise: give another output "
                f"folder, or {_ANEW}."
            )

    def _refusal(self, earlier: Mapping[str, Any], given: Mapping[str, Any]) -> ValueError:
        return ValueError(
            f"{self.path} holds another run ({'; '.join(differences(earlier, given))}): give "
            "another output folder, the arguments of that run to continue it, recompute=True "
            f"(--recompute) to replace the rows that depend on this, or {_ANEW}."
        )

    def stored(self) -> dict[Image, frozenset[str]]:
        """The images that have rows, and the methods of these."""
        methods: dict[Image, set[str]] = {}
        for row in self._rows():
            methods.setdefault(row.image, set()).add(row.method)
        return {image: frozenset(found) for image, found in methods.items()}

    def merge(self, images: Mapping[int, Mapping[str, Image]]) -> bool:
        """Make ``rows.csv``, ``results.csv`` and ``failures.csv`` of the processes' files.

        Args:
            images: The images for ``results.csv``, by their positions in the data and by method.
                It has those that have a row for every method.

        Returns:
            Whether there is any. If there is none, the results stay as they were.
        """
        rows = self._rows()
        by_key = {(row.image, row.method): row for row in rows}
        failures = [row for part in self.parts("failures") for row in _read_failures(part)]
        if failures:
            failures.sort(key=lambda row: int(row["index"]))
            write_output(self.failures, _text(FAILURE_COLUMNS, failures))
        complete = [
            index
            for index in sorted(images)
            if all((images[index][method], method) in by_key for method in self.methods)
        ]
        # All rows first: what follows can be made of them.
        parts = self.parts("results")
        if parts:
            write_output(self.rows, _lines(self.columns, rows))
        if complete:
            lines = [
                by_key[images[index][method], method].at(index)
                for index in complete
                for method in self.methods
            ]
            write_output(self.results, _joined(self.columns, lines))
        with writing(self.path):
            for part in [*parts, *self.parts("failures")]:
                part.unlink(missing_ok=True)
        return bool(complete)

    def _sources(self) -> list[Path]:
        return [*([self.rows] if self.rows.exists() else []), *self.parts("results")]

    def _rows(self) -> list[_Row]:
        """One row for each image and method, by position, image and method."""
        rows: dict[tuple[Image, str], _Row] = {}
        for source in self._sources():
            for row in _read(source, self.columns):
                rows.setdefault((row.image, row.method), row)
        return sorted(rows.values(), key=lambda row: (row.position, row.image, row.method))


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


def as_field(value: Any) -> str:
    """A value as a row holds it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.7g}"
    # One row is one line, so that a truncated row is a truncated line.
    return re.sub(r"[\r\n\0]", " ", str(value))


def _lines(columns: Sequence[str], rows: Iterable[_Row]) -> str:
    return _joined(columns, (row.line for row in rows))


def _joined(columns: Sequence[str], lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (_text(columns, []).rstrip("\n"), *lines))


def _read(path: Path, columns: Sequence[str] | None = None) -> list[_Row]:
    """The complete rows of a file of results with these columns. None: those of its first line."""
    lines = _complete_lines(path)
    if columns is None:
        columns = next((fields for _, fields in lines), [])
    if not {"file", "content", "method"} <= set(columns):
        return []
    file, content, method = (columns.index(name) for name in ("file", "content", "method"))
    return [
        _Row(Image(fields[file], fields[content]), fields[method], line)
        for line, fields in lines
        if len(fields) == len(columns) and fields[0].isdecimal()
    ]


def _read_failures(path: Path) -> list[dict[str, str]]:
    return [
        dict(zip(FAILURE_COLUMNS, fields, strict=True))
        for _, fields in _complete_lines(path)
        if len(fields) == len(FAILURE_COLUMNS) and fields[0].isdecimal()
    ]


def _complete_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines of a file that may end in the middle of one, and the fields of each."""
    with path.open(newline="", **ENCODING) as stream:  # type: ignore[call-overload]
        lines = stream.read().replace("\0", "").split("\n")
    for line in lines[:-1]:  # the last is empty, or truncated
        try:
            (fields,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            continue
        yield line, fields


def _as_json(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON returns it."""
    given: dict[str, Any] = json.loads(json.dumps(configuration, default=str))
    return given


def _with_methods(configuration: Mapping[str, Any], methods: Collection[str]) -> dict[str, Any]:
    """A configuration with some of its methods only."""
    identities = configuration.get("methods", {})
    return {
        **configuration,
        "methods": {name: value for name, value in identities.items() if name in methods},
    }


def _together(earlier: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations that do not differ as one, with the methods and packages of both."""
    both = {
        name: {**earlier.get(name, {}), **given[name]}
        for name in ("methods", "packages")
        if name in given
    }
    return {**given, **both}
