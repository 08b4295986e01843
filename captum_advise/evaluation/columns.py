"""The metrics of an evaluation, one entry each: their columns, directions and computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from captum_advise.evaluation import metric_values as values
from captum_advise.evaluation.metric_values import MapsOfImage
from captum_advise.metrics import energy_pointing_game, pointing_game, sparseness, top_pixels
from captum_advise.zoo.network import did_you_mean


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
    of: Literal["images", "regions", "mosaics"] = "images"
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


def _area(name: str, title: str, *, higher_is_better: bool, in_short: bool = True) -> Metric:
    """A metric that is the area under a curve."""
    curve = Curve(name, f"share of pixels {'inserted' if higher_is_better else 'deleted'}")
    return Metric(
        name,
        title,
        higher_is_better,
        "faithfulness",
        values.area(name),
        curve=curve,
        in_short=in_short,
    )


def _part(name: str, title: str, *, higher_is_better: bool) -> Metric:
    """AVX, or another number of the protocol."""
    of_protocol = values.of_protocol(name)
    return Metric(name, title, higher_is_better, "protocol", of_protocol, in_short=name == "avx")


def _on_request(
    name: str, title: str, of: Callable[[MapsOfImage], list[float]], *, higher_is_better: bool
) -> Metric:
    """A metric of faithfulness that takes long."""
    return Metric(name, title, higher_is_better, "faithfulness", of, default=False)


def _located(
    name: str,
    title: str,
    metric: Callable[[Tensor, Tensor], Tensor],
    of: Literal["regions", "mosaics"] = "regions",
    *,
    in_short: bool = False,
) -> Metric:
    """Where the map lies; the region of a mosaic is the cell of its class."""
    of_region = values.in_region(metric)
    return Metric(name, title, True, "location", of_region, of=of, in_short=in_short)


METRICS = (
    _area("insertion", "insertion AUC", higher_is_better=True),
    _area("deletion", "deletion AUC", higher_is_better=False),
    _area("insertion_black", "insertion from black", higher_is_better=True),
    _area("deletion_blurred", "deletion to blurred", higher_is_better=False, in_short=False),
    Metric(
        "road",
        "ROAD",
        True,
        "faithfulness",
        values.mean_of_road,
        curve=Curve(
            "road", "share of pixels removed", "difference in probability", start=0.1, end=0.9
        ),
    ),
    _on_request("mu_fidelity", "μ-fidelity", values.of_mu_fidelity, higher_is_better=True),
    _on_request("infidelity", "infidelity", values.of_infidelity, higher_is_better=False),
    _on_request(
        "sensitivity_max", "max-sensitivity", values.of_sensitivity, higher_is_better=False
    ),
    _located("pointing", "pointing game", pointing_game, in_short=True),
    _located("energy", "energy in the object", energy_pointing_game),
    _located("top_pixels", "top pixels in the object", top_pixels),
    Metric(
        "sparseness", "sparseness", True, "location", values.of_mask(sparseness), in_short=False
    ),
    _part("avx", "AVX", higher_is_better=True),
    _part("average_drop", "average drop", higher_is_better=False),
    _part("average_gain", "average gain", higher_is_better=True),
    _part("ssim", "SSIM", higher_is_better=True),
    _part("fsim", "FSIMc", higher_is_better=True),
    _part("mse", "MSE", higher_is_better=False),
    _part("class_sensitivity", "class sensitivity", higher_is_better=False),
    _part("hit", "hit", higher_is_better=True),
    _part("increase_in_confidence", "increase in confidence", higher_is_better=True),
    Metric("forward_passes", "forward passes", False, "cost", values.forward_passes, digits=1),
    Metric("seconds", "seconds", False, "cost", values.seconds),
    # The grid pointing game.
    _located("grid_mass", "mass in the cell", energy_pointing_game, "mosaics"),
    _located("grid_top", "top pixels in the cell", top_pixels, "mosaics", in_short=True),
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
