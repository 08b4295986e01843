"""Explain a second class with the forward passes that were made for the first."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context, Method, MethodAt
from captum_advise.evaluation.methods.layers import choice_of


def with_recorded_passes(method: Method) -> Method:
    """The method, with forward passes that serve the runner-up class as well.

    For methods that run the model on images which do not depend on the class.
    """

    def recorded(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        random_state = torch.get_rng_state()
        recorder = _RecordedModel(model)
        maps = cast(Tensor, method(recorder, layer, inputs, target, context))

        def of_class(classes: Tensor) -> Tensor:
            torch.set_rng_state(random_state)
            player = _RecordedModel(model, recorder.outputs)
            return cast(Tensor, method(player, layer, inputs, classes, context))

        return ClassMaps(maps, of_class)

    return MethodAt(choice_of(method), recorded)


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
