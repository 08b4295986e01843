"""CSV files of images and their classes. What could be misread is refused."""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_advise.evaluation.class_labels import ClassLabels

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FILE = ("file", "path", "image", "filename", "file name", "file path", "image path")
_CLASS = ("class", "label", "target", "index", "class index", "class name")
_MOST_NAMED = 5

_Row = tuple[int, list[str]]  # with its line number


def entries(path: Path, labels: ClassLabels) -> list[tuple[str, int | None]]:
    """The images of a CSV file, relative to its folder, with their classes.

    Columns are separated by commas, semicolons or tabs. Where the first row does not name them,
    they are the file and the class.

    Raises:
        ValueError: It is not a CSV file, or a row of it is not clear; the message has its number.
    """
    text = _text(path)
    rows = _rows(text, path)
    if not rows:
        return []
    columns, rows = _columns(rows, path)
    found: list[tuple[str, int | None]] = []
    lines: dict[tuple[str, int | None], int] = {}
    for line, cells in rows:
        where = f"Line {line} of {path}"
        if columns.needed > len(cells) or any(cells[columns.count :]):
            raise ValueError(
                f"{where} has {_count(len(cells), 'column')}, but the first line has "
                f"{columns.count}: give each line the same columns, and put names that contain a "
                "separator in quotes."
            )
        file, label = cells[columns.file], "" if columns.label is None else cells[columns.label]
        if not file:
            raise ValueError(f"{where} names no file: give one, or remove the line.")
        target = labels.find(label) if label else None
        if label and target is None:
            raise ValueError(
                f"{where} has {label!r} as class: give a {labels.accepted} of "
                f"{labels.network.name}, or leave it empty; the first line may name the columns "
                "file and class."
            )
        key = os.path.normpath(path.parent / file), target
        if key in lines:
            raise ValueError(f"{where} repeats line {lines[key]} ({file}): remove one of them.")
        lines[key] = line
        found.append((file, target))
    _check_row_numbers(columns, rows, path)
    _warn_of_several_classes([file for file, _ in lines], path)
    return found


@dataclass(frozen=True)
class _Columns:
    """Where the file and the class are, among how many columns."""

    file: int
    label: int | None
    count: int
    label_name: str = ""

    @property
    def needed(self) -> int:
        return max(self.file, -1 if self.label is None else self.label) + 1


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("a null character")
    except ValueError as error:
        raise ValueError(
            f"{path} is not a CSV file in UTF-8: give a folder of images, or a CSV file with the "
            "columns file and class."
        ) from error
    return text


def _rows(text: str, path: Path) -> list[_Row]:
    """The rows that are not blank."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    used = [mark for mark in _SEPARATORS if mark in re.sub(r'"[^"]*("|$)', "", first)]
    if len(used) > 1:
        raise ValueError(
            f"The first line of {path} contains {' and '.join(_SEPARATORS[m] for m in used)}: "
            "separate its columns by one of them, and put names that contain the other in quotes."
        )
    if used:
        return list(_parsed(text, used[0], path))
    # One column: the rows are the same with every separator, or are not of one column.
    for mark in _SEPARATORS:
        rows = list(_parsed(text, mark, path))
        wide = next((row for row in rows if len(row[1]) > 1), None)
        if wide is not None:
            return [*rows[:1], wide]  # which is refused for its columns
    return rows


def _parsed(text: str, separator: str, path: Path) -> Iterator[_Row]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.line_num} of {path} cannot be read ({error}): correct its quotes."
        ) from error


def _columns(rows: list[_Row], path: Path) -> tuple[_Columns, list[_Row]]:
    """The columns, and the rows without the one that names them."""
    first = rows[0][1]
    names = [" ".join(re.split(r"[\s_-]+", cell.casefold())) for cell in first]
    files, labels = (
        [i for i, name in enumerate(names) if name in known] for known in (_FILE, _CLASS)
    )
    if not files and not labels:
        return _Columns(0, 1 if len(first) > 1 else None, len(first)), rows
    for found, what, accepted in ((files, "files", _FILE), (labels, "classes", _CLASS)):
        shown = ", ".join(first[i] for i in found)
        if len(found) > 1:
            raise ValueError(
                f"The first line of {path} names two columns of {what} ({shown}): keep one."
            )
        # A list of files alone needs no class.
        if not found and (what == "files" or len(first) > 1):
            raise ValueError(
                f"In {path}, no column of {', '.join(first)} is named {' or '.join(accepted[:4])}: "
                f"name the column of the {what} so."
            )
    label = labels[0] if labels else None
    name = "" if label is None else names[label]
    return _Columns(files[0], label, len(first), name), rows[1:]


def _check_row_numbers(columns: _Columns, rows: Sequence[_Row], path: Path) -> None:
    """A column ``index`` that numbers the rows, as pandas writes it, is not one of classes."""
    if columns.label is None or columns.label_name != "index" or len(rows) < 2:
        return
    texts = [cells[columns.label] for _, cells in rows]
    if any(texts == [str(start + i) for i in range(len(rows))] for start in (0, 1)):
        raise ValueError(
            f"The column index of {path} holds the numbers of the rows: remove it, or name it "
            "class if these are classes."
        )


def _warn_of_several_classes(files: Sequence[str], path: Path) -> None:
    repeated = sorted(file for file, times in Counter(files).items() if times > 1)
    if repeated:
        shown = [os.path.relpath(file, path.parent) for file in repeated[:_MOST_NAMED]]
        more = ", ..." if len(repeated) > _MOST_NAMED else ""
        warnings.warn(
            f"{_count(len(repeated), 'file')} in {path} {'is' if len(repeated) == 1 else 'are'} "
            "listed with more than one class, and counted once for each: "
            f"{', '.join(shown)}{more}.",
            UserWarning,
            stacklevel=4,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
