"""What is measured for each picture and method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A column of the results.

    Attributes:
        name: Of the column.
        title: In tables and figures.
        higher_is_better: Direction.
        independent: Whether it plays no part in ADVISE's choice among groups of units, as the
            paper has it. ``advise-faithful`` chooses by insertion and deletion as well.
        tested: Whether methods are compared by it with Grad-CAM, picture by picture.
        digits: Behind the point, in tables.
    """

    name: str
    title: str
    higher_is_better: bool
    independent: bool = False
    tested: bool = True
    digits: int = 3

    @property
    def heading(self) -> str:
        """The title with an arrow that shows the better direction."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"


MEASURES = (
    Measure("insertion", "insertion AUC", True, independent=True),
    Measure("deletion", "deletion AUC", False, independent=True),
    Measure("infidelity", "infidelity", False, independent=True),
    Measure("sensitivity_max", "max-sensitivity", False, independent=True),
    Measure("avx", "AVX", True),
    Measure("average_drop", "average drop", False),
    Measure("ssim", "SSIM", True),
    Measure("fsim", "FSIMc", True),
    Measure("mse", "MSE", False),
    Measure("class_sensitivity", "class sensitivity", False),
    Measure("hit", "hit", True),
    Measure("increase_in_confidence", "increase in confidence", True),
    Measure("forward_passes", "forward passes", False, tested=False, digits=1),
    Measure("seconds", "seconds", False, tested=False),
)
ON_REQUEST = ("infidelity", "sensitivity_max")
# Timings differ from run to run; everything else is the same for the same configuration.
NOT_REPRODUCIBLE = ("seconds",)
IDENTITY = ("index", "file", "method", "target", "predicted", "confidence")


def measures(on_request: frozenset[str]) -> tuple[Measure, ...]:
    """The measures of a run, with those of :data:`ON_REQUEST` that were asked for."""
    return tuple(m for m in MEASURES if m.name not in ON_REQUEST or m.name in on_request)


def columns(on_request: frozenset[str]) -> tuple[str, ...]:
    """The columns of ``results.csv``."""
    return (*IDENTITY, *(measure.name for measure in measures(on_request)))
