"""CSV files of images and their classes. What could be misread is refused."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from captum_advise.evaluation.data.class_labels import ClassLabels


def entries(path: Path, labels: ClassLabels) -> list[tuple[str, int | None]]:
    """The images of a CSV file, relative to its folder, with their classes.

    Raises:
        ValueError: It is not a CSV file, or a row of it is not clear; the message has its number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(
            f"{path} is not a CSV file in UTF-8: give a folder of images, or a CSV file with the "
            "columns file and class."
        ) from error
    first = text.partition("\n")[0]
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    lines = csv.reader(io.StringIO(text), delimiter=separator, strict=True, skipinitialspace=True)
    names = [name.strip().casefold() for name in next(lines, [])]
    # A list of files alone needs no class.
    needed = {"file", "class"} if len(names) > 1 else {"file"}
    if names and not needed <= {*names}:
        raise ValueError(
            f"In {path}, no column of {', '.join(names)} is named "
            f"{' or '.join(sorted(needed - {*names}))}: name it so, in the first line."
        )
    found: dict[tuple[str, int | None], tuple[str, int | None]] = {}
    try:
        for values in lines:
            if not any(values):
                continue
            where = f"Line {lines.line_num} of {path}"
            row = {name: value.strip() for name, value in zip(names, values, strict=False)}
            if len(values) > len(names) or not needed <= {*row}:
                raise ValueError(
                    f"{where} has other columns than the first line: give each line the same, and "
                    "put names that contain a separator in quotes."
                )
            file, label = row["file"], row.get("class", "")
            if not file:
                raise ValueError(f"{where} names no file: give one, or remove the line.")
            target = labels.find(label) if label else None
            if label and target is None:
                raise ValueError(
                    f"{where} has {label!r} as class, which names none, or several: give a "
                    f"{labels.accepted} of {labels.network.name}, or leave it empty."
                )
            key = os.path.normpath(file), target
            if key in found:
                raise ValueError(f"{where} repeats an image ({file}): remove one of the lines.")
            found[key] = file, target
    except csv.Error as error:
        raise ValueError(
            f"Line {lines.line_num} of {path} cannot be read ({error}): correct its quotes."
        ) from error
    return list(found.values())
