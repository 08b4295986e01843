"""Forward passes of changed images: the confidence in each one's target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from captum_advise._utils.checks import check_class_range, check_count, check_outputs
from captum_advise._utils.errors import warn_caller
from captum_advise._utils.probabilities import (
    default_confidence,
    suspicious_confidence,
    target_confidence,
)
from captum_advise._utils.randomness import RANDOM_OUTPUTS, random_states, unsteady


def target_confidences(
    forward_func: Callable[[Tensor], Tensor],
    confidence: Callable[[Tensor], Tensor] | None,
    images: Iterable[Tensor],
    examples: Tensor,
    target: Tensor,
    internal_batch_size: int,
) -> Tensor:
    """The confidence (P,) in the target of images (P, C, H, W), which come in parts of any size.

    ``examples`` (P,) are the numbers of the examples that the images show, ``target`` (N,) is that
    of the examples.
    """
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    if not len(examples):
        return examples.new_zeros(0, dtype=torch.float32)
    if unsteadiness := unsteady(forward_func):
        warn_caller(unsteadiness)
    convert = default_confidence(forward_func) if confidence is None else confidence
    found: list[Tensor] = []
    batches = zip(
        _rebatched(images, internal_batch_size),
        torch.split(examples, internal_batch_size),
        strict=True,
    )
    for batch, example in batches:
        states = [] if found else random_states([batch])
        outputs = forward_func(batch)
        check_outputs(outputs)
        confidences = convert(outputs)
        if not found:  # once: a GPU waits for the answers
            first, draws = (batch, outputs), random_states([batch]) != states
            if confidence is None and (message := suspicious_confidence(outputs, convert)):
                warn_caller(message)
            check_class_range(target, confidences.shape[1])
            target = target.to(confidences.device)
        found.append(target_confidence(confidences, target[example]))
    # Last, so that it changes no number of the passes before.
    if draws and not unsteadiness and not torch.equal(forward_func(first[0]), first[1]):
        warn_caller(RANDOM_OUTPUTS)
    return torch.cat(found)


def _rebatched(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows in batches of one size; the last may be smaller."""
    waiting = None
    for part in parts:
        waiting = part if waiting is None else torch.cat([waiting, part])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield waiting
