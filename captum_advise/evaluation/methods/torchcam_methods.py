"""Class activation maps of the package torchcam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods.interface import Context, Method


def torchcam(
    extractor: str, options: Callable[[Context], Mapping[str, Any]] = lambda _: {}
) -> Method:
    """A method of torchcam.

    Args:
        extractor: Name of a class in ``torchcam.methods``.
        options: From the context to further arguments of the class.
    """

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        extractor_class = getattr(import_optional("torchcam.methods", "peers"), extractor)
        # The graph needs an input that requires a gradient: parameters may be frozen.
        inputs = inputs.detach().clone().requires_grad_()
        with (
            _parameter_gradients_kept(model),
            torch.enable_grad(),
            extractor_class(model, layer, **options(context)) as cam,
            # An in-place ReLU after the layer would overwrite the values that torchcam has kept.
            layer.register_forward_hook(lambda _module, _inputs, output: output.clone()),
        ):
            class_scores = model(inputs)
            (maps,) = cam(target.tolist(), class_scores, normalized=False)
        return cast(Tensor, maps).detach()[:, None]

    return method


@contextmanager
def _parameter_gradients_kept(model: nn.Module) -> Iterator[None]:
    """Restore the parameters' gradients: torchcam before 0.4.1 (Python 3.10) adds to them."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
