"""Explain a second class with the forward passes that were made for the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.evaluation.randomness import kept_random_states, random_states


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
        restore = random_states()
        recorder = _RecordedModel(model)
        maps = method(recorder, layer, inputs, target, context, **settings)

        def of_class(classes: Tensor) -> Tensor:
            player = _RecordedModel(model, recorder.outputs)
            with kept_random_states():
                restore()
                return method(player, layer, inputs, classes, context, **settings)

        return ClassMaps(maps, of_class)

    return recorded


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
