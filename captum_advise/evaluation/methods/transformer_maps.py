"""Maps of vision transformers from attention: its weights, their gradients, and its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.attention import AttentionPass
from captum_advise.evaluation.methods.interface import Context


def of_attention(formula: Callable[[AttentionPass, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A method from a formula: a pass and the classes to relevances (N, T) of all tokens."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        run = AttentionPass.run(model, inputs)
        return run.layout(formula(run, target)[..., None]).detach()

    return method


def attention_rollout(run: AttentionPass, target: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema, ACL 2020). It does not depend on the class.

    The product over blocks of half the mean attention of the heads and half the identity.
    """
    (last_gradient,) = run.gradients(target, [run.blocks[-1].weights])
    rollout = identity = torch.eye(last_gradient.shape[-1]).to(last_gradient)
    for block in run.blocks:
        rollout = (block.weights.mean(1) + identity) / 2 @ rollout
    return run.read(last_gradient, rollout)


def generic_attention(run: AttentionPass, target: Tensor) -> Tensor:
    """Attention times its gradient over all blocks (Chefer, Gur and Wolf, ICCV 2021).

    R = I, then R + mean over heads of (gradient x attention, if positive) R, from block to block.
    """
    gradients = run.gradients(target, [block.weights for block in run.blocks])
    relevance = torch.eye(gradients[-1].shape[-1]).to(gradients[-1])
    for block, gradient in zip(run.blocks, gradients, strict=True):
        relevance = relevance + (gradient * block.weights).relu().mean(1) @ relevance
    return run.read(gradients[-1], relevance)


def attention_guided_cam(run: AttentionPass, target: Tensor) -> Tensor:
    """Attention-guided CAM (Leem and Seo, AAAI 2024), https://arxiv.org/abs/2402.04563.

    The sum over blocks and heads of the sigmoid of attention's scores times the positive gradient
    of its weights.
    """
    gradients = run.gradients(target, [block.weights for block in run.blocks])
    pairs = zip(run.blocks, gradients, strict=True)
    rows = sum((block.scores.sigmoid() * gradient.relu()).sum(1) for block, gradient in pairs)
    assert isinstance(rows, Tensor)
    return run.read(gradients[-1], rows)


def cdam(run: AttentionPass, target: Tensor) -> Tensor:
    """CDAM (Brocki, Binda and Chung 2024), https://arxiv.org/abs/2312.02364.

    Gradient times token, summed over its components, of what enters the last attention.
    """
    tokens = run.blocks[-1].tokens
    (gradients,) = run.gradients(target, [tokens])
    return (gradients * tokens).sum(2)


def legrad(run: AttentionPass, target: Tensor) -> Tensor:
    """LeGrad (Bousselham et al., ICCV 2025), https://arxiv.org/abs/2404.03214.

    A block's score is the class score of the mean of its tokens, by the network's last norm and
    head. The map is the sum over blocks of the positive gradient of this score with respect to the
    block's attention, averaged over heads and queries.
    """
    last = run.blocks[-1].block
    means = [block.output.mean(1, keepdim=True) for block in run.blocks]
    n_tokens = run.blocks[-1].weights.shape[-1]

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tokens = torch.cat(means).expand(-1, n_tokens, -1)
        return (tokens, *output[1:]) if isinstance(output, tuple) else tokens

    # What follows the last block gives the class scores of all means, in one pass.
    with torch.enable_grad(), last.register_forward_hook(replace):
        outputs = run.model(run.inputs.detach().repeat(len(means), 1, 1, 1))
    scores = outputs.gather(1, target.repeat(len(means))[:, None]).split(len(target))
    relevance = torch.zeros(len(target), n_tokens).to(outputs)
    for block, score in zip(run.blocks, scores, strict=True):
        (gradient,) = torch.autograd.grad(score.sum(), block.weights, retain_graph=True)
        relevance += gradient.relu().mean((1, 2))
    return relevance
