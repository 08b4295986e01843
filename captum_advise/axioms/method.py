"""An attribution method as the checks see it, and the error that they raise."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from captum.attr import LayerAttribution
from torch import Tensor, nn

Factory = Callable[[nn.Module, nn.Module], LayerAttribution]


class AxiomViolation(AssertionError):  # noqa: N818 - what it is, not only that it is an error
    """A method does not fulfil an axiom; the message shows the case."""


@dataclass(frozen=True)
class Method:
    """A Captum layer attribution with fixed arguments.

    Attributes:
        name: For people.
        attribution: Factory ``(model, layer) -> LayerAttribution``; the class itself will do.
        arguments: Further keyword arguments of ``attribute``.
        spatial_dims: Which inputs it takes: 1, 2 or 3 spatial dimensions.
        channels: Which numbers of input channels it takes.

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

        The target is left out where ``attribute`` has no such parameter. Warnings are no part of
        any axiom and are not shown.
        """
        attribute = self.attribution(model, layer).attribute
        arguments = dict(self.arguments)
        if "target" in inspect.signature(attribute).parameters:
            arguments["target"] = target
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attribute(inputs, **arguments)
        if isinstance(found, tuple) and len(found) == 1:
            (found,) = found
        if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != len(inputs):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(
                f"{self.name} must return one tensor (N, 1 or units, *spatial) for a layer "
                f"with one tensor, got {shape} for {len(inputs)} examples."
            )
        return found.detach()
