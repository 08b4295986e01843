"""An attribution method as the checks call it, and the error that they raise."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from captum.attr import Attribution
from torch import Tensor, nn

Factory = Callable[[nn.Module, nn.Module], Attribution]


class AxiomViolation(AssertionError):  # noqa: N818 - named after what it reports
    """A method does not fulfil an axiom; the message shows the case."""


@dataclass(frozen=True)
class Method:
    """A Captum attribution that uses a layer, with fixed arguments.

    Attributes:
        name: The name in messages and tables.
        attribution: Factory ``(model, layer) -> Attribution``, or the class itself.
        arguments: Further keyword arguments of ``attribute``.
        spatial_dims: The numbers of spatial dimensions that inputs may have: 1, 2 or 3.
        channels: The numbers of channels that inputs may have.

    Example::

        >>> method = Method("Grad-CAM", LayerGradCam)
        >>> method(net, net.conv4, images, torch.tensor([3, 3])).shape
        torch.Size([2, 1, 8, 8])
    """

    name: str
    attribution: Factory = field(repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spatial_dims: tuple[int, ...] = (1, 2, 3)
    channels: tuple[int, ...] = (1, 2, 3)

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
    ) -> Tensor:
        r"""Attributions of ``inputs`` (N, ...) for classes (N,): (N, 1 or units, \*spatial).

        The target is not passed if ``attribute`` has no such parameter. Warnings are not part of
        any axiom and are not shown.
        """
        attribute = self.attribution(model, layer).attribute
        arguments = dict(self.arguments)
        if "target" in inspect.signature(attribute).parameters:
            arguments["target"] = target
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attributions: Any = attribute(inputs, **arguments)
        if isinstance(attributions, tuple) and len(attributions) == 1:
            (attributions,) = attributions
        if not isinstance(attributions, Tensor):
            raise TypeError(
                f"{self.name} must return one tensor for a layer with one tensor, got "
                f"{type(attributions).__name__}."
            )
        if attributions.dim() < 2 or len(attributions) != len(inputs):
            raise TypeError(
                f"{self.name} must return one tensor (N, 1 or units, *spatial), got "
                f"{tuple(attributions.shape)} for {len(inputs)} examples."
            )
        return attributions.detach()
