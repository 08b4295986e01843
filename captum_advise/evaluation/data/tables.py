"""CSV files of images and their classes. What could be misread is refused."""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from captum_advise.evaluation.data.class_labels import ClassLabels
from captum_advise.evaluation.data.folders import listed
from captum_advise.evaluation.data.regions import Box, Region

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FILE = ("file", "path", "image", "filename")
_CLASS = ("class", "label", "target")
_BOX = ("x0", "y0", "x1", "y1")
_MASK = "mask"

Entry: TypeAlias = tuple[str, int | None, Region | None]


def entries(path: Path, labels: ClassLabels) -> list[Entry]:
    """The images of a CSV file, relative to its folder, with their classes and regions.

    Raises:
        ValueError: It is not a CSV file, or a row of it is not clear; the message has its number.
    """
    reader = _reader(path)
    names = reader.fieldnames or ()
    file_column, class_column = _columns(names, path)
    found: dict[tuple[str, int | None], Entry] = {}
    for where, row in _rows(reader, path):
        file, label = row[file_column], row[class_column] if class_column else ""
        if not file:
            raise ValueError(f"{where} names no file: give one, or remove the line.")
        target = labels.find(label) if label else None
        if label and target is None:
            raise ValueError(
                f"{where} has {label!r} as class: give a {labels.accepted} of "
                f"{labels.network.name}, or leave it empty."
            )
        region = _region(row, where, path.parent)
        key = os.path.normpath(path.parent / file), target
        if key in found:
            known = found[key][2]
            # An image with several boxes has a line for each.
            if not isinstance(known, tuple) or not isinstance(region, tuple) or region[0] in known:
                raise ValueError(f"{where} repeats an image ({file}): remove one of the lines.")
            region = (*known, *region)
        found[key] = file, target, region
    _warn_of_several_classes([file for file, _ in found], path)
    return list(found.values())


def _reader(path: Path) -> csv.DictReader[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except ValueError as error:
        raise ValueError(
            f"{path} is not a CSV file in UTF-8: give a folder of images, or a CSV file with the "
            "columns file and class."
        ) from error
    first = text.partition("\n")[0]
    used = [mark for mark in _SEPARATORS if mark in first]
    if len(used) > 1:
        raise ValueError(
            f"The first line of {path} contains {' and '.join(_SEPARATORS[m] for m in used)}: "
            "separate its columns by one of them."
        )
    stream = io.StringIO(text, newline="")
    reader = csv.DictReader(
        stream, delimiter=(used or [","])[0], strict=True, skipinitialspace=True
    )
    reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
    return reader


def _columns(names: Collection[str], path: Path) -> tuple[str, str | None]:
    """The names of the columns of files and of classes."""
    chosen: list[str | None] = []
    for what, known in (("files", _FILE), ("classes", _CLASS)):
        found = [name for name in names if name in known]
        if len(found) > 1:
            raise ValueError(
                f"The first line of {path} names two columns of {what} ({', '.join(found)}): keep "
                "one."
            )
        # A list of files alone, or of files and regions, needs no class.
        needed = what == "files" or not {*names} <= {*_FILE, *_BOX, _MASK}
        if not found and needed and names:
            raise ValueError(
                f"In {path}, no column of {', '.join(names)} is named {' or '.join(known)}: name "
                f"the column of the {what} so, in the first line."
            )
        chosen += found or [None]
    boxes = {*names} & {*_BOX}
    if boxes and (len(boxes) < len(_BOX) or _MASK in names):
        raise ValueError(
            f"The first line of {path} does not say where the objects are: name either the columns "
            f"{', '.join(_BOX)}, or one column {_MASK}."
        )
    return chosen[0] or "", chosen[1]


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows that are not blank, each with its place for messages."""
    read = {*_FILE, *_CLASS, *_BOX, _MASK} & {*(reader.fieldnames or ())}
    try:
        for row in reader:
            where = f"Line {reader.line_num} of {path}"
            if not any(row.values()):
                continue
            if None in row or any(row[name] is None for name in read):
                raise ValueError(
                    f"{where} has other columns than the first line: give each line the same, and "
                    "put names that contain a separator in quotes."
                )
            yield where, {name: row[name].strip() for name in read}
    except csv.Error as error:
        raise ValueError(
            f"Line {reader.reader.line_num} of {path} cannot be read ({error}): correct its quotes."
        ) from error


def _region(row: Mapping[str, str], where: str, folder: Path) -> Region | None:
    """Where the object is, by the cells of a row."""
    if _MASK in row:
        if not row[_MASK]:
            raise ValueError(f"{where} names no mask: give one, or remove the line.")
        return folder / row[_MASK]
    if _BOX[0] not in row:
        return None
    texts = [row[corner] for corner in _BOX]
    try:
        x0, y0, x1, y1 = map(float, texts)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 < math.inf and y0 < y1 < math.inf):
        raise ValueError(
            f"{where} has {', '.join(map(repr, texts))} as box: give four numbers of pixels, "
            "with x0 below x1 and y0 below y1, or remove the line."
        )
    box: Box = (x0, y0, x1, y1)
    return (box,)


def _warn_of_several_classes(files: Sequence[str], path: Path) -> None:
    repeated = sorted(file for file, times in Counter(files).items() if times > 1)
    if repeated:
        shown = listed(os.path.relpath(file, path.parent) for file in repeated)
        warnings.warn(
            f"{path} lists {len(repeated)} file{'' if len(repeated) == 1 else 's'} with more than "
            f"one class, and each counts once for each class: {shown}.",
            UserWarning,
            stacklevel=4,
        )
