"""What attributions of layers have in common: the model, its layers, and how to read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum._utils.common import _format_additional_forward_args
from torch import Tensor
from torch.nn import Module

from captum_advise._core import arguments
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.setting_warnings import warn_of
from captum_advise._utils.probabilities import HasConfidence, default_confidence
from captum_advise._utils.randomness import unsteady
from captum_advise.layouts import ReshapeTransform
from captum_advise.pixels import PixelSpace


class LayerSetup:
    """Mixin of attributions that look at layers of a model."""

    forward_func: Callable[..., Any]
    device_ids: list[int] | None

    def _set_up(
        self,
        forward_func: Callable[..., Any],
        layers: tuple[Module, ...],
        transforms: tuple[ReshapeTransform | None, ...],
        pixel_space: PixelSpace | None,
        confidence: Callable[[Tensor], Tensor] | None,
        layer_run: int | None,
    ) -> None:
        arguments.check_setup(forward_func, pixel_space, confidence, layer_run)
        self.pixel_space = pixel_space
        self.confidence = default_confidence(forward_func) if confidence is None else confidence
        is_given = confidence is not None or isinstance(forward_func, HasConfidence)
        # None if the caller knows; else the confidence, which may have to be chosen.
        self._asked_confidence = None if is_given else self.confidence
        self.layer_run = layer_run
        self._layers, self._transforms = layers, transforms

    def _layer_call(
        self, inputs: object, additional_forward_args: Any, attribute_to_layer_input: bool
    ) -> LayerCall:
        """A call. Warns of a model whose outputs depend on chance or on the batch."""
        tensors = arguments.as_tensors(inputs)
        warn_of([unsteady(self.forward_func, *self._layers)])
        return LayerCall(
            self.forward_func,
            self._layers,
            tensors,
            _format_additional_forward_args(additional_forward_args),
            self.device_ids,
            attribute_to_layer_input,
            self._transforms,
            self.layer_run,
        )
