"""Forward passes of the metrics, in batches of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


def fixed_size_batches(
    forward_func: Callable[[Tensor], Tensor], batch_size: int
) -> Callable[[Tensor], Tensor]:
    """A function that pads every batch (N, C, H, W), N up to ``batch_size``, to this size.

    Libraries choose the order of sums by the shape of a batch. In batches of one shape, the outputs
    for an image do not depend on the number of images with it. A compiled model needs only one
    shape then.
    """

    def forward(inputs: Tensor) -> Tensor:
        if len(inputs) == batch_size:
            return forward_func(inputs)
        padding = inputs[-1:].expand(batch_size - len(inputs), *inputs.shape[1:])
        return forward_func(torch.cat([inputs, padding]))[: len(inputs)]

    return forward


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, compiled for passes without gradients on one shape of batches."""
    run = torch.compile(model, dynamic=False, options={"freezing": True})

    def forward(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, run(inputs))

    return forward


def in_bfloat16(forward_func: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function under autocast to bfloat16, with single-precision outputs."""

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return forward_func(inputs).float()

    return forward
