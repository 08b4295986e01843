"""The columns of ``results.csv``: the metrics, and what identifies a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A column of the results.

    Attributes:
        name: The column's name.
        title: The title in tables and figures.
        higher_is_better: Direction.
        kind: What it is about: faithfulness to the network, where the map lies, the ADVISE paper's
            protocol, or the cost of a map.
        digits: Decimal places in tables.
    """

    name: str
    title: str
    higher_is_better: bool
    kind: Literal["faithfulness", "location", "protocol", "cost"]
    digits: int = 3

    @property
    def independent(self) -> bool:
        """Whether ADVISE's default selection, the paper's, does not use the metric."""
        return self.kind in ("faithfulness", "location")

    @property
    def tested(self) -> bool:
        """Whether methods are compared with Grad-CAM on it, image by image."""
        return self.kind != "cost"

    @property
    def heading(self) -> str:
        """The title with an arrow that shows the better direction."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"


@dataclass(frozen=True)
class Curve:
    """A curve of each image and method; the metric of the same name is the area, or the mean.

    Attributes:
        name: The metric's name.
        x_title: What the horizontal axis is.
        y_title: What the vertical axis is.
        start: The position of the first point; the points are evenly spaced.
        end: The position of the last point.
    """

    name: str
    x_title: str
    y_title: str = "probability of the class"
    start: float = 0.0
    end: float = 1.0


METRICS = (
    Metric("insertion", "insertion AUC", True, "faithfulness"),
    Metric("deletion", "deletion AUC", False, "faithfulness"),
    Metric("insertion_black", "insertion from black", True, "faithfulness"),
    Metric("deletion_blurred", "deletion to blurred", False, "faithfulness"),
    Metric("road", "ROAD", True, "faithfulness"),
    Metric("mu_fidelity", "μ-fidelity", True, "faithfulness"),
    Metric("infidelity", "infidelity", False, "faithfulness"),
    Metric("sensitivity_max", "max-sensitivity", False, "faithfulness"),
    Metric("pointing", "pointing game", True, "location"),
    Metric("energy", "energy in the object", True, "location"),
    Metric("sparseness", "sparseness", True, "location"),
    Metric("avx", "AVX", True, "protocol"),
    Metric("average_drop", "average drop", False, "protocol"),
    Metric("average_gain", "average gain", True, "protocol"),
    Metric("ssim", "SSIM", True, "protocol"),
    Metric("fsim", "FSIMc", True, "protocol"),
    Metric("mse", "MSE", False, "protocol"),
    Metric("class_sensitivity", "class sensitivity", False, "protocol"),
    Metric("hit", "hit", True, "protocol"),
    Metric("increase_in_confidence", "increase in confidence", True, "protocol"),
    Metric("forward_passes", "forward passes", False, "cost", digits=1),
    Metric("seconds", "seconds", False, "cost"),
)
# Those of mosaics, which have a table of their own.
MOSAIC_METRICS = (
    Metric("grid_mass", "mass in the cell", True, "location"),
    Metric("grid_top", "top pixels in the cell", True, "location"),
)
CURVES = (
    Curve("insertion", "share of pixels inserted"),
    Curve("deletion", "share of pixels deleted"),
    Curve("insertion_black", "share of pixels inserted"),
    Curve("deletion_blurred", "share of pixels deleted"),
    Curve("road", "share of pixels removed", "difference in probability", start=0.1, end=0.9),
)
ON_REQUEST = ("infidelity", "sensitivity_max")
WITH_REGIONS = ("pointing", "energy")
# Times differ from run to run. Everything else is the same for the same configuration.
NOT_REPRODUCIBLE = ("seconds",)
IDENTITY = ("index", "file", "content", "method", "layer", "target", "predicted", "confidence")


def metrics(on_request: frozenset[str], *, with_regions: bool = False) -> tuple[Metric, ...]:
    """The metrics of a run.

    Args:
        on_request: Those of :data:`ON_REQUEST` that were asked for.
        with_regions: Whether the data say where the objects are.
    """
    left_out = {*ON_REQUEST} - on_request | ({*WITH_REGIONS} if not with_regions else set())
    return tuple(metric for metric in METRICS if metric.name not in left_out)


def columns(of: tuple[Metric, ...]) -> tuple[str, ...]:
    """The columns of ``results.csv``."""
    return (*IDENTITY, *(metric.name for metric in of))


def curves(of: tuple[Metric, ...]) -> tuple[Curve, ...]:
    """The curves of these metrics."""
    names = {metric.name for metric in of}
    return tuple(curve for curve in CURVES if curve.name in names)
