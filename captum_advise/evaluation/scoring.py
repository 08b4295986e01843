"""One picture, all methods: maps, and what each is worth."""

from __future__ import annotations

import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

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

    Raises:
        ValueError: A number is below one, or a measure is not among those on request.

    Example::

        >>> settings = ScoringSettings(steps=16, on_request=frozenset({"infidelity"}))
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
    compiled: bool = False

    @cached_property
    def scores(self) -> Callable[[Tensor], Tensor]:
        """The model, for passes without gradients and hooks."""
        if not self.compiled:
            return self.model
        return _compiled(self.model, self.context.internal_batch_size)

    def rows(self, index: int, name: str, inputs: Tensor, label: int | None) -> list[Row]:
        """Results of every method for one picture.

        Args:
            index: Place of the picture in the data; with the seed, it decides random numbers.
            name: Of the picture.
            inputs: (1, C, H, W).
            label: Class to explain; None for the predicted one.
        """
        picture = _Picture.prepared(self, inputs, label)
        explained = [self._explained(index, method, picture) for method in self.methods]
        identity = {
            "index": index,
            "file": name,
            "target": int(picture.target),
            "predicted": picture.predicted,
            "confidence": float(picture.scorer.confidence_in_target()),
        }
        return [
            {
                **identity,
                "method": method,
                **scores,
                "forward_passes": it.passes,
                "seconds": it.seconds,
            }
            for method, it, scores in zip(
                self.methods, explained, self._scores(index, picture, explained), strict=True
            )
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

    def _explained(self, index: int, method: str, picture: _Picture) -> _Explained:
        inputs, target = picture.inputs, picture.target
        with counted_passes(self.model) as passes:
            _wait_for(inputs.device)
            began = time.perf_counter()
            with self._seeded(index, method):
                found = self._call(method, inputs, target)
            _wait_for(inputs.device)
            seconds = time.perf_counter() - began
        n_passes = passes.count
        maps = _maps(found, method)
        return _Explained(
            maps=maps,
            mask=as_mask(maps, inputs),
            runner_up_maps=self._runner_up_maps(index, method, found, picture),
            passes=n_passes,
            seconds=seconds,
        )

    def _scores(self, index: int, picture: _Picture, explained: Sequence[_Explained]) -> list[Row]:
        """What each method's map is worth; all in one sweep, so that batches are full."""
        inputs, target, context = picture.inputs, picture.target, self.context
        rows = _protocol_results(picture.scorer, explained)
        masks = torch.cat([it.mask for it in explained], 1)
        areas: dict[str, Any] = {
            "steps": self.settings.steps,
            "confidence": context.confidence,
            "internal_batch_size": context.internal_batch_size,
        }
        inserted = insertion_auc(self.scores, inputs, masks, target, **areas)
        deleted = deletion_auc(
            self.scores, inputs, masks, target, pixel_space=context.pixel_space, **areas
        )
        for row, insertion, deletion in zip(
            rows, inserted.flatten().tolist(), deleted.flatten().tolist(), strict=True
        ):
            row |= {"insertion": insertion, "deletion": deletion}
        for method, it, row in zip(self.methods, explained, rows, strict=True):
            row |= self._on_request(index, method, it.mask, picture)
        return rows

    def _on_request(self, index: int, method: str, mask: Tensor, picture: _Picture) -> Row:
        inputs, target = picture.inputs, picture.target
        n_samples = self.settings.n_perturb_samples
        scores: Row = {}
        if "infidelity" in self.settings.on_request:
            # The same noise for every method, so that they differ by their maps alone.
            with self._seeded(index, "infidelity"):
                scores["infidelity"] = infidelity(
                    self.model,
                    inputs,
                    mask,
                    target,
                    n_perturb_samples=n_samples,
                    internal_batch_size=self.context.internal_batch_size,
                ).item()
        if "sensitivity_max" in self.settings.on_request:
            with self._seeded(index, "sensitivity_max"):
                scores["sensitivity_max"] = sensitivity_max(
                    self._explain_each(index, method), inputs, target, n_perturb_samples=n_samples
                ).item()
        return scores

    def _runner_up_maps(
        self, index: int, method: str, found: Tensor | ClassMaps, picture: _Picture
    ) -> Tensor | None:
        runner_up = picture.scorer.runner_up()
        if runner_up is None:
            return None
        if isinstance(found, ClassMaps):
            return _maps(found.of_class(runner_up.classes), method)
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
class _Explained:
    """What a method gave for one picture: maps (1, 1, h, w), the mask (1, 1, H, W), the cost."""

    maps: Tensor
    mask: Tensor
    runner_up_maps: Tensor | None
    passes: int
    seconds: float


def _protocol_results(scorer: MapScorer, explained: Sequence[_Explained]) -> list[Row]:
    """AVX and its parts of each map, maps of one size together."""
    rows: list[Row] = [{} for _ in explained]
    for shape in {it.maps.shape for it in explained}:
        places = [place for place, it in enumerate(explained) if it.maps.shape == shape]
        maps = torch.cat([explained[place].maps for place in places])
        others = [it.runner_up_maps for it in explained if it.maps.shape == shape]
        runner_up = [other for other in others if other is not None]
        results = scorer(
            torch.zeros(len(places), dtype=torch.int64, device=maps.device),
            maps,
            torch.cat(runner_up) if runner_up else None,
        )
        for at, place in enumerate(places):
            rows[place] |= results[at].to_dict()
    return rows


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
                forward_func=run.scores,
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


def _compiled(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
    """The model, compiled once, for batches of one size; smaller ones are filled up."""
    fast = torch.compile(model, dynamic=False, options={"freezing": True})

    def scores(inputs: Tensor) -> Tensor:
        filling = inputs[-1:].expand(batch_size - len(inputs), *inputs.shape[1:])
        with torch.no_grad():
            return cast(Tensor, fast(torch.cat([inputs, filling])))[: len(inputs)]

    return scores


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
