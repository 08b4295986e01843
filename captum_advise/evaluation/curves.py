"""``curves.csv``: the curve of each image, method and metric, such as insertion and deletion.

During a run each process appends to its own file, as it does with the results. The report needs
only means and a few single curves, so rows are read one at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_advise._utils.io import ENCODING
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.store import Image, RunFolder, write_output, writing

CURVE_COLUMNS = ("file", "content", "method", "curve", "values")

Row = dict[str, str]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanCurve:
    """The mean of a method's curves over images.

    Attributes:
        images: Number of images.
        mean: (steps,).
        low: Lower end of the 95% interval of the mean, Student's; NaN for one image.
        high: Upper end.
    """

    images: int
    mean: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Curves:
    """What a report shows of the curves.

    Attributes:
        means: By curve and method.
        single: Of chosen images, by index, method and curve.
    """

    means: dict[tuple[str, str], MeanCurve]
    single: dict[tuple[int, str, str], Values]


def curve_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of ``curves.csv`` from results whose ``curves`` hold each curve's values by name."""
    for row in rows:
        for name, values in row.get("curves", {}).items():
            shown = " ".join(f"{float(value):.4f}".rstrip("0").rstrip(".") for value in values)
            yield {**row, "curve": name, "values": shown}


def repair_curves(folder: RunFolder, stored: Mapping[Image, Collection[str]]) -> None:
    """Repair files that a kill has truncated, so that rows can be appended.

    Args:
        folder: A run whose results are prepared.
        stored: The methods of each image that have results. Curves of others, which are computed
            again, go.

    Raises:
        OutputError: A file cannot be written.
    """
    for part in folder.parts("curves"):
        text = _text(
            row
            for row in _rows(part)
            if row["method"] in stored.get(Image(row["file"], row["content"]), ())
        )
        with writing(part):
            truncated = text.encode(**ENCODING) != part.read_bytes()
        if truncated:
            write_output(part, text)


def merge_curves(folder: RunFolder) -> None:
    """Make ``curves.csv`` of the processes' files, and remove these.

    Curves are kept whatever images and methods the results have; later ones replace earlier ones.

    Raises:
        OutputError: A file cannot be written.
    """
    parts = folder.parts("curves")
    if not parts:
        return
    rows = {
        (row["file"], row["content"], row["method"], row["curve"]): row
        for source in [folder.curves, *parts]
        for row in _rows(source)
    }
    if rows:
        write_output(folder.curves, _text(rows[key] for key in sorted(rows)))
    with writing(folder.path):
        for part in parts:
            part.unlink(missing_ok=True)


def read_curves(
    folder: RunFolder, images: Mapping[tuple[str, str], int], chosen: Collection[int]
) -> Curves:
    """The mean curves, and the single curves of chosen images.

    Args:
        folder: A run whose curves are merged.
        images: Index by name and fingerprint, of the images of the results.
        chosen: Indices of images whose own curves are wanted.
    """
    sums: dict[tuple[str, str], _Sums] = {}
    single = {}
    # As the results are read.
    for row in _rows(folder.curves, errors="replace"):
        index = images.get((row["file"], row["content"]))
        if index is None:
            continue
        try:
            values = np.array(row["values"].split(), dtype=np.float64)
        except ValueError:
            continue
        sums.setdefault((row["curve"], row["method"]), _Sums()).add(values)
        if index in chosen:
            single[(index, row["method"], row["curve"])] = values
    return Curves({key: total.mean() for key, total in sums.items() if total.images}, single)


@dataclass
class _Sums:
    """Running mean and squared deviations (Welford, Technometrics 4, 1962) of curves."""

    images: int = 0
    total: Values = field(default_factory=lambda: np.zeros(0))
    squares: Values = field(default_factory=lambda: np.zeros(0))

    def add(self, values: Values) -> None:
        if not self.images:
            self.total, self.squares = np.zeros(len(values)), np.zeros(len(values))
        if len(values) != len(self.total) or not len(values):
            return
        self.images += 1
        deviation = values - self.total
        self.total = self.total + deviation / self.images
        self.squares = self.squares + deviation * (values - self.total)

    def mean(self) -> MeanCurve:
        half = np.full(len(self.total), np.nan)
        if self.images > 1:
            student = import_optional("scipy.stats", "evaluation").t
            error = np.sqrt(self.squares / (self.images - 1) / self.images)
            half = student.ppf(0.975, self.images - 1) * error
        return MeanCurve(self.images, self.total, self.total - half, self.total + half)


def _rows(path: Path, errors: str = ENCODING["errors"]) -> Iterator[Row]:
    """The complete rows of a file that may end in the middle of one."""
    if not path.exists():
        return
    with path.open(newline="\n", encoding=ENCODING["encoding"], errors=errors) as stream:
        for line in stream:
            try:
                (fields,) = csv.reader([line.replace("\0", "")], strict=True)
            except (csv.Error, ValueError):
                continue
            is_complete = line.endswith("\n") and len(fields) == len(CURVE_COLUMNS)
            if is_complete and tuple(fields) != CURVE_COLUMNS:
                yield dict(zip(CURVE_COLUMNS, fields, strict=True))


def _text(rows: Iterable[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CURVE_COLUMNS)
    writer.writerows([row[column] for column in CURVE_COLUMNS] for row in rows)
    return stream.getvalue()
