"""Class activation maps of pytorch-grad-cam and torchcam.

Each function takes a class of its package, or its name: the package is then imported when the first
map is made. The object is made for each map, and leaves no hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods.interface import Context


def pytorch_grad_cam(
    cam: Any, target_name: str = "ClassifierOutputTarget"
) -> Callable[..., Tensor]:
    """Maps of a class activation map of pytorch-grad-cam; by name, they have the layer's size.

    ``target_name`` is a class of ``pytorch_grad_cam.utils.model_targets``.
    """

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        package = import_optional("pytorch_grad_cam", "peers")
        targets = import_optional("pytorch_grad_cam.utils.model_targets", "peers")
        as_target = getattr(targets, target_name)
        # Not as its own context manager, which swallows errors, and which some classes are not.
        made = (getattr(package, cam) if isinstance(cam, str) else cam)(model, [layer])
        base = getattr(made, "base_cam", made)  # the part with the hooks
        if isinstance(cam, str):
            # All methods' maps are enlarged in the same way.
            base.get_target_width_height = lambda _inputs: None
        # The graph needs an input that requires a gradient: parameters may be frozen.
        inputs = inputs.detach().clone().requires_grad_()
        with ExitStack() as stack:
            stack.callback(base.activations_and_grads.release)
            stack.enter_context(parameter_gradients_kept(model))
            stack.enter_context(outputs_kept([layer], model))
            if not getattr(base, "detach", True):
                # Second derivatives, which fused attention does not have.
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if isinstance(made, package.FinerCAM):
                # It compares with other classes itself, and takes one class for all images.
                maps = [
                    made(image, target_idx=label)[0]
                    for image, label in zip(inputs[:, None], target.tolist(), strict=True)
                ]
            else:
                maps = list(made(inputs, [as_target(label) for label in target.tolist()]))
        return torch.stack([torch.as_tensor(m) for m in maps])[:, None].to(inputs.device)

    return method


def torchcam(
    cam: Any, options: Callable[..., Mapping[str, Any]] = lambda context: {}
) -> Callable[..., Tensor]:
    """Maps of an extractor of torchcam; those of several layers are fused.

    ``options`` gives further arguments of the class, from the context and settings by name.
    """

    def method(
        model: nn.Module,
        layer: nn.Module,
        inputs: Tensor,
        target: Tensor,
        context: Context,
        **settings: int,
    ) -> Tensor:
        package = import_optional("torchcam.methods", "peers")
        extractor: Any = getattr(package, cam) if isinstance(cam, str) else cam
        modules = list(context.layers or (layer,))
        # The graph needs an input that requires a gradient: parameters may be frozen.
        inputs = inputs.detach().clone().requires_grad_()
        with (
            extractor(model, modules, **options(context, **settings)) as made,
            parameter_gradients_kept(model),
            torch.enable_grad(),
            outputs_kept(modules, model),
        ):
            class_scores = model(inputs)
            several = len(modules) > 1
            # Maps of several layers are only comparable when they are normalised.
            maps = made(target.tolist(), class_scores, normalized=several)
            fused = made.fuse_cams(maps) if several else maps[0]
        return cast(Tensor, fused).detach()[:, None]

    return method


@contextmanager
def outputs_kept(modules: Sequence[nn.Module], model: nn.Module) -> Iterator[None]:
    """Keep what hooks on the modules have seen: an in-place ReLU after them would overwrite it.

    These hooks see single precision, and the model returns that: NumPy has no bfloat16.
    """
    dtypes: dict[nn.Module, torch.dtype] = {}

    def as_single(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        dtypes[module] = output.dtype
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def as_before(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output.to(dtypes.get(module, output.dtype)).clone()

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.register_forward_hook(as_single, prepend=True))
            stack.enter_context(module.register_forward_hook(as_before))
        stack.enter_context(model.register_forward_hook(as_single))
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
