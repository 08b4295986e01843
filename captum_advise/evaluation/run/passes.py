"""Forward passes: those of the metrics, in batches of one size; and how many a map takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def fixed_size_batches(
    forward_func: Callable[[Tensor], Tensor], batch_size: int
) -> Callable[[Tensor], Tensor]:
    """A function that pads every batch (N, C, H, W), N up to ``batch_size``, to this size.

    Libraries choose the order of sums by the shape of a batch. In batches of one shape, the outputs
    for an image do not depend on the number of images with it.
    """

    def forward(inputs: Tensor) -> Tensor:
        if len(inputs) == batch_size:
            return forward_func(inputs)
        padding = inputs[-1:].expand(batch_size - len(inputs), *inputs.shape[1:])
        return forward_func(torch.cat([inputs, padding]))[: len(inputs)]

    return forward


@dataclass
class Passes:
    """A count of images, and how deep the current call is in others."""

    count: int = 0
    depth: int = 0


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[Passes]:
    """Count forward passes: the images that go through the model, whatever the batch size.

    A compiled model is two modules, of which one calls the other. Methods that need hooks call the
    inner one, which runs as it was written. Either way a pass counts once.
    """
    passes = Passes()

    def enter(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not torch.compiler.is_compiling():
            passes.count += len(arguments[0]) if passes.depth == 0 else 0
            passes.depth += 1

    def leave(*_: Any) -> None:
        if not torch.compiler.is_compiling():
            passes.depth -= 1

    with ExitStack() as hooks:
        for module in {model, getattr(model, "_orig_mod", model)}:
            hooks.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield passes
