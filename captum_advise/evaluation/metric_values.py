"""The values of metrics for all maps of an image, with forward passes in common.

The value of a map depends neither on the other maps nor on the other metrics. Passes have batches
of one size. Sums run over one map at a time; the protocol takes maps of one size together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_advise._core.scoring import MapScorer
from captum_advise._utils.checks import check_count
from captum_advise.evaluation.data.items import Item
from captum_advise.metrics import AVXProtocol, mu_fidelity, road
from captum_advise.metrics.insertion_deletion import blurred, curves_between
from captum_advise.pixels import masked_images

# The first and the last image of each curve.
_ENDS = {
    "insertion": ("blurred", "whole"),
    "deletion": ("whole", "black"),
    "insertion_black": ("black", "whole"),
    "deletion_blurred": ("whole", "blurred"),
}


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the metrics, on which all rows of a run depend.

    Args:
        steps: The number of shares into which insertion and deletion divide the pixels.
        protocol: The protocol for the metrics of every method, whatever protocol ADVISE selects
            by.

    Raises:
        TypeError: The number of steps is not an int.
        ValueError: It is below one.

    Example::

        >>> settings = MetricSettings(steps=16)
    """

    steps: int = 32
    protocol: AVXProtocol = field(default_factory=AVXProtocol)

    def __post_init__(self) -> None:
        check_count("steps", self.steps, at_least=1)


@dataclass(frozen=True)
class MapOfMethod:
    """A method's result for one image."""

    maps: Tensor  # (1, 1, h, w)
    mask: Tensor  # the same stretched to [0, 1] and enlarged to the image, (1, 1, H, W)
    runner_up_maps: Tensor | None  # of the runner-up class; None: not known, or not needed
    forward_passes: float  # images that went through the model for it
    seconds: float
    # From other inputs (1, C, H, W) to their mask, with the same random numbers.
    explain: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapsOfImage:
    """An image with a map of each method, and what several metrics share."""

    item: Item
    results: Sequence[MapOfMethod]
    # It has the model, for passes in batches of one size, and the class that is explained.
    scorer: MapScorer
    settings: MetricSettings
    areas: Collection[str]  # names of the metrics of this call that are areas under curves
    # Sets random numbers for a purpose; they are the same for every method.
    seeded: Callable[[str], AbstractContextManager[None]]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of all metrics that run the model."""
        return {
            "forward_func": self.scorer.forward_func,
            "target": self.scorer.target.classes,
            "confidence": self.scorer.confidence,
            "internal_batch_size": self.scorer.internal_batch_size,
        }

    @cached_property
    def masks(self) -> Tensor:
        """(1, M, H, W)."""
        return torch.cat([result.mask for result in self.results], 1)

    @cached_property
    def curves(self) -> dict[str, Tensor]:
        """Curves (M, steps + 1) of insertion and deletion that were asked for."""
        names = [name for name in _ENDS if name in self.areas]
        whole, black = self.item.inputs, self.scorer.baselines[0]
        found = curves_between(
            images={"whole": whole, "black": black, "blurred": blurred(whole)},
            curves=[_ENDS[name] for name in names],
            maps=self.masks,
            steps=self.settings.steps,
            **self.options,
        )
        return {name: points[0] for name, points in zip(names, found, strict=True)}

    @cached_property
    def road(self) -> Tensor:
        """Differences (M, shares) of ROAD. The noise is the same for every method."""
        with self.seeded("road"):
            found = road(inputs=self.item.inputs, maps=self.masks, **self.options)
        difference = found.least_relevant_first - found.most_relevant_first
        # One map or many: the last axis has the shares of pixels.
        return difference.view(len(self.results), -1)

    @cached_property
    def mu_fidelity(self) -> Tensor:
        """(M,). The subsets are the same for every method."""
        with self.seeded("mu_fidelity"):
            return mu_fidelity(
                inputs=self.item.inputs,
                maps=self.masks,
                pixel_space=self.scorer.pixel_space,
                **self.options,
            ).flatten()

    @cached_property
    def protocol(self) -> list[dict[str, Any]]:
        """AVX and its parts for each map. Maps of the same size are evaluated together."""
        rows: list[dict[str, Any]] = [{} for _ in self.results]
        has_runner_up = self.scorer.runner_up() is not None
        for shape in dict.fromkeys(result.maps.shape for result in self.results):
            group = [i for i, result in enumerate(self.results) if result.maps.shape == shape]
            own = [self.results[i] for i in group]
            maps = torch.cat([result.maps for result in own])
            # A map that is not known counts as one that does not depend on the class.
            runner_up = [
                result.maps if result.runner_up_maps is None else result.runner_up_maps
                for result in own
            ]
            metrics = self.scorer(
                torch.zeros(len(group), dtype=torch.int64, device=maps.device),
                maps,
                torch.cat(runner_up) if has_runner_up else None,
            )
            for position, (i, result) in enumerate(zip(group, own, strict=True)):
                rows[i] = metrics[position].to_dict()
                if has_runner_up and result.runner_up_maps is None:
                    rows[i]["class_sensitivity"] = math.nan
        return rows

    def coherent(
        self, i: int, metric: Callable[[Tensor, Tensor, Tensor], Tensor], value: float
    ) -> Tensor:
        """ARCC or ADCC: coherence is with the map of the masked image."""
        inputs, result = self.item.inputs, self.results[i]
        masked = masked_images(inputs, result.mask, self.scorer.baselines[0]).to(inputs)
        return metric(result.mask, result.explain(masked), result.mask.new_tensor([value]))
