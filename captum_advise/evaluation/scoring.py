"""One picture, all methods: maps, and what each is worth."""

from __future__ import annotations

import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise.class_scores import resolve_target
from captum_advise.evaluation.measures import ON_REQUEST
from captum_advise.evaluation.methods import ClassMaps, Context, Method
from captum_advise.map_scoring import MapScorer, masked_baselines
from captum_advise.metrics import (
    Protocol,
    deletion_auc,
    infidelity,
    insertion_auc,
    sensitivity_max,
)
from captum_advise.pixels import normalize_maps, upsample_maps

Row = dict[str, Any]


@dataclass(frozen=True)
class ScoringSettings:
    """How maps are scored, part of a run's configuration.

    Args:
        steps: Of insertion and deletion: into how many shares the pixels are divided.
        on_request: Measures that cost much: any of ``"infidelity"``, ``"sensitivity_max"``.
        n_perturb_samples: Noisy pictures of each of these two.
        protocol: Reading of the protocol by which every method is scored, whatever
            ADVISE chooses by.
    """

    steps: int = 32
    on_request: frozenset[str] = frozenset()
    n_perturb_samples: int = 10
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        for name in ("steps", "n_perturb_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        unknown = self.on_request - set(ON_REQUEST)
        if unknown:
            raise ValueError(
                f"on_request may name {' and '.join(ON_REQUEST)}, not {', '.join(sorted(unknown))}."
            )


class MethodError(RuntimeError):
    """A method failed on a picture; the message names it."""


@dataclass(frozen=True)
class Scorer:
    """Everything that is the same for all pictures of a run."""

    model: nn.Module
    layer: nn.Module
    methods: Mapping[str, Method]
    context: Context
    settings: ScoringSettings
    seed: int

    def rows(self, index: int, name: str, inputs: Tensor, label: int | None) -> list[Row]:
        """Results of every method for one picture.

        Args:
            index: Place of the picture in the data; with the seed, it decides random numbers.
            name: Of the picture.
            inputs: (1, C, H, W).
            label: Class to explain; None for the predicted one.
        """
        picture = _Picture.prepared(self, inputs, label)
        identity = {
            "index": index,
            "file": name,
            "target": int(picture.target),
            "predicted": picture.predicted,
            "confidence": float(picture.scorer.confidence_in_target()),
        }
        return [
            {**identity, "method": method, **self._scores(index, method, picture)}
            for method in self.methods
        ]

    def maps(self, index: int, inputs: Tensor, label: int | None) -> dict[str, Tensor]:
        """The map (1, 1, h, w) of every method for one picture, the same that was scored."""
        picture = _Picture.prepared(self, inputs, label)
        maps = {}
        for method in self.methods:
            with self._seeded(index, method):
                found = self._call(method, inputs, picture.target)
            maps[method] = _maps(found, method)
        return maps

    def _scores(self, index: int, method: str, picture: _Picture) -> Row:
        inputs, target, context = picture.inputs, picture.target, self.context
        with counted_passes(self.model) as passes:
            _wait_for(inputs.device)
            began = time.perf_counter()
            with self._seeded(index, method):
                found = self._call(method, inputs, target)
            _wait_for(inputs.device)
            seconds = time.perf_counter() - began
        n_passes = passes.count
        maps = _maps(found, method)
        result = picture.scorer(
            torch.zeros(1, dtype=torch.int64, device=inputs.device),
            maps,
            self._runner_up_maps(index, method, found, picture),
        )
        masks = as_mask(maps, inputs)
        areas: dict[str, Any] = {
            "steps": self.settings.steps,
            "confidence": context.confidence,
            "internal_batch_size": context.internal_batch_size,
        }
        scores: Row = {
            name: getattr(result, name).item()
            for name in (
                "avx",
                "average_drop",
                "ssim",
                "fsim",
                "mse",
                "class_sensitivity",
                "hit",
                "increase_in_confidence",
            )
        }
        scores["insertion"] = insertion_auc(self.model, inputs, masks, target, **areas).item()
        scores["deletion"] = deletion_auc(
            self.model, inputs, masks, target, pixel_space=context.pixel_space, **areas
        ).item()
        n_samples = self.settings.n_perturb_samples
        if "infidelity" in self.settings.on_request:
            # The same noise for every method, so that they differ by their maps alone.
            with self._seeded(index, "infidelity"):
                scores["infidelity"] = infidelity(
                    self.model,
                    inputs,
                    masks,
                    target,
                    n_perturb_samples=n_samples,
                    internal_batch_size=context.internal_batch_size,
                ).item()
        if "sensitivity_max" in self.settings.on_request:
            with self._seeded(index, "sensitivity_max"):
                scores["sensitivity_max"] = sensitivity_max(
                    self._explain_each(index, method), inputs, target, n_perturb_samples=n_samples
                ).item()
        return {**scores, "forward_passes": n_passes, "seconds": seconds}

    def _runner_up_maps(
        self, index: int, method: str, found: Tensor | ClassMaps, picture: _Picture
    ) -> Tensor | None:
        runner_up = picture.scorer.runner_up()
        if runner_up is None:
            return None
        if isinstance(found, ClassMaps):
            return found.of_class(runner_up.classes)
        with self._seeded(index, method):
            again = self._call(method, picture.inputs, runner_up.classes)
        return _maps(again, method)

    def _explain_each(self, index: int, method: str) -> Callable[[Tensor, Tensor], Tensor]:
        def explain(inputs: Tensor, target: Tensor) -> Tensor:
            masks = []
            for row in range(len(inputs)):
                one, its_class = inputs[row : row + 1], target[row : row + 1]
                with self._seeded(index, method):
                    found = self._call(method, one, its_class)
                masks.append(as_mask(_maps(found, method), one))
            return torch.cat(masks)

        return explain

    def _call(self, method: str, inputs: Tensor, target: Tensor) -> Tensor | ClassMaps:
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                # Captum's, on every call: that it sets hooks and gradient flags.
                warnings.simplefilter("ignore", UserWarning)
                # A copy, because Captum leaves gradient flags on the inputs.
                return self.methods[method](
                    self.model, self.layer, inputs.clone(), target, self.context
                )
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
            raise MethodError(f"the method {method} failed: {reason}") from error

    @contextmanager
    def _seeded(self, index: int, purpose: str) -> Iterator[None]:
        """Random numbers that depend on the seed, the picture and the purpose, not on the order."""
        seed = zlib.crc32(f"{self.seed} {index} {purpose}".encode())
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
class _Picture:
    """One picture with its class and the protocol's scorer for it."""

    inputs: Tensor
    target: Tensor
    predicted: int
    scorer: MapScorer

    @classmethod
    def prepared(cls, run: Scorer, inputs: Tensor, label: int | None) -> _Picture:
        context = run.context
        with torch.no_grad():
            outputs = run.model(inputs)
        target = resolve_target(outputs, label)
        if target.index.shape[1] != 1:
            raise ValueError(
                f"The outputs have shape {tuple(outputs.shape)}, but maps are compared on "
                "classifiers: one score per class, (N, K)."
            )
        classes = target.index[:, 0]
        return cls(
            inputs=inputs,
            target=classes,
            predicted=int(outputs.argmax(1)),
            scorer=MapScorer(
                forward_func=run.model,
                inputs=(inputs,),
                additional_forward_args=None,
                masked=(0,),
                baselines=masked_baselines((inputs,), (0,), None, context.pixel_space, 2),
                pixel_space=context.pixel_space,
                confidence=context.confidence,
                confidences=context.confidence(outputs).float(),
                target=target,
                protocol=run.settings.protocol,
                similarity=True,
                internal_batch_size=context.internal_batch_size,
            ),
        )


def as_mask(maps: Tensor, inputs: Tensor) -> Tensor:
    """Maps as every measure takes them: positive part, min-max, bicubic to the inputs' size."""
    return upsample_maps(normalize_maps(maps.relu()), tuple(inputs.shape[-2:]))


def _maps(found: Tensor | ClassMaps, method: str) -> Tensor:
    """A method's answer as maps (N, 1, h, w)."""
    maps = found.maps if isinstance(found, ClassMaps) else found
    if not isinstance(maps, Tensor) or maps.dim() != 4 or not maps.numel():
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise MethodError(f"the method {method} gave {shape} instead of maps (N, 1, h, w)")
    if not bool(torch.isfinite(maps).all()):
        raise MethodError(f"the method {method} gave a map with infinite values or NaN")
    return maps.detach().float().sum(1, keepdim=True)


@dataclass
class _Passes:
    count: int = 0


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[_Passes]:
    """Count the pictures that go through the model, one forward pass each, whatever the batch."""
    passes = _Passes()

    def count(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        passes.count += len(arguments[0])

    handle = model.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
