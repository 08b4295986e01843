"""The rows of all runs in a folder, each found by what it depends on, in SQLite.

A process alone writes ``results.sqlite``. Several processes write a file each, because one SQLite
file with several writers is not safe on shared file systems. :meth:`Store.merge` moves their rows
into it. Every image is one transaction, so a kill leaves all of its new rows or none.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_advise._utils.errors import reason
from captum_advise.evaluation.digests import digest
from captum_advise.evaluation.output import OutputError

FILE = "results.sqlite"
_OF_PROCESSES = "results.rank{}.sqlite"
# In the header of every file of ours: SQLite's marks of a program and of its format.
_PROGRAM, _FORMAT = 0x41445645, 2
_TABLES = (
    "CREATE TABLE settings (id TEXT PRIMARY KEY, method TEXT NOT NULL, parts TEXT NOT NULL)",
    'CREATE TABLE rows (image TEXT NOT NULL, content TEXT NOT NULL, setting TEXT NOT NULL, "values"'
    " TEXT NOT NULL, map BLOB NOT NULL, UNIQUE (image, content, setting))",
)
_SIDE = 64  # of the maps that are kept
_ROW = 'image, content, setting, "values", map'


@dataclass(frozen=True)
class Setting:
    """What the rows of a method depend on besides the image: texts by name."""

    method: str
    parts: Mapping[str, str]

    @property
    def id(self) -> str:
        """A digest of all of it."""
        return digest(json.dumps([self.method, dict(sorted(self.parts.items()))]))


class Key(NamedTuple):
    """What identifies a row, as digests."""

    image: str  # its name, which need not be UTF-8, and on which random numbers depend
    content: str  # what the network and the method get of it
    setting: str  # the method, and all else


class Row(NamedTuple):
    """What was computed for an image and a method."""

    # Class, predicted class, confidence, layer, metrics, and curves as ``NAME_curve``.
    values: dict[str, Any]
    map: bytes = b""  # for the report, see :func:`packed`


def packed(mask: Tensor) -> bytes:
    """A map (1, 1, H, W) in [0, 1] as a report shows it: small, in 256 steps."""
    small = nn.functional.interpolate(mask, (_SIDE, _SIDE), mode="area")
    return zlib.compress((255 * small).round().byte().cpu().numpy().tobytes())


def unpacked(content: bytes) -> Tensor:
    """The same as a map (1, 1, h, w)."""
    values = bytearray(zlib.decompress(content))
    return torch.frombuffer(values, dtype=torch.uint8).view(1, 1, _SIDE, _SIDE).float()


class Store:
    """The rows of a folder; this process writes to a file of its own if it has a ``rank``."""

    def __init__(self, folder: Path, rank: int | None = None) -> None:
        self._path = folder / FILE
        self._own_path = self._path if rank is None else folder / _OF_PROCESSES.format(rank)
        self._main = _connect(self._path)
        self._own = self._main if rank is None else _connect(self._own_path)

    def close(self) -> None:
        """Close the files."""
        self._own.close()
        self._main.close()

    def row(self, key: Key) -> Row | None:
        """The row of a key."""
        found = self._query(
            'SELECT "values", map FROM rows WHERE image = ? AND content = ? AND setting = ?', *key
        )
        with _using(self._path):
            return next((Row(_decoded(values, image), image) for values, image in found), None)

    def latest(self, image: str) -> dict[str, tuple[str, dict[str, str]]]:
        """By method, content and parts of the setting of the latest row of an image."""
        found = self._query(
            "SELECT method, content, parts FROM rows JOIN settings ON settings.id = setting "
            "WHERE image = ? ORDER BY rows.rowid",
            image,
        )
        with _using(self._path):
            return {method: (content, _decoded(parts)) for method, content, parts in found}

    def _query(self, text: str, *values: str) -> list[Any]:
        with _using(self._path):
            return self._main.execute(text, values).fetchall()

    def add(self, rows: Mapping[Key, Row], settings: Iterable[Setting]) -> None:
        """Write rows and their settings in one transaction: all, or OutputError and none."""
        entries = [(s.id, s.method, json.dumps(dict(s.parts))) for s in settings]
        values = [(*key, json.dumps(row.values), row.map) for key, row in rows.items()]
        with _transaction(self._own, self._own_path) as own:
            own.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?, ?)", entries)
            own.executemany(f"INSERT OR REPLACE INTO rows ({_ROW}) VALUES (?, ?, ?, ?, ?)", values)

    def delete(self, setting: str) -> None:
        """Delete the rows of a setting."""
        with _transaction(self._main, self._path) as main:
            main.execute("DELETE FROM rows WHERE setting = ?", (setting,))
            main.execute("DELETE FROM settings WHERE id = ?", (setting,))

    def keep(self, keys: Collection[Key], images: Collection[str]) -> None:
        """Delete all rows but those with given keys, or of given images."""
        with _transaction(self._main, self._path) as main:
            every = main.execute("SELECT rowid, image, content, setting FROM rows").fetchall()
            gone = [(row,) for row, *key in every if Key(*key) not in keys and key[0] not in images]
            main.executemany("DELETE FROM rows WHERE rowid = ?", gone)
            main.execute("DELETE FROM settings WHERE id NOT IN (SELECT setting FROM rows)")
        with _using(self._path):
            self._main.execute("VACUUM")

    def merge(self) -> None:
        """Move the rows of files of single processes here. None of these may be in use."""
        for path in sorted(self._path.parent.glob(_OF_PROCESSES.format("*"))):
            _connect(path).close()  # which recovers it after a kill, and looks at what it is
            with _using(path):
                self._main.execute("ATTACH ? AS other", (str(path),))
            try:
                with _transaction(self._main, self._path) as main:
                    main.execute("INSERT OR IGNORE INTO settings SELECT * FROM other.settings")
                    main.execute(
                        f"INSERT OR REPLACE INTO rows ({_ROW}) "
                        f"SELECT {_ROW} FROM other.rows ORDER BY rowid"
                    )
            finally:
                self._main.execute("DETACH other")
            with _using(path):
                path.unlink()


def _decoded(values: str, image: bytes = b"") -> dict[str, Any]:
    """Values of a row; DatabaseError if they or its map are damaged."""
    try:
        if image:
            unpacked(image)
        return dict(json.loads(values))
    except (ValueError, TypeError, RuntimeError, zlib.error) as error:
        raise sqlite3.DatabaseError(reason(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file of ours, or make one. What is not ours or damaged raises an error."""
    with ExitStack() as opened, _using(path):
        # Each statement is a transaction unless we begin one.
        connection = sqlite3.connect(path, isolation_level=None)
        opened.callback(connection.close)
        pragmas = ("PRAGMA application_id", "PRAGMA user_version", "PRAGMA schema_version")
        program, version, schema = (connection.execute(text).fetchone()[0] for text in pragmas)
        if (program, version) != (_PROGRAM, _FORMAT) and (program or version or schema):
            by = "another version of captum-advise" if program == _PROGRAM else "something else"
            raise ValueError(
                f"{path} was written by {by}: give another output folder, or move the file away."
            )
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state.strip("* ").splitlines()[0])
        if not schema:
            with _transaction(connection, path):
                connection.execute(f"PRAGMA application_id = {_PROGRAM}")
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
                for table in _TABLES:
                    connection.execute(table)
        opened.pop_all()
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    with _using(path), connection:  # which commits, or rolls back
        connection.execute("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def _using(path: Path) -> Iterator[None]:
    """Turn any failure of the file into one sentence."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise OutputError.of(path, error) from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path} is damaged, or not a file of captum-advise ({reason(error)}): give another "
            "output folder, or move the file away."
        ) from error
