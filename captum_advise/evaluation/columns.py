"""The metrics of an evaluation, one entry each: their columns, directions and computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from captum_advise._utils.errors import did_you_mean
from captum_advise.evaluation import metric_values as values
from captum_advise.evaluation.metric_values import MapsOfImage
from captum_advise.metrics import energy_pointing_game, pointing_game, sparseness, top_pixels

RegionMetric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Items: TypeAlias = Literal["images", "regions", "mosaics"]


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


@dataclass(frozen=True)
class Metric:
    """A column of the results.

    Attributes:
        name: The column's name.
        title: The title in tables and figures.
        higher_is_better: Direction.
        kind: What it is about: faithfulness to the network, where the map lies, the ADVISE paper's
            protocol, or the cost of a map.
        values: Its value for each map of an image.
        default: Whether it is computed unless others are asked for.
        of: What has it: images, images that say where their objects are, or mosaics.
        curve: The curve that it summarises.
        in_short: Whether the command line shows it; the report shows all metrics.
        digits: Decimal places in tables.
    """

    name: str
    title: str
    higher_is_better: bool
    kind: Literal["faithfulness", "location", "protocol", "cost"]
    values: Callable[[MapsOfImage], list[float]]
    default: bool = True
    of: Items = "images"
    curve: Curve | None = None
    in_short: bool = True
    digits: int = 3

    @property
    def tested(self) -> bool:
        """Whether methods are compared with Grad-CAM on it, image by image."""
        return self.kind != "cost"

    @property
    def heading(self) -> str:
        """The title with an arrow that shows the direction."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"

    def applies_to(self, *, has_region: bool, in_mosaic: bool) -> bool:
        """Whether items of a kind have it."""
        if self.of == "mosaics" or in_mosaic:
            return self.of == "mosaics" and in_mosaic
        return has_region or self.of == "images"


def _area(name: str, title: str, higher_is_better: bool, **options: Any) -> Metric:
    """A metric that is the area under a curve."""
    curve = Curve(name, f"share of pixels {'inserted' if higher_is_better else 'deleted'}")
    of_curve = values.area(name)
    return Metric(name, title, higher_is_better, "faithfulness", of_curve, curve=curve, **options)


def _part(name: str, title: str, higher_is_better: bool) -> Metric:
    """AVX, or another number of the protocol."""
    of_protocol = values.of_protocol(name)
    in_short = name == "avx"
    return Metric(name, title, higher_is_better, "protocol", of_protocol, in_short=in_short)


def _place(name: str, title: str, metric: RegionMetric, of: Items, *, in_short: bool) -> Metric:
    """A metric of maps and the region of the object."""
    in_region = values.in_region(metric)
    return Metric(name, title, True, "location", in_region, of=of, in_short=in_short)


_ROAD = Curve("road", "share of pixels removed", "difference in probability", 0.1, 0.9)
_ON_REQUEST: dict[str, Any] = {"default": False}
METRICS = (
    _area("insertion", "insertion AUC", True),
    _area("deletion", "deletion AUC", False),
    _area("insertion_black", "insertion from black", True),
    _area("deletion_blurred", "deletion to blurred", False, in_short=False),
    Metric("road", "ROAD", True, "faithfulness", values.mean_of_road, curve=_ROAD),
    Metric("mu_fidelity", "μ-fidelity", True, "faithfulness", values.of_mu_fidelity, **_ON_REQUEST),
    Metric("infidelity", "infidelity", False, "faithfulness", values.of_infidelity, **_ON_REQUEST),
    Metric(
        "sensitivity_max",
        "max-sensitivity",
        False,
        "faithfulness",
        values.of_sensitivity,
        **_ON_REQUEST,
    ),
    _place("pointing", "pointing game", pointing_game, "regions", in_short=True),
    _place("energy", "energy in the object", energy_pointing_game, "regions", in_short=False),
    _place("top_pixels", "top pixels in the object", top_pixels, "regions", in_short=False),
    Metric(
        "sparseness", "sparseness", True, "location", values.of_mask(sparseness), in_short=False
    ),
    _part("avx", "AVX", True),
    _part("average_drop", "average drop", False),
    _part("average_gain", "average gain", True),
    _part("ssim", "SSIM", True),
    _part("fsim", "FSIMc", True),
    _part("mse", "MSE", False),
    _part("class_sensitivity", "class sensitivity", False),
    _part("hit", "hit", True),
    _part("increase_in_confidence", "increase in confidence", True),
    Metric("forward_passes", "forward passes", False, "cost", values.forward_passes, digits=1),
    Metric("seconds", "seconds", False, "cost", values.seconds),
    # The grid pointing game: the region of a mosaic is the cell of its class.
    _place("grid_mass", "mass in the cell", energy_pointing_game, "mosaics", in_short=False),
    _place("grid_top", "top pixels in the cell", top_pixels, "mosaics", in_short=True),
)
MOSAIC_METRICS = tuple(metric for metric in METRICS if metric.of == "mosaics")
# Times differ from run to run. Everything else is the same for the same key.
NOT_REPRODUCIBLE = ("seconds",)
IDENTITY = ("index", "file", "content", "method", "layer", "target", "predicted", "confidence")
_SETS = {
    "default": tuple(metric for metric in METRICS if metric.default),
    "all": METRICS,
}


def get_metrics(names: Iterable[str] | None = None) -> tuple[Metric, ...]:
    """Metrics by name, in the order of the table; the costs of a map are always among them."""
    wanted = {metric.name for metric in METRICS if metric.kind == "cost"}
    known = {metric.name: (metric,) for metric in METRICS} | _SETS
    names = ["default"] if names is None else [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            raise ValueError(
                f"There is no metric {name!r}{did_you_mean(name, known)}: the metrics are "
                f"{', '.join(known)}."
            )
        wanted |= {metric.name for metric in known[name]}
    if not names:
        raise ValueError(f"Name at least one metric: {', '.join(known)}.")
    return tuple(metric for metric in METRICS if metric.name in wanted)


def list_metrics() -> tuple[str, ...]:
    """The metrics that are known by name.

    Example::

        >>> list_metrics()
        ('insertion', 'deletion', 'insertion_black', 'deletion_blurred', 'road', ...)
    """
    return tuple(metric.name for metric in METRICS)


def curves_of(of: Iterable[Metric]) -> tuple[Curve, ...]:
    """The curves of these metrics."""
    return tuple(metric.curve for metric in of if metric.curve is not None)
