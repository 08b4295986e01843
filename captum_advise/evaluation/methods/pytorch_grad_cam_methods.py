"""Class activation maps of pytorch-grad-cam (the package grad-cam)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods.interface import Context, Method, MethodAt
from captum_advise.evaluation.methods.torchcam_methods import (
    outputs_kept,
    parameter_gradients_kept,
)


def finer_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Finer-CAM: Grad-CAM of the class score minus those of the three classes closest to it."""
    cam_class = import_optional("pytorch_grad_cam", "peers").FinerCAM
    with _made(cam_class, model, layer) as cam:
        _leave_size_of_layer(cam)
        return _maps(cam, inputs, target)


def shapley_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """ShapleyCAM of the residual softmax target (ReST), as its authors recommend."""
    targets = import_optional("pytorch_grad_cam.utils.model_targets", "peers")
    cam_class = import_optional("pytorch_grad_cam", "peers").ShapleyCAM
    with _made(cam_class, model, layer) as cam:
        _leave_size_of_layer(cam)
        return _maps(cam, inputs, target, targets.ClassifierOutputReST)


def from_pytorch_grad_cam_class(cam_class: Callable[..., Any]) -> Method:
    """A method from a class, which is made for each map and leaves no hooks."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        with _made(cam_class, model, layer) as cam:
            return _maps(cam, inputs, target)

    return MethodAt("layer", method)


def from_pytorch_grad_cam_object(cam: Any) -> Method:
    """A method from an object, which keeps its hooks and its layers."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        return _maps(cam, inputs, target)

    return MethodAt(tuple(_base(cam).target_layers), method)


@contextmanager
def _made(cam_class: Callable[..., Any], model: nn.Module, layer: nn.Module) -> Iterator[Any]:
    # Not as its own context manager, which swallows errors, and which some classes are not.
    cam = cam_class(model, [layer])
    try:
        yield cam
    finally:
        _base(cam).activations_and_grads.release()


def _base(cam: Any) -> Any:
    """The object with the hooks."""
    return getattr(cam, "base_cam", cam)


def _leave_size_of_layer(cam: Any) -> None:
    """Return maps of the layer's size, so that all methods' maps are enlarged in the same way."""
    _base(cam).get_target_width_height = lambda _inputs: None


def _maps(
    cam: Any, inputs: Tensor, target: Tensor, target_class: Callable[[int], Any] | None = None
) -> Tensor:
    package = import_optional("pytorch_grad_cam", "peers")
    targets = import_optional("pytorch_grad_cam.utils.model_targets", "peers")
    as_target = target_class or targets.ClassifierOutputTarget
    base = _base(cam)
    # The graph needs an input that requires a gradient: parameters may be frozen.
    inputs = inputs.detach().clone().requires_grad_()
    with parameter_gradients_kept(base.model), outputs_kept(base.target_layers):
        if isinstance(cam, package.FinerCAM):
            # It compares with other classes itself, and takes one class for the whole batch.
            maps = [
                cam(image, target_idx=label)[0]
                for image, label in zip(inputs[:, None], target.tolist(), strict=True)
            ]
        else:
            maps = list(cam(inputs, [as_target(label) for label in target.tolist()]))
    return torch.stack([torch.as_tensor(m) for m in maps])[:, None].to(inputs.device)
