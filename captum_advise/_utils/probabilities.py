"""From a model's outputs to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# So many numbers in [0, 1] are no accident.
_FEWEST_SCORES = 8


class HasConfidence:
    """A forward function that knows what makes probabilities of its outputs: ``confidence``."""

    confidence: Callable[[Tensor], Tensor]


def softmax_over_classes(outputs: Tensor) -> Tensor:
    """Class scores (N, K, ...) to probabilities.

    Raises:
        ValueError: There is a single output per example, which softmax would turn into one.
    """
    if outputs.dim() < 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"The outputs have shape {tuple(outputs.shape)}, a single number per example: pass "
            "`confidence`, a function that turns them into probabilities (torch.sigmoid, say)."
        )
    return outputs.softmax(1)


def default_confidence(forward_func: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """What makes probabilities of a model's outputs where the caller does not say it.

    A wrapper of :mod:`captum_advise.targets` has its own. A model of Hugging Face for independent
    labels needs a sigmoid. Else it is softmax.
    """
    model = getattr(forward_func, "_orig_mod", forward_func)  # of torch.compile
    if isinstance(model, HasConfidence):
        return model.confidence
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    return torch.sigmoid if problem == "multi_label_classification" else softmax_over_classes


def suspicious_confidence(outputs: Tensor, confidence: Callable[[Tensor], Tensor]) -> str | None:
    """Outputs (N, K, ...) that are probabilities already, or scores in [0, 1], under softmax."""
    if confidence is not softmax_over_classes or outputs.dim() < 2 or outputs.shape[1] < 2:
        return None
    sums_to_one = (outputs.sum(1) - 1).abs() <= 16 * torch.finfo(outputs.dtype).eps
    if bool((outputs >= 0).all() & sums_to_one.all()):
        return (
            "The outputs are probabilities already (they sum to 1 over dimension 1), and the "
            "default `confidence` applies softmax to them again: pass "
            "confidence=torch.nn.Identity()."
        )
    if outputs.numel() >= _FEWEST_SCORES and bool(((outputs >= 0) & (outputs <= 1)).all()):
        return (
            "All outputs lie in [0, 1], and the default `confidence` applies softmax to them: pass "
            "confidence=torch.nn.Identity() if they are probabilities of independent labels, or "
            "confidence=lambda outputs: outputs.softmax(1) if softmax is right."
        )
    return None
