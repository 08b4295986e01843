"""Forward passes of changed images: the confidence in each one's target."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from captum_advise._utils.checks import check_class_range
from captum_advise.metrics.confidence import target_confidence


def target_confidences(
    forward_func: Callable[[Tensor], Tensor],
    confidence: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    target: Tensor,
) -> Tensor:
    """The confidence (P,) in the target of all images in all batches.

    Args:
        forward_func: (B, C, H, W) inputs to class scores (B, K).
        confidence: Class scores to probabilities.
        batches: Images (B, C, H, W), and the number of the example (B,) that each shows.
        target: int64 (N,) the classes of the examples.

    Raises:
        ValueError: A class is out of range.
    """
    found: list[Tensor] = []
    for images, example in batches:
        confidences = confidence(forward_func(images))
        if not found:  # once: a GPU waits for the answer
            check_class_range(target, confidences.shape[1])
            target = target.to(confidences.device)
        found.append(target_confidence(confidences, target[example]))
    return torch.cat(found)
