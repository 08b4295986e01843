"""Mean curves of metrics, such as insertion and deletion, over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from captum_advise._utils.optional_dependencies import import_optional

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeanCurve:
    """The mean (steps,) of a method's curves over images, with the ends of its 95% interval.

    The interval is Student's; its ends are NaN for one image.
    """

    images: int
    mean: Values
    low: Values
    high: Values


def mean_curves(
    rows: Iterable[tuple[str, Mapping[str, Sequence[float]]]],
) -> dict[tuple[str, str], MeanCurve]:
    """The mean curves by name and method; a row is a method with its curves by name."""
    sums: dict[tuple[str, str], _Sums] = {}
    for method, curves in rows:
        for name, points in curves.items():
            sums.setdefault((name, method), _Sums()).add(np.asarray(points, dtype=np.float64))
    return {key: total.mean() for key, total in sums.items()}


@dataclass
class _Sums:
    """Running mean and squared deviations (Welford, Technometrics 4, 1962) of curves."""

    images: int = 0
    total: Values = field(default_factory=lambda: np.zeros(1))
    squares: Values = field(default_factory=lambda: np.zeros(1))

    def add(self, values: Values) -> None:
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
