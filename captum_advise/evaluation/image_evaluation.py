"""Evaluate all methods on one image: their maps, and the metrics of each map."""

from __future__ import annotations

import math
import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise._core.scoring import MapScorer, as_masks, image_scorer
from captum_advise._core.setting_warnings import suspicious_pixels
from captum_advise._core.targets import resolve_target
from captum_advise._utils.checks import check_count
from captum_advise._utils.errors import first_line
from captum_advise._utils.io import ENCODING
from captum_advise._utils.probabilities import suspicious_confidence
from captum_advise.evaluation.batches import compiled, fixed_size_batches, in_bfloat16
from captum_advise.evaluation.columns import ON_REQUEST, Metric, metrics
from captum_advise.evaluation.methods import ClassMaps, Context, Method, SavedMaps
from captum_advise.evaluation.methods.layers import Layers, choice_of, find_layers
from captum_advise.evaluation.pictures import as_png
from captum_advise.metrics import (
    AVXProtocol,
    blurred,
    energy_pointing_game,
    grid_pointing_game,
    infidelity,
    mu_fidelity,
    pointing_game,
    road,
    sensitivity_max,
    sparseness,
)
from captum_advise.metrics.insertion_deletion import curves_between
from captum_advise.pixels import black

Row = dict[str, Any]

# The maps of methods with more forward passes are kept, because a report shows some of them.
MANY_PASSES = 100
# The first and the last image of each curve.
_CURVES = {
    "insertion": ("blurred", "whole"),
    "deletion": ("whole", "black"),
    "insertion_black": ("black", "whole"),
    "deletion_blurred": ("whole", "blurred"),
}


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the metrics. They are part of a run's configuration.

    Args:
        steps: The number of shares into which insertion and deletion divide the pixels.
        on_request: Metrics that take much time: any of ``"infidelity"``, ``"sensitivity_max"``.
        n_perturb_samples: Noisy images that each of these two takes.
        protocol: The protocol for the metrics of every method, whatever protocol ADVISE selects
            by.

    Raises:
        TypeError: A number is not an int.
        ValueError: A number is below one, or a metric is not among those on request.

    Example::

        >>> settings = MetricSettings(steps=16, on_request=frozenset({"infidelity"}))
    """

    steps: int = 32
    on_request: frozenset[str] = frozenset()
    n_perturb_samples: int = 10
    protocol: AVXProtocol = field(default_factory=AVXProtocol)

    def __post_init__(self) -> None:
        for name in ("steps", "n_perturb_samples"):
            check_count(name, getattr(self, name), at_least=1)
        unknown = self.on_request - set(ON_REQUEST)
        if unknown:
            raise ValueError(
                f"on_request may name {' and '.join(ON_REQUEST)}, not {', '.join(sorted(unknown))}."
            )


class MethodError(RuntimeError):
    """A method failed on an image; the message names the method."""


@dataclass(frozen=True)
class ImageEvaluator:
    """Evaluates methods on one image at a time. Its attributes hold for all images of a run.

    Attributes:
        model: In eval mode; makes the maps.
        layer: The module that layer methods explain.
        methods: By name.
        context: What the methods are given.
        settings: Settings of the metrics.
        seed: Seed of random numbers.
        compiled: Whether the metrics use the compiled model.
        bf16: Whether the metrics run the model under autocast to bfloat16.
        with_regions: Whether the data say where the objects are.
    """

    model: nn.Module
    layer: nn.Module
    methods: Mapping[str, Method]
    context: Context
    settings: MetricSettings
    seed: int
    compiled: bool = False
    bf16: bool = False
    with_regions: bool = False
    _layers: dict[str, Layers] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of each map."""
        return metrics(self.settings.on_request, with_regions=self.with_regions)

    @cached_property
    def forward_func(self) -> Callable[[Tensor], Tensor]:
        """The model for passes without gradients and hooks, as the settings ask for it."""
        run: Callable[[Tensor], Tensor] = compiled(self.model) if self.compiled else self.model
        if self.bf16:
            run = in_bfloat16(run)
        return fixed_size_batches(run, self.context.internal_batch_size)

    def warn_of_suspicions(self, inputs: Tensor) -> None:
        """Warn if an image (1, C, H, W) suggests that settings of all metrics are wrong."""
        with torch.no_grad():
            outputs = self.model(inputs)
        for message in (
            suspicious_pixels(inputs, self.context.pixel_space),
            suspicious_confidence(outputs, self.context.confidence),
        ):
            if message is not None:
                warnings.warn(message, UserWarning, stacklevel=4)

    def rows(
        self,
        index: int,
        name: str,
        inputs: Tensor,
        label: int | None,
        region: Tensor | None = None,
        methods: Sequence[str] | None = None,
    ) -> list[Row]:
        """The results of methods for one image. Each row is the same whatever the other methods.

        Its curves are under ``"curves"``, by name. Under ``"map"`` is the map as a PNG, if it took
        more than ``MANY_PASSES`` forward passes.

        Args:
            index: Position of the image in the data.
            name: Name of the image, on which random numbers depend.
            inputs: (1, C, H, W).
            label: Class to explain; None for the predicted one.
            region: Where the object is, bool (1, 1, H, W).
            methods: Names of the methods; None for all.
        """
        image = self._prepared(name, inputs, label, region)
        explanations = {
            method: self._explained(method, image)
            for method in (self.methods if methods is None else methods)
        }
        return [
            {
                **_identity(index, image),
                "method": method,
                "layer": self._layers_of(method, inputs).name,
                **values,
                "forward_passes": explanation.forward_passes,
                "seconds": explanation.seconds,
                **explanation.picture(),
            }
            for (method, explanation), values in zip(
                explanations.items(), self._metrics(image, explanations), strict=True
            )
        ]

    def mosaic_rows(
        self,
        index: int,
        name: str,
        inputs: Tensor,
        label: int | None,
        *,
        cell: int,
        side: int,
        methods: Sequence[str] | None = None,
    ) -> list[Row]:
        """How well methods find one cell of a mosaic of images.

        Args:
            index: As in :meth:`rows`.
            name: As in :meth:`rows`.
            inputs: The mosaic, (1, C, H, W).
            label: The class of the cell.
            cell: Which cell.
            side: The mosaic has ``side`` x ``side`` cells.
            methods: As in :meth:`rows`.
        """
        image = self._prepared(name, inputs, label)
        cells = torch.tensor([cell], device=inputs.device)
        rows = []
        for method in self.methods if methods is None else methods:
            with self._seeded(name, self._stream(method)):
                result = self._call(method, name, inputs, image.target)
            masks = as_masks(_checked_maps(result, method), inputs.shape[-2:])
            found = grid_pointing_game(masks, cells, side=side)
            rows.append(
                {
                    **_identity(index, image),
                    "method": method,
                    "layer": self._layers_of(method, inputs).name,
                    "grid_mass": found.mass.item(),
                    "grid_top": found.top.item(),
                }
            )
        return rows

    def maps(
        self,
        name: str,
        inputs: Tensor,
        label: int | None,
        methods: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The map (1, 1, h, w) of every method for one image: the map that was evaluated.

        Args:
            name: As in :meth:`rows`.
            inputs: As in :meth:`rows`.
            label: As in :meth:`rows`.
            methods: As in :meth:`rows`.
        """
        image = self._prepared(name, inputs, label)
        maps = {}
        for method in self.methods if methods is None else methods:
            with self._seeded(name, self._stream(method)):
                result = self._call(method, name, inputs, image.target)
            maps[method] = _checked_maps(result, method)
        return maps

    def _prepared(
        self, name: str, inputs: Tensor, label: int | None, region: Tensor | None = None
    ) -> _Image:
        with torch.no_grad():
            outputs = self.model(inputs)
        target = resolve_target(outputs, label)
        if target.index.shape[1] != 1:
            raise ValueError(
                f"The outputs have shape {tuple(outputs.shape)}, but only classifiers can be "
                "evaluated: one class score per class, (N, K)."
            )
        return _Image(
            name=name,
            inputs=inputs,
            target=target.classes,
            predicted=int(outputs.argmax(1)),
            region=region,
            scorer=image_scorer(
                self.forward_func,
                inputs,
                outputs,
                target,
                pixel_space=self.context.pixel_space,
                confidence=self.context.confidence,
                protocol=self.settings.protocol,
                internal_batch_size=self.context.internal_batch_size,
            ),
        )

    def _explained(self, method: str, image: _Image) -> _Explanation:
        device = image.inputs.device
        self._layers_of(method, image.inputs)  # found here, so that it is not counted
        with counted_passes(self.model) as passes:
            _synchronise(device)
            start = time.perf_counter()
            with self._seeded(image.name, self._stream(method)):
                result = self._call(method, image.name, image.inputs, image.target)
            _synchronise(device)
            seconds = time.perf_counter() - start
        maps = _checked_maps(result, method)
        is_saved = isinstance(self.methods[method], SavedMaps)
        return _Explanation(
            maps=maps,
            mask=as_masks(maps, image.inputs.shape[-2:]),
            runner_up_maps=self._runner_up_maps(method, result, image),
            forward_passes=math.nan if is_saved else passes.count,
            seconds=math.nan if is_saved else seconds,
        )

    def _runner_up_maps(
        self, method: str, result: Tensor | ClassMaps, image: _Image
    ) -> Tensor | None:
        runner_up = image.scorer.runner_up()
        if runner_up is None:
            return None
        if isinstance(result, ClassMaps):
            if result.of_class is None:
                return None
            return _checked_maps(result.of_class(runner_up.classes), method)
        with self._seeded(image.name, self._stream(method)):
            runner_up_result = self._call(method, image.name, image.inputs, runner_up.classes)
        return _checked_maps(runner_up_result, method)

    def _metrics(self, image: _Image, explanations: Mapping[str, _Explanation]) -> list[Row]:
        """The metrics of each method's map, with passes in common so that batches are full.

        What is not a pass is computed map by map: sums may depend on the shape of a tensor.
        """
        inputs, target, context = image.inputs, image.target, self.context
        rows = _protocol_metrics(image.scorer, list(explanations.values()))
        masks = torch.cat([explanation.mask for explanation in explanations.values()], 1)
        options: dict[str, Any] = {
            "confidence": context.confidence,
            "internal_batch_size": context.internal_batch_size,
        }
        darkness = black(inputs, context.pixel_space)
        curves = dict(
            zip(
                _CURVES,
                curves_between(
                    self.forward_func,
                    {"whole": inputs, "black": darkness, "blurred": blurred(inputs)},
                    list(_CURVES.values()),
                    masks,
                    target,
                    steps=self.settings.steps,
                    **options,
                ),
                strict=True,
            )
        )
        # The same noise and the same subsets for every method.
        with self._seeded(image.name, "road"):
            relevances = road(self.forward_func, inputs, masks, target, **options)
        # One map or many: the last axis has the shares of pixels.
        curves["road"] = (relevances.least_relevant_first - relevances.most_relevant_first).view(
            1, len(rows), -1
        )
        with self._seeded(image.name, "mu_fidelity"):
            correlations = mu_fidelity(
                self.forward_func, inputs, masks, target, baselines=darkness, **options
            ).flatten()
        for position, (row, (method, explanation)) in enumerate(
            zip(rows, explanations.items(), strict=True)
        ):
            row["curves"] = {name: points[0, position].tolist() for name, points in curves.items()}
            for name in _CURVES:
                points = curves[name][0, position]
                row[name] = float(torch.trapezoid(points, dx=1 / self.settings.steps))
            row["road"] = float(curves["road"][0, position].mean())
            row["mu_fidelity"] = float(correlations[position])
            row["sparseness"] = sparseness(explanation.mask[0]).item()
            if image.region is not None:
                row["pointing"] = pointing_game(explanation.mask, image.region).item()
                row["energy"] = energy_pointing_game(explanation.mask, image.region).item()
            row |= self._metrics_on_request(method, explanation.mask, image)
        return rows

    def _metrics_on_request(self, method: str, mask: Tensor, image: _Image) -> Row:
        inputs, target = image.inputs, image.target
        n_samples = self.settings.n_perturb_samples
        metrics: Row = {}
        if "infidelity" in self.settings.on_request:
            # The same noise for every method, so that they differ by their maps alone.
            with self._seeded(image.name, "infidelity"):
                metrics["infidelity"] = infidelity(
                    self.model,
                    inputs,
                    mask,
                    target,
                    n_perturb_samples=n_samples,
                    internal_batch_size=self.context.internal_batch_size,
                ).item()
        if "sensitivity_max" in self.settings.on_request:
            if isinstance(self.methods[method], SavedMaps):  # which noise does not change
                return {**metrics, "sensitivity_max": math.nan}
            with self._seeded(image.name, "sensitivity_max"):
                metrics["sensitivity_max"] = sensitivity_max(
                    self._one_by_one(image.name, method),
                    inputs,
                    target,
                    n_perturb_samples=n_samples,
                ).item()
        return metrics

    def _one_by_one(self, name: str, method: str) -> Callable[[Tensor, Tensor], Tensor]:
        """From inputs and classes to masks, one image at a time, with the same random numbers."""

        def explain(inputs: Tensor, target: Tensor) -> Tensor:
            masks = []
            for image, label in zip(inputs[:, None], target[:, None], strict=True):
                with self._seeded(name, self._stream(method)):
                    result = self._call(method, name, image, label)
                masks.append(as_masks(_checked_maps(result, method), image.shape[-2:]))
            return torch.cat(masks)

        return explain

    def _layers_of(self, method: str, inputs: Tensor) -> Layers:
        """The layers that a method explains, found when the first image is evaluated."""
        if method not in self._layers:
            choice = choice_of(self.methods[method])
            try:
                self._layers[method] = find_layers(self.model, self.layer, choice, inputs)
            except ValueError as error:
                raise MethodError(f"the method {method} failed: {first_line(error)}") from error
        return self._layers[method]

    def _call(self, method: str, name: str, inputs: Tensor, target: Tensor) -> Tensor | ClassMaps:
        layers = self._layers_of(method, inputs).modules
        context = replace(self.context, image=name, layers=layers)
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                # On every call Captum warns that it sets hooks and gradient flags.
                warnings.simplefilter("ignore", UserWarning)
                # A copy, because Captum leaves gradient flags on the inputs.
                return self.methods[method](
                    self.model,
                    layers[-1] if layers else self.layer,
                    inputs.clone(),
                    target,
                    context,
                )
        except Exception as error:
            raise MethodError(f"the method {method} failed: {first_line(error)}") from error

    def _stream(self, method: str) -> str:
        """What a method's random numbers depend on, besides the seed and the image: its name."""
        return getattr(self.methods[method], "random_stream", method)

    @contextmanager
    def _seeded(self, name: str, purpose: str) -> Iterator[None]:
        """Random numbers that depend on the seed, the image and the purpose, not on the order."""
        seed = zlib.crc32(f"{self.seed} {name} {purpose}".encode(**ENCODING))
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        device = next(self.model.parameters()).device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002


@dataclass(frozen=True)
class _Image:
    """One image with its class, where the object is, and the scorer that applies the protocol."""

    name: str
    inputs: Tensor
    target: Tensor
    predicted: int
    region: Tensor | None
    scorer: MapScorer


@dataclass(frozen=True)
class _Explanation:
    """A method's result for one image: maps (1, 1, h, w), the mask (1, 1, H, W), the cost."""

    maps: Tensor
    mask: Tensor
    runner_up_maps: Tensor | None
    forward_passes: float
    seconds: float

    def picture(self) -> Row:
        """The mask as the entry ``"map"`` of a row, if it took many passes."""
        if not self.forward_passes > MANY_PASSES:  # NaN: unknown
            return {}
        return {"map": as_png(self.mask[0])}


def _identity(index: int, image: _Image) -> Row:
    return {
        "index": index,
        "file": image.name,
        "target": int(image.target),
        "predicted": image.predicted,
        "confidence": float(image.scorer.confidence_in_target()),
    }


def _protocol_metrics(scorer: MapScorer, explanations: Sequence[_Explanation]) -> list[Row]:
    """AVX and its parts for each map. Maps of the same size are evaluated together."""
    rows: list[Row] = [{} for _ in explanations]
    has_runner_up = scorer.runner_up() is not None
    for shape in {explanation.maps.shape for explanation in explanations}:
        group = [i for i, explanation in enumerate(explanations) if explanation.maps.shape == shape]
        maps = torch.cat([explanations[i].maps for i in group])
        # A map that is not known counts as one that does not depend on the class.
        runner_up = [
            explanations[i].maps if (m := explanations[i].runner_up_maps) is None else m
            for i in group
        ]
        metrics = scorer(
            torch.zeros(len(group), dtype=torch.int64, device=maps.device),
            maps,
            torch.cat(runner_up) if has_runner_up else None,
        )
        for position, i in enumerate(group):
            rows[i] |= metrics[position].to_dict()
            if has_runner_up and explanations[i].runner_up_maps is None:
                rows[i]["class_sensitivity"] = math.nan
    return rows


def _checked_maps(result: Tensor | ClassMaps, method: str) -> Tensor:
    """A method's result as maps (N, 1, h, w)."""
    maps = result.maps if isinstance(result, ClassMaps) else result
    if not isinstance(maps, Tensor) or maps.dim() != 4 or not maps.numel():
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise MethodError(f"the method {method} returned {shape} instead of maps (N, 1, h, w)")
    if not bool(torch.isfinite(maps).all()):
        raise MethodError(f"the method {method} returned a map with infinite values or NaN")
    return maps.detach().float().sum(1, keepdim=True)


@dataclass
class _Passes:
    count: int = 0


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[_Passes]:
    """Count forward passes: the images that go through the model, whatever the batch size."""
    passes = _Passes()

    def count(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        passes.count += len(arguments[0])

    handle = model.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
