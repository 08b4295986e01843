"""Evaluate methods on one image: their maps, and the metrics of each map."""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from captum_advise._core.scoring import MapScorer, as_masks
from captum_advise._core.setting_warnings import extreme_pixels, suspicious_pixels, warn_of
from captum_advise._core.targets import resolve_target
from captum_advise._utils.errors import first_line, reason
from captum_advise._utils.io import ENCODING
from captum_advise._utils.probabilities import suspicious_confidence
from captum_advise.evaluation.columns import Metric
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.methods.interface import ClassMaps, Context, Method
from captum_advise.evaluation.methods.layers import Layers, find_layers
from captum_advise.evaluation.metric_values import MapOfMethod, MapsOfImage, MetricSettings
from captum_advise.evaluation.randomness import seeded
from captum_advise.evaluation.run.passes import counted_passes, fixed_size_batches
from captum_advise.evaluation.run.store import Row, packed
from captum_advise.layouts import ReshapeTransform
from captum_advise.pixels import black
from captum_advise.zoo.network import place_of


class MethodError(RuntimeError):
    """A method failed on an image; the message names the method."""


class UnsuitableMethodError(ValueError):
    """A method cannot explain the layer of the run; the message names the method."""


@dataclass(frozen=True)
class ImageEvaluator:
    """Evaluates methods on one image at a time. Its attributes hold for all images of a run."""

    model: nn.Module
    layer: nn.Module
    methods: Mapping[str, Method]
    context: Context
    settings: MetricSettings
    seed: int
    reshape_transform: ReshapeTransform | None = None
    _layers: dict[tuple[str, torch.Size], Layers] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return place_of(self.model)[0]

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the model's parameters, None if it has none."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), None)

    def check(self, inputs: Tensor, *, warns: bool) -> None:
        """Check the methods with the first image (1, C, H, W).

        ``warns``: warn if it suggests that settings of all metrics are wrong.

        Raises:
            UnsuitableMethodError: A method cannot explain its layers.
        """
        with torch.no_grad():
            outputs = self.model(inputs)
        space = self.context.pixel_space
        suspicions = (
            suspicious_pixels(extreme_pixels(inputs, space), space),
            suspicious_confidence(outputs, self.context.confidence),
        )
        warn_of(suspicions if warns else ())
        for name in self.methods:
            self._layers_of(name, inputs)

    def rows(self, item: Item, methods: Sequence[str], metrics: Sequence[Metric]) -> dict[str, Row]:
        """The results of methods for one image. None depends on the other methods or metrics."""
        scorer = self._scorer(item)
        needs_runner_up = any(metric.kind == "protocol" for metric in metrics)
        results = [self._explained(name, item, scorer, needs_runner_up) for name in methods]
        with_curve = [metric.name for metric in metrics if metric.has_curve]
        maps = MapsOfImage(
            item=item,
            results=results,
            scorer=scorer,
            settings=self.settings,
            areas=with_curve,
            seeded=lambda purpose: self._seeded(item.name, purpose),
        )
        rows: dict[str, Row] = {}
        for i, (name, result) in enumerate(zip(methods, results, strict=True)):
            values = {
                "target": int(scorer.target.classes),
                "predicted": int(scorer.outputs.argmax(1)),
                "confidence": float(scorer.confidence_in_target()),
                "layer": self._layers_of(name, item.inputs).name,
                **{metric.name: _plain(metric.value(maps, i)) for metric in metrics},
            }
            for curve in with_curve:
                points = maps.road[i] if curve == "road" else maps.curves[curve][i]
                values[f"{curve}_curve"] = [round(value, 4) for value in points.tolist()]
            rows[name] = Row(values, packed(result.mask))
        return rows

    def _scorer(self, item: Item) -> MapScorer:
        with torch.no_grad():
            outputs = self.model(item.inputs)
        target = resolve_target(outputs, item.target)
        if target.index.shape[1] != 1:
            raise ValueError(
                f"The outputs have shape {tuple(outputs.shape)}, but only classifiers can be "
                "evaluated: one class score per class, (N, K)."
            )
        context = self.context
        return MapScorer(
            forward_func=fixed_size_batches(self.model, context.internal_batch_size),
            inputs=(item.inputs,),
            outputs=outputs,
            target=target,
            baselines=(black(item.inputs, context.pixel_space),),
            pixel_space=context.pixel_space,
            confidence=context.confidence,
            internal_batch_size=context.internal_batch_size,
            protocol=self.settings.protocol,
        )

    def _explained(
        self, method: str, item: Item, scorer: MapScorer, needs_runner_up: bool
    ) -> MapOfMethod:
        self._layers_of(method, item.inputs)  # found here, so that it is not counted
        with counted_passes(self.model) as passes:
            _synchronise(self.device)
            start = time.perf_counter()
            result = self._made(method, item, scorer.target.classes)
            _synchronise(self.device)
            seconds = time.perf_counter() - start
        maps = _checked_maps(result, method)
        runner_up, runner_up_maps = scorer.runner_up(), None
        if needs_runner_up and runner_up is not None:
            runner_up_maps = self._maps_of_another(method, item, result, runner_up.classes)
        return MapOfMethod(
            maps=maps,
            mask=as_masks(maps, item.inputs.shape[-2:]),
            runner_up_maps=runner_up_maps,
            forward_passes=float(passes.count),
            seconds=seconds,
            explain=partial(self._mask_of_another, method, item, scorer.target.classes),
        )

    def _maps_of_another(
        self, method: str, item: Item, result: Tensor | ClassMaps, classes: Tensor
    ) -> Tensor | None:
        """The maps of other classes than those that a method has explained."""
        if not isinstance(result, ClassMaps):
            return _checked_maps(self._made(method, item, classes), method)
        if result.of_class is None:
            return None
        # A method that draws samples again draws the same ones.
        with self._seeded(item.name, method), _failures_of(method):
            maps = result.of_class(classes)
        return _checked_maps(maps, method)

    def _mask_of_another(self, method: str, item: Item, target: Tensor, inputs: Tensor) -> Tensor:
        """The mask of other inputs than the item's, with the same random numbers."""
        made = self._made(method, replace(item, inputs=inputs), target)
        return as_masks(_checked_maps(made, method), inputs.shape[-2:])

    def _layers_of(self, method: str, inputs: Tensor) -> Layers:
        """The layers that a method explains, found for the first image of each size."""
        key = method, inputs.shape
        if key not in self._layers:
            choice = getattr(self.methods[method], "layers", "layer")
            try:
                self._layers[key] = find_layers(
                    self.model, self.layer, choice, inputs, self.reshape_transform
                )
            except ValueError as error:
                raise UnsuitableMethodError(
                    f"The method {method} cannot be run: {reason(error)}."
                ) from error
        return self._layers[key]

    def _made(self, method: str, item: Item, target: Tensor) -> Tensor | ClassMaps:
        """What a method returns for an image, with the random numbers of both."""
        inputs, found = item.inputs, self._layers_of(method, item.inputs)
        context = replace(
            self.context,
            image=item.name,
            layers=found.modules,
            reshape_transforms=found.reshape_transforms,
        )
        with (
            self._seeded(item.name, method),
            _failures_of(method),
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):
            # On every call Captum warns that it sets hooks and gradient flags.
            warnings.simplefilter("ignore", UserWarning)
            last = found.modules[-1] if found.modules else self.layer
            # A copy, because Captum leaves gradient flags on the inputs.
            return self.methods[method](self.model, last, inputs.clone(), target, context)

    def _seeded(self, name: str, purpose: str) -> AbstractContextManager[None]:
        """Random numbers that depend on the seed, the image and the purpose, not on the order."""
        return seeded(zlib.crc32(f"{self.seed} {name} {purpose}".encode(**ENCODING)))


@contextmanager
def _failures_of(method: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise MethodError(f"the method {method} failed: {first_line(error)}") from error


def _checked_maps(result: Tensor | ClassMaps, method: str) -> Tensor:
    """A method's result as maps (N, 1, h, w)."""
    maps = result.maps if isinstance(result, ClassMaps) else result
    if not isinstance(maps, Tensor) or maps.dim() != 4 or not maps.numel():
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise MethodError(f"the method {method} returned {shape} instead of maps (N, 1, h, w)")
    if not bool(torch.isfinite(maps).all()):
        raise MethodError(f"the method {method} returned a map with infinite values or NaN")
    return maps.detach().float().sum(1, keepdim=True)


def _plain(value: Tensor | float) -> float:
    value = value.item() if isinstance(value, Tensor) else value
    return int(value) if isinstance(value, bool) else value


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
