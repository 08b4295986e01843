"""CSV files of images and their classes. What could be misread is refused."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_advise.evaluation.data.class_labels import ClassLabels
from captum_advise.evaluation.data.regions import Region

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FILE = ("file", "path", "image", "filename", "file name", "file path", "image path")
_BOX = ("x0", "y0", "x1", "y1")
_MASK = ("mask",)
_WITHOUT_CLASS = (*_FILE, *_BOX, *_MASK)
_CLASS = ("class", "label", "target", "index", "class index", "class name")
_MOST_NAMED = 5

_Row = tuple[int, list[str]]  # with its line number


def entries(path: Path, labels: ClassLabels) -> list[tuple[str, int | None, Region | None]]:
    """The images of a CSV file, relative to its folder, with their classes and regions.

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
    found: dict[tuple[str, int | None], tuple[str, int | None, Region | None]] = {}
    lines: dict[tuple[str, int | None, Region | None], int] = {}
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
        region = columns.region(cells, where, path.parent)
        image = os.path.normpath(path.parent / file), target
        if (*image, region) in lines or (image in found and not isinstance(region, tuple)):
            first = next(number for key, number in lines.items() if key[:2] == image)
            raise ValueError(f"{where} repeats line {first} ({file}): remove one of them.")
        lines[(*image, region)] = line
        if image in found and isinstance(region, tuple):  # another box
            name, _, boxes = found[image]
            region = (*boxes, *region) if isinstance(boxes, tuple) else region
            found[image] = name, target, region
        else:
            found[image] = file, target, region
    _check_row_numbers(columns, rows, path)
    _warn_of_several_classes([file for file, _ in found], path)
    return list(found.values())


@dataclass(frozen=True)
class _Columns:
    """Where the file, the class and the region are, among how many columns."""

    file: int
    label: int | None
    count: int
    label_name: str = ""
    box: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()

    @property
    def needed(self) -> int:
        label = -1 if self.label is None else self.label
        return max(self.file, label, *self.box, *self.mask) + 1

    def region(self, cells: Sequence[str], where: str, folder: Path) -> Region | None:
        """Where the object is, by the cells of a row.

        Raises:
            ValueError: It is not clear.
        """
        if self.mask:
            file = cells[self.mask[0]]
            if not file:
                raise ValueError(f"{where} names no mask: give one, or remove the line.")
            return folder / file
        if not self.box:
            return None
        texts = [cells[column] for column in self.box]
        try:
            x0, y0, x1, y1 = (float(text) for text in texts)
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if not (x0 < x1 < math.inf and y0 < y1 < math.inf):
            raise ValueError(
                f"{where} has {', '.join(map(repr, texts))} as box: give four numbers of pixels, "
                "with x0 below x1 and y0 below y1, or remove the line."
            )
        return ((x0, y0, x1, y1),)


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
        # A list of files alone, or of files and regions, needs no class.
        if not found and (what == "files" or any(name not in _WITHOUT_CLASS for name in names)):
            raise ValueError(
                f"In {path}, no column of {', '.join(first)} is named {' or '.join(accepted[:4])}: "
                f"name the column of the {what} so."
            )
    label = labels[0] if labels else None
    name = "" if label is None else names[label]
    box = tuple(names.index(corner) for corner in _BOX if corner in names)
    mask = tuple(i for i, other in enumerate(names) if other in _MASK)
    if len(box) not in (0, len(_BOX)) or len(mask) > 1 or (box and mask):
        raise ValueError(
            f"The first line of {path} does not say where the objects are: name either the columns "
            f"{', '.join(_BOX)}, or one column {_MASK[0]}."
        )
    return _Columns(files[0], label, len(first), name, box, mask), rows[1:]


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
