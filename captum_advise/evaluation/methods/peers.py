"""Class activation maps of pytorch-grad-cam and torchcam, and attributors of Zennit.

Each function takes an object of its package, which keeps its hooks, or a class, which is made for
each map and leaves none. In place of a class, its name will do: the package is then imported when
the first map is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from inspect import isclass
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
        # The graph needs an input that requires a gradient: parameters may be frozen.
        inputs = inputs.detach().clone().requires_grad_()
        with _cam(cam, model, layer) as made:
            base = with_hooks(made)
            with (
                parameter_gradients_kept(base.model),
                outputs_kept(base.target_layers, base.model),
                # Second derivatives, which fused attention does not have.
                nullcontext() if getattr(base, "detach", True) else sdpa_kernel(SDPBackend.MATH),
            ):
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


def with_hooks(cam: Any) -> Any:
    """The part of a class activation map of pytorch-grad-cam that has the hooks."""
    return getattr(cam, "base_cam", cam)


@contextmanager
def _cam(cam: Any, model: nn.Module, layer: nn.Module) -> Iterator[Any]:
    is_name = isinstance(cam, str)
    if not (is_name or isclass(cam)):
        yield cam
        return
    cam_class = getattr(import_optional("pytorch_grad_cam", "peers"), cam) if is_name else cam
    # Not as its own context manager, which swallows errors, and which some classes are not.
    made = cam_class(model, [layer])
    if is_name:
        # All methods' maps are enlarged in the same way.
        with_hooks(made).get_target_width_height = lambda _inputs: None
    try:
        yield made
    finally:
        with_hooks(made).activations_and_grads.release()


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
        if not (isinstance(cam, str) or isclass(cam)):
            modules = [cam.model.get_submodule(name) for name in cam.target_names]
            return _maps_of_extractor(cam, cam.model, modules, inputs, target)
        package = import_optional("torchcam.methods", "peers")
        extractor: Any = getattr(package, cam) if isinstance(cam, str) else cam
        modules = list(context.layers or (layer,))
        with extractor(model, modules, **options(context, **settings)) as made:
            return _maps_of_extractor(made, model, modules, inputs, target)

    return method


def _maps_of_extractor(
    cam: Any, model: nn.Module, modules: Sequence[nn.Module], inputs: Tensor, target: Tensor
) -> Tensor:
    # The graph needs an input that requires a gradient: parameters may be frozen.
    inputs = inputs.detach().clone().requires_grad_()
    with parameter_gradients_kept(model), torch.enable_grad(), outputs_kept(modules, model):
        class_scores = model(inputs)
        several = len(modules) > 1
        # Maps of several layers are only comparable when they are normalised.
        maps = cam(target.tolist(), class_scores, normalized=several)
        fused = cam.fuse_cams(maps) if several else maps[0]
    return cast(Tensor, fused).detach()[:, None]


def zennit(attributor: Any, composite: Any = None) -> Callable[..., Tensor]:
    """Attributions of Zennit, of the class score; a class of them takes a composite of rules."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        def of_target(outputs: Tensor) -> Tensor:
            return torch.zeros_like(outputs).scatter(1, target[:, None], 1)

        make: Any = attributor
        made = make(model, composite) if isclass(attributor) else make
        _, attributions = made(inputs.detach().clone(), of_target)
        return cast(Tensor, attributions).detach()

    return method


@contextmanager
def outputs_kept(modules: Sequence[nn.Module], model: nn.Module | None = None) -> Iterator[None]:
    """Keep what hooks on the modules have seen: an in-place ReLU after them would overwrite it.

    With a model, these hooks see single precision, and it returns that: NumPy has no bfloat16.
    """
    dtypes: dict[nn.Module, torch.dtype] = {}

    def as_single(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        dtypes[module] = output.dtype
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def as_before(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output.to(dtypes.get(module, output.dtype)).clone()

    with ExitStack() as stack:
        for module in modules:
            if model is not None:
                stack.enter_context(module.register_forward_hook(as_single, prepend=True))
            stack.enter_context(module.register_forward_hook(as_before))
        if model is not None:
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
