"""Explain a second class with the forward passes that were made for the first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context


def with_recorded_passes(method: Callable[..., Tensor]) -> Callable[..., ClassMaps]:
    """The method, with forward passes that serve the runner-up class as well.

    For methods that run the model on images which do not depend on the class. The second class gets
    the random numbers of the first, and the global random state stays as it is.
    """

    def recorded(
        model: nn.Module,
        layer: nn.Module,
        inputs: Tensor,
        target: Tensor,
        context: Context,
        **settings: int,
    ) -> ClassMaps:
        start = _RandomState(inputs.device)
        recorder = _RecordedModel(model)
        maps = method(recorder, layer, inputs, target, context, **settings)

        def of_class(classes: Tensor) -> Tensor:
            player = _RecordedModel(model, recorder.outputs)
            with start.again():
                return method(player, layer, inputs, classes, context, **settings)

        return ClassMaps(maps, of_class)

    return recorded


class _RandomState:
    """The state of the global random generators of torch, NumPy and Python."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if self._device else None
        self._numpy = np.random.get_state()  # noqa: NPY002 - as scikit-learn draws
        self._python = random.getstate()

    def _restore(self) -> None:
        torch.set_rng_state(self._torch)
        if self._device and self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)

    @contextmanager
    def again(self) -> Iterator[None]:
        """This state for a while."""
        before = _RandomState(self._device or torch.device("cpu"))
        self._restore()
        try:
            yield
        finally:
            before._restore()


class _RecordedModel(nn.Module):
    """A model that records its outputs without gradients, or returns recorded ones in order."""

    def __init__(self, model: nn.Module, recorded: list[Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)
        self.outputs: list[Tensor] = []
        self._recorded = None if recorded is None else iter(recorded)

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return cast(Tensor, self.model(inputs))
        if self._recorded is not None:
            return next(self._recorded)
        self.outputs.append(self.model(inputs))
        return self.outputs[-1]
