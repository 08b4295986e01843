"""Class activation maps of the package torchcam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods.interface import Context, Method, MethodAt
from captum_advise.evaluation.methods.layers import LayerChoice


def torchcam(
    extractor: str,
    options: Callable[[Context], Mapping[str, Any]] = lambda _: {},
    layers: LayerChoice = "activation",
) -> Method:
    """A method of torchcam.

    Args:
        extractor: Name of a class in ``torchcam.methods``.
        options: From the context to further arguments of the class.
        layers: As the attribute of a :class:`Method`.
    """

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        extractor_class = getattr(import_optional("torchcam.methods", "peers"), extractor)
        modules = list(context.layers or (layer,))
        with extractor_class(model, modules, **options(context)) as cam:
            return _maps(cam, model, modules, inputs, target)

    return MethodAt(layers, method)


def from_torchcam_class(extractor_class: Callable[..., Any]) -> Method:
    """A method from a class of extractors, which is made for each map."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        with extractor_class(model, layer) as cam:
            return _maps(cam, model, [layer], inputs, target)

    return MethodAt("layer", method)


def from_torchcam_object(cam: Any) -> Method:
    """A method from an extractor, which keeps its hooks and its layers."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        modules = [cam.model.get_submodule(name) for name in cam.target_names]
        return _maps(cam, cam.model, modules, inputs, target)

    return MethodAt(tuple(cam.target_names), method)


def _maps(
    cam: Any, model: nn.Module, modules: Sequence[nn.Module], inputs: Tensor, target: Tensor
) -> Tensor:
    # The graph needs an input that requires a gradient: parameters may be frozen.
    inputs = inputs.detach().clone().requires_grad_()
    with parameter_gradients_kept(model), torch.enable_grad(), outputs_kept(modules):
        class_scores = model(inputs)
        several = len(modules) > 1
        # Maps of several layers are only comparable when they are normalised.
        maps = cam(target.tolist(), class_scores, normalized=several)
        fused = cam.fuse_cams(maps) if several else maps[0]
    return cast(Tensor, fused).detach()[:, None]


@contextmanager
def outputs_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Keep what hooks on the modules have seen: an in-place ReLU after them would overwrite it."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(
                module.register_forward_hook(lambda _module, _inputs, output: output.clone())
            )
        yield


@contextmanager
def parameter_gradients_kept(model: nn.Module) -> Iterator[None]:
    """Restore the parameters' gradients, which some packages add to or clear."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
