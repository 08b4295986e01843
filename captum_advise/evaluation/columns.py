"""The metrics of an evaluation, one entry each: their columns, directions and computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from captum_advise._utils.errors import require_known
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.metric_values import MapsOfImage
from captum_advise.metrics import (
    adcc,
    arcc,
    energy_pointing_game,
    pointing_game,
    sparseness,
    top_pixels,
)

Value: TypeAlias = Callable[[MapsOfImage, int], Tensor | float]
Items: TypeAlias = Literal["images", "regions", "pairs", "mosaics"]

# Of the metrics of location, those that only depend on the order of pixels. Sharper maps of the
# same order raise the others, and sparseness only describes a map.
_ORDER_OF_PIXELS = ("pointing", "top_pixels", "grid_top")


@dataclass(frozen=True)
class Metric:
    """A column of the results."""

    name: str
    title: str  # in tables and figures
    higher_is_better: bool
    # Faithfulness to the network, where the map lies, the ADVISE paper's protocol, or its cost.
    kind: Literal["faithfulness", "location", "protocol", "cost"]
    value: Value  # for one of the maps of an image
    default: bool = True  # whether it is computed unless others are asked for
    # What has it: images, images that say where their objects are, those that also say where an
    # object of another class is, or mosaics.
    of: Items = "images"
    has_curve: bool = False  # whether it summarises a curve, which the store keeps
    digits: int = 3  # decimal places in tables

    @property
    def tested(self) -> bool:
        """Whether methods are compared with Grad-CAM on it, image by image."""
        return self.kind != "cost"

    @property
    def judges(self) -> bool:
        """Whether it judges a map, without being what a method selects by."""
        return self.kind == "faithfulness" or self.name in _ORDER_OF_PIXELS

    @property
    def heading(self) -> str:
        """The title with an arrow that shows the direction."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"

    def applies_to(self, item: Item) -> bool:
        """Whether an item has it."""
        if item.in_mosaic or self.of == "mosaics":
            return item.in_mosaic and self.of == "mosaics"
        known = {"images": item.inputs, "regions": item.region, "pairs": item.other_region}
        return known[self.of] is not None


def _area(name: str, title: str, higher_is_better: bool) -> Metric:
    """The area under a curve."""

    def area(maps: MapsOfImage, i: int) -> Tensor:
        return torch.trapezoid(maps.curves[name][i], dx=1 / maps.settings.steps)

    return Metric(name, title, higher_is_better, "faithfulness", area, has_curve=True)


def _on_request(name: str, title: str, value: Value) -> Metric:
    return Metric(name, title, True, "faithfulness", value, default=False)


def _part(name: str, title: str, higher_is_better: bool) -> Metric:
    """AVX, or another number of the protocol."""
    return Metric(name, title, higher_is_better, "protocol", lambda m, i: m.protocol[i][name])


def _place(name: str, title: str, metric: Callable[..., Tensor], of: Items) -> Metric:
    """A metric of maps and the region of the object; of pairs, also that of the other object."""

    def value(maps: MapsOfImage, i: int) -> Tensor:
        others = (maps.item.other_region,) if of == "pairs" else ()
        return metric(maps.results[i].mask, maps.item.region, *others)

    return Metric(name, title, True, "location", value, of=of)


def _pointing(mask: Tensor, region: Any) -> Tensor:
    """The pointing game, with its tolerance of 15 pixels for images of 224."""
    return pointing_game(mask, region, tolerance=round(15 / 224 * min(mask.shape[2:])))


def _cost(name: str, title: str, digits: int) -> Metric:
    """An attribute of a map."""
    return Metric(
        name, title, False, "cost", lambda m, i: getattr(m.results[i], name), digits=digits
    )


METRICS = (
    _area("insertion", "insertion AUC", True),
    _area("deletion", "deletion AUC", False),
    _area("insertion_black", "insertion from black", True),
    _area("deletion_blurred", "deletion to blurred", False),
    Metric("road", "ROAD", True, "faithfulness", lambda m, i: m.road[i].mean(), has_curve=True),
    _on_request("mu_fidelity", "μ-fidelity", lambda m, i: m.mu_fidelity[i]),
    _on_request("arcc", "ARCC", lambda m, i: m.coherent(i, arcc, float(m.road[i].mean()))),
    _on_request("adcc", "ADCC", lambda m, i: m.coherent(i, adcc, m.protocol[i]["average_drop"])),
    _place("pointing", "pointing game", _pointing, "regions"),
    _place("energy", "energy in the object", energy_pointing_game, "regions"),
    _place("top_pixels", "top pixels in the object", top_pixels, "regions"),
    _place("energy_against", "energy against the other object", energy_pointing_game, "pairs"),
    Metric(
        "sparseness", "sparseness", True, "location", lambda m, i: sparseness(m.results[i].mask[0])
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
    _cost("forward_passes", "forward passes", 1),
    _cost("seconds", "seconds", 3),
    # The grid pointing game: the region of a mosaic is the cell of its class.
    _place("grid_mass", "mass in the cell", energy_pointing_game, "mosaics"),
    _place("grid_top", "top pixels in the cell", top_pixels, "mosaics"),
)
IDENTITY = ("index", "file", "content", "method", "layer", "target", "predicted", "confidence")


def get_metrics(names: Iterable[str] | None = None) -> tuple[Metric, ...]:
    """Metrics by name, in the order of the table; the costs of a map are always among them."""
    wanted = {metric.name for metric in METRICS if metric.kind == "cost"}
    known: dict[str, tuple[Metric, ...]] = {metric.name: (metric,) for metric in METRICS}
    known |= {"default": tuple(metric for metric in METRICS if metric.default), "all": METRICS}
    names = ["default"] if names is None else [names] if isinstance(names, str) else list(names)
    for name in names:
        require_known("metric", name, known)
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
