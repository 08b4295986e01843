"""The columns of ``results.csv``: the metrics, and what identifies a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A column of the results.

    Attributes:
        name: The column's name.
        title: The title in tables and figures.
        higher_is_better: Direction.
        independent: Whether ADVISE's default selection, the paper's, does not use the metric.
            ``advise-faithful`` selects by insertion and deletion as well.
        tested: Whether methods are compared with Grad-CAM on it, image by image.
        digits: Decimal places in tables.
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


METRICS = (
    Metric("insertion", "insertion AUC", True, independent=True),
    Metric("deletion", "deletion AUC", False, independent=True),
    Metric("infidelity", "infidelity", False, independent=True),
    Metric("sensitivity_max", "max-sensitivity", False, independent=True),
    Metric("avx", "AVX", True),
    Metric("average_drop", "average drop", False),
    Metric("ssim", "SSIM", True),
    Metric("fsim", "FSIMc", True),
    Metric("mse", "MSE", False),
    Metric("class_sensitivity", "class sensitivity", False),
    Metric("hit", "hit", True),
    Metric("increase_in_confidence", "increase in confidence", True),
    Metric("forward_passes", "forward passes", False, tested=False, digits=1),
    Metric("seconds", "seconds", False, tested=False),
)
ON_REQUEST = ("infidelity", "sensitivity_max")
# Times differ from run to run. Everything else is the same for the same configuration.
NOT_REPRODUCIBLE = ("seconds",)
IDENTITY = ("index", "file", "content", "method", "layer", "target", "predicted", "confidence")


def metrics(on_request: frozenset[str]) -> tuple[Metric, ...]:
    """The metrics of a run, including those of :data:`ON_REQUEST` that were asked for."""
    return tuple(m for m in METRICS if m.name not in ON_REQUEST or m.name in on_request)


def columns(on_request: frozenset[str]) -> tuple[str, ...]:
    """The columns of ``results.csv``."""
    return (*IDENTITY, *(metric.name for metric in metrics(on_request)))
