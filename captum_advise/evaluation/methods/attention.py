"""Attention of vision transformers: its weights, scores and tokens, with their graph.

The weights are those of ``torch.nn.functional.scaled_dot_product_attention``, which timm, Hugging
Face and torchvision call. For one pass it is replaced by the same in steps, in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_advise._utils.locks import lock_of_threads
from captum_advise.layouts import Tokens
from captum_advise.zoo.layer_probe import layout_of

# It replaces a function of torch.
_one_at_a_time = lock_of_threads()


@dataclass
class Attention:
    """Attention of one block, for T tokens of which the patches are the last."""

    scores: Tensor  # (N, heads, T, T) of a query (row) and a key, before softmax
    weights: Tensor  # the same after it
    tokens: Tensor  # (N, T, C) that attention gets, normalised where the network does so
    block: nn.Module  # holds attention and what follows it up to the next block
    output: Tensor = field(init=False)  # (N, T, C), of the block


@dataclass(frozen=True)
class AttentionPass:
    """A forward pass with the attention of all blocks, from the first to the last."""

    model: nn.Module
    inputs: Tensor
    blocks: tuple[Attention, ...]
    outputs: Tensor
    layout: Tokens  # the tokens as a map of patches

    @classmethod
    def run(cls, model: nn.Module, inputs: Tensor) -> AttentionPass:
        """Run the model with gradients.

        Raises:
            ValueError: Its attention cannot be seen, or is not one of all patches to all patches.
        """
        # Without a gradient, torch would take another way than the function that is replaced.
        inputs = inputs.detach().clone().requires_grad_()
        with torch.enable_grad(), _attention_recorded(model) as blocks:
            outputs = model(inputs)
        if not blocks:
            raise ValueError(
                "it needs attention, and the model does not run torch's "
                'scaled_dot_product_attention (of Hugging Face, attn_implementation="sdpa")'
            )
        n_tokens = blocks[0].weights.shape[-1]
        shape = (len(inputs), n_tokens, n_tokens)
        layout = layout_of(torch.empty(1, n_tokens, 1), (inputs.shape[2], inputs.shape[3]))[1]
        alike = all((len(b.weights), *b.weights.shape[2:]) == shape for b in blocks)
        if not (alike and isinstance(layout, Tokens) and layout.size):
            raise ValueError(
                "its formula needs attention of all patches to all patches in every block, and the "
                "model has attention in windows, of a class token alone, or at several resolutions"
            )
        return cls(model, inputs, tuple(blocks), outputs, layout)

    def gradients(self, target: Tensor, of: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Of each image's class score."""
        score = self.outputs.gather(1, target[:, None]).sum()
        return torch.autograd.grad(score, of, retain_graph=True)

    def read(self, last_gradient: Tensor, rows: Tensor) -> Tensor:
        """The mean row (N, T) of (N, T, T), of the tokens from which class scores are computed.

        They are those whose attention in the last block has a gradient: the class token, or all
        patches where the network takes their mean.
        """
        is_read = last_gradient.abs().sum((1, 3)) > 0
        weights = is_read / is_read.sum(1, keepdim=True).clamp(min=1)
        return (weights[:, None].to(rows) @ rows)[:, 0]


@contextmanager
def _attention_recorded(model: nn.Module) -> Iterator[list[Attention]]:
    """Record all attention that the model runs for a while."""
    blocks: list[Attention] = []
    running: list[tuple[nn.Module, Any]] = []
    lists = [m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    parts = {part for one in lists for part in one}
    original = F.scaled_dot_product_attention

    def enter(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        running.append((module, next(iter([*arguments, *options.values()]), None)))

    def leave(module: nn.Module, _arguments: Any, output: Any) -> None:
        running.pop()
        for block in blocks:
            if block.block is module:
                block.output = output[0] if isinstance(output, tuple) else output

    def in_steps(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **options: Any,
    ) -> Tensor:
        if is_causal or dropout_p or options.get("enable_gqa"):
            return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query @ key.transpose(-2, -1) * scale
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1)
        held = [module for module, _ in running if module in parts]
        blocks.append(
            Attention(scores, weights, running[-1][1], held[-1] if held else running[0][0])
        )
        return weights @ value

    switched = [m for m in model.modules() if getattr(m, "fused_attn", None) is False]
    with _one_at_a_time, ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(module.register_forward_pre_hook(enter, with_kwargs=True))
            stack.enter_context(module.register_forward_hook(leave))
        stack.callback(setattr, F, "scaled_dot_product_attention", original)
        F.scaled_dot_product_attention = in_steps  # type: ignore[assignment]
        for module in switched:  # of timm
            stack.callback(setattr, module, "fused_attn", False)
            module.fused_attn = True  # type: ignore[assignment]
        yield blocks
