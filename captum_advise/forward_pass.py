"""One forward pass: a layer's feature maps, the outputs, and gradients of chosen scores.

Everything goes through Captum's own hooks, so a layer means here what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.common import _reduce_list, _select_targets, _sort_key_list
from captum._utils.gradient import _extract_device_ids, _forward_layer_distributed_eval
from captum._utils.typing import TargetType
from torch import Tensor
from torch.nn import Module


@dataclass(frozen=True)
class LayerPass:
    """Outcome of one forward pass with the graph from ``layer`` to the outputs kept alive.

    ``feature_maps`` holds the layer's tensors, ``outputs`` what ``forward_func`` returned.
    """

    feature_maps: tuple[Tensor, ...]
    outputs: Tensor
    _leaves: tuple[tuple[Tensor, ...], ...]

    def gradients(
        self, target: TargetType, *, keep_graph: bool = False, **grad_kwargs: Any
    ) -> tuple[Tensor, ...]:
        """Gradient of each example's score at ``target`` with respect to ``feature_maps``."""
        # The caller may have switched gradients off, and then unbinding would cut the graph.
        with torch.enable_grad():
            scores = _select_targets(self.outputs, target)
            if scores.shape[0] and scores[0].numel() != 1:
                raise ValueError(
                    f"The outputs have shape {tuple(self.outputs.shape)}, so that a target must "
                    "name one score per example: give `target`, or wrap `forward_func` to return "
                    "one."
                )
            if keep_graph:
                grad_kwargs["retain_graph"] = True
            found = torch.autograd.grad(
                torch.unbind(scores),
                [leaf for leaves in self._leaves for leaf in leaves],
                **grad_kwargs,
            )
        width = len(self._leaves[0])
        return tuple(_reduce_list([found[i : i + width] for i in range(0, len(found), width)]))


def run_layer(
    forward_func: Callable[..., Any],
    layer: Module,
    inputs: tuple[Tensor, ...],
    additional_forward_args: Any,
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
) -> LayerPass:
    """Forward pass with gradients enabled from ``layer`` on."""
    with torch.enable_grad():
        saved, outputs = _forward_layer_distributed_eval(
            forward_func,
            inputs,
            layer,
            additional_forward_args=additional_forward_args,
            attribute_to_layer_input=attribute_to_layer_input,
            forward_hook_with_return=True,
            require_layer_grads=True,
        )
    devices = _sort_key_list(
        list(saved[layer].keys()), _extract_device_ids(forward_func, saved, device_ids)
    )
    leaves = tuple(tuple(saved[layer][device]) for device in devices)
    return LayerPass(tuple(_reduce_list(leaves)), outputs, leaves)


@contextmanager
def gradient_flags_kept(tensors: tuple[Tensor, ...]) -> Iterator[None]:
    """Undo what Captum's hook does to inputs that are a layer's inputs as well."""
    flags = [tensor.requires_grad for tensor in tensors]
    try:
        yield
    finally:
        for tensor, flag in zip(tensors, flags, strict=True):
            if tensor.is_leaf and tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
