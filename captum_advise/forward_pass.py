"""One forward pass: a layer's feature maps, the outputs, and gradients of chosen scores.

Everything goes through Captum's own hooks, so a layer means here what it means there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from captum._utils.common import _reduce_list, _run_forward, _select_targets, _sort_key_list
from captum._utils.gradient import _extract_device_ids, _forward_layer_distributed_eval
from captum._utils.typing import TargetType
from torch import Tensor
from torch.nn import Module

ReshapeTransform: TypeAlias = Callable[[Tensor], Tensor]

# A hook sees every call of its module, also those of other threads, and whoever masks inputs runs
# the model as well: so one forward pass at a time, whichever the model (two may share a layer).
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class LayerPass:
    """Outcome of one forward pass with the graph from ``layer`` to the outputs kept alive.

    ``feature_maps`` holds the layer's tensors, (N, C, *spatial) if the layer has any, ``outputs``
    what ``forward_func`` returned.
    """

    feature_maps: tuple[Tensor, ...]
    outputs: Tensor
    _leaves: tuple[tuple[Tensor, ...], ...]
    _reshape_transform: ReshapeTransform | None

    def gradients(
        self, target: TargetType, *, keep_graph: bool = False, **grad_kwargs: Any
    ) -> tuple[Tensor, ...]:
        """Gradient of each example's score at ``target`` with respect to ``feature_maps``."""
        # The caller may have switched gradients off, and then unbinding would cut the graph.
        with torch.enable_grad():
            scores = self._scores(target)
            if keep_graph:
                grad_kwargs["retain_graph"] = True
            leaves = [leaf for leaves in self._leaves for leaf in leaves]
            try:
                found = torch.autograd.grad(torch.unbind(scores), leaves, **grad_kwargs)
            except RuntimeError as error:
                if any(text in str(error) for text in _NO_GRADIENT):
                    raise ValueError(_NO_GRADIENT_ADVICE) from error
                raise
        if any(gradient is None for gradient in found):  # allow_unused
            raise ValueError(_NO_GRADIENT_ADVICE)
        width = len(self._leaves[0])
        reduced = _reduce_list([found[i : i + width] for i in range(0, len(found), width)])
        return _reshaped(reduced, self._reshape_transform)

    def _scores(self, target: TargetType) -> Tensor:
        try:
            scores: Tensor = _select_targets(self.outputs, target)
        # What Captum and torch raise differs with the target's form.
        except (AssertionError, IndexError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"Target {target!r} does not name one of the outputs per example; they have shape "
                f"{tuple(self.outputs.shape)} ({_first_line(error)})."
            ) from error
        if scores.shape[0] and scores[0].numel() != 1:
            raise ValueError(
                f"The outputs have shape {tuple(self.outputs.shape)}, so that a target must "
                "name one score per example: give `target`, or wrap `forward_func` to return "
                "one."
            )
        return scores


_NO_GRADIENT = ("does not require grad", "appears to not have been used in the graph")
_NO_GRADIENT_ADVICE = (
    "The target's score has no gradient with respect to the layer: the layer does not lead to it, "
    "or something on the way runs under torch.no_grad or torch.inference_mode, is detached or is "
    "quantised. Name another layer, or use a model in floating point that keeps the graph."
)


def run_layer(
    forward_func: Callable[..., Any],
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: Any,
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
    reshape_transform: ReshapeTransform | None = None,
) -> LayerPass:
    """Forward pass with gradients enabled from ``layer`` on.

    Raises:
        TypeError: ``forward_func`` does not return a tensor of scores, or the layer no tensors
            that have gradients.
        ValueError: The layer does not run, or the inputs are where the model is not.
    """
    with torch.enable_grad():
        values, outputs = _hooked(
            forward_func, layer, inputs, additional_forward_args, attribute_to_layer_input
        )
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"forward_func returned a {type(outputs).__name__}, not a tensor of scores: wrap "
                "it in a function that picks the tensor, as in "
                '`lambda inputs: model(inputs)["logits"]`.'
            )
        if not outputs.is_floating_point() or outputs.dim() == 0:
            raise TypeError(
                "forward_func must return real scores, one row per example, got "
                f"{outputs.dtype} of shape {tuple(outputs.shape)}."
            )
        leaves = _in_order(values, forward_func, layer, device_ids)
        feature_maps = _reshaped(_reduce_list(leaves), reshape_transform)
    return LayerPass(feature_maps, outputs, leaves, reshape_transform)


@torch.no_grad()
def run_to_layer(
    forward_func: Callable[..., Any],
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: Any,
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
    reshape_transform: ReshapeTransform | None = None,
) -> tuple[Tensor, ...]:
    """The layer's feature maps alone, without a graph."""
    values, _ = _hooked(
        forward_func, layer, inputs, additional_forward_args, attribute_to_layer_input
    )
    leaves = _in_order(values, forward_func, layer, device_ids)
    return _reshaped(_reduce_list(leaves), reshape_transform)


def run_model(
    forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], additional_forward_args: Any
) -> Any:
    """What ``forward_func`` returns."""
    with _forward_pass(forward_func, inputs):
        return _run_forward(forward_func, inputs, None, additional_forward_args)


def _hooked(
    forward_func: Callable[..., Any],
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: Any,
    attribute_to_layer_input: bool,
) -> tuple[dict[torch.device, tuple[Tensor, ...]], Any]:
    """The layer's tensors on each device, and what ``forward_func`` returned."""
    with _forward_pass(forward_func, inputs), _uncompiled():
        try:
            saved, outputs = _forward_layer_distributed_eval(
                getattr(forward_func, "_orig_mod", forward_func),  # what torch.compile wraps
                # Captum's hook sets flags of tensors that are the layer's inputs.
                _aliases(inputs),
                layer,
                additional_forward_args=_aliases(additional_forward_args),
                attribute_to_layer_input=attribute_to_layer_input,
                forward_hook_with_return=True,
                require_layer_grads=True,
            )
        except AssertionError as error:
            for text, advice in _LAYER_ADVICE.items():
                if text in str(error):
                    raise ValueError(advice) from error
            raise
    return saved[layer], outputs


_LAYER_ADVICE = {
    "Forward hook did not obtain": (
        "The layer did not run in the forward pass: it is no part of the model that forward_func "
        "runs, or it is inside a scripted, traced or exported module, which calls no hooks. Take "
        "the layer from that very model, before it was scripted."
    ),
    "Given input is not a torch.Tensor": (
        "The layer returns (or takes) something else than a tensor or a tuple of tensors: name a "
        "module inside it that returns a tensor."
    ),
}


@contextmanager
def _forward_pass(forward_func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """What every run of the model needs. The model's own errors are left as they are."""
    with _one_at_a_time:
        try:
            yield
        except RuntimeError as error:
            if "Inference tensors" in str(error):
                raise ValueError(
                    "The inputs or the model were made under torch.inference_mode, which rules "
                    "out gradients for good: clone them outside of it, or use torch.no_grad."
                ) from error
            here, there = {tensor.device for tensor in inputs}, _devices(forward_func)
            if there and not here & there:
                raise ValueError(
                    f"The inputs are on {_listed(here)} and the model is on {_listed(there)}: "
                    "move the inputs to the model, as in inputs.to(device)."
                ) from error
            raise


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled code inside as it was written: once compiled, it does not call new hooks.

    Before torch 2.6 there is no switch for that.
    """
    # Nothing can be compiled before this module is loaded, and loading it takes seconds.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return cast("AbstractContextManager[Any]", torch.compiler.set_stance("force_eager"))
    return nullcontext()


def _aliases(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """The same values in tensors of their own, whose flags are nobody else's."""
    if values is None:
        return None
    return tuple(
        value.view_as(value)
        if isinstance(value, Tensor) and value.is_floating_point() and not value.is_sparse
        else value
        for value in values
    )


def _in_order(
    values: dict[torch.device, tuple[Tensor, ...]],
    forward_func: Callable[..., Any],
    layer: Module,
    device_ids: list[int] | None,
) -> tuple[tuple[Tensor, ...], ...]:
    """One tuple of tensors per device, in the order in which the batch was split."""
    ids = _extract_device_ids(forward_func, {layer: values}, device_ids)
    return tuple(tuple(values[device]) for device in _sort_key_list(list(values), ids))


def _reshaped(
    tensors: tuple[Tensor, ...], transform: ReshapeTransform | None
) -> tuple[Tensor, ...]:
    if transform is None:
        return tensors
    return tuple(_checked(transform(tensor), tensor) for tensor in tensors)


def _checked(reshaped: object, tensor: Tensor) -> Tensor:
    if not isinstance(reshaped, Tensor):
        raise TypeError(f"reshape_transform must return a tensor, got a {type(reshaped).__name__}.")
    if reshaped.dim() < 3 or len(reshaped) != len(tensor) or reshaped.numel() > tensor.numel():
        raise ValueError(
            "reshape_transform must rearrange the layer's tensor as (N, C, *spatial); it turned "
            f"{tuple(tensor.shape)} into {tuple(reshaped.shape)}."
        )
    return reshaped


def _devices(forward_func: Callable[..., Any]) -> set[torch.device]:
    if not isinstance(forward_func, Module):
        return set()
    return {parameter.device for parameter in forward_func.parameters()}


def _listed(devices: set[torch.device]) -> str:
    return ", ".join(sorted(map(str, devices)))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
