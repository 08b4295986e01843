"""From a model's outputs to probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Fewer numbers may lie in [0, 1] by chance.
_FEWEST_SCORES = 5


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


def target_confidence(confidences: Tensor, target: Tensor) -> Tensor:
    """The confidence (N,) in the target (N,), from that in all classes (N, K)."""
    return confidences.gather(1, target[:, None]).squeeze(1)


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


def are_probabilities(confidences: Tensor) -> Tensor:
    """Bool, whether all values are in [0, 1]."""
    # Rounding in half precision may leave the interval.
    return ((confidences >= -1e-2) & (confidences <= 1 + 1e-2)).all()


def check_probabilities(probable: Tensor) -> None:
    """Require confidences that are probabilities, bool."""
    if not bool(probable.all()):
        raise ValueError(
            "confidence must return probabilities, and some are NaN or outside [0, 1]: pass the "
            "function that turns the model's outputs into probabilities (softmax over dimension 1 "
            "by default, torch.sigmoid for independent logits), and check that the outputs are "
            "finite."
        )


def check_confidences(*confidences: Tensor) -> None:
    """Require probabilities as arguments."""
    if not all(bool(are_probabilities(values)) for values in confidences):
        raise ValueError(
            "Some confidences are NaN or outside [0, 1]: pass probabilities, "
            "as in outputs.softmax(1), instead of the model's scores."
        )


def score_traits(outputs: Tensor) -> Tensor:
    """Bool (2,), whether outputs (N, K, ...) are probabilities, and whether they lie in [0, 1]."""
    sums = outputs.sum(1) if outputs.dim() > 1 else outputs
    sums_to_one = (sums - 1).abs() <= 16 * torch.finfo(outputs.dtype).eps
    lowest = (outputs >= 0).all()
    return torch.stack([lowest & sums_to_one.all(), lowest & (outputs <= 1).all()])


def suspicious_confidence(
    outputs: Tensor, confidence: Callable[[Tensor], Tensor], traits: Tensor | None = None
) -> str | None:
    """Outputs (N, K, ...) that are probabilities already, or scores in [0, 1], under softmax.

    ``traits`` are their :func:`score_traits`, where these are known. Few scores are only suspicious
    where their graph ends in a sigmoid.
    """
    if confidence is not softmax_over_classes or outputs.dim() < 2 or outputs.shape[1] < 2:
        return None
    sum_to_one, are_shares = (score_traits(outputs) if traits is None else traits).tolist()
    if sum_to_one:
        return (
            "The outputs are probabilities already (they sum to 1 over dimension 1), and the "
            "default `confidence` applies softmax to them again: pass "
            "confidence=torch.nn.Identity()."
        )
    is_sigmoid = type(outputs.grad_fn).__name__.startswith("Sigmoid")
    if are_shares and (is_sigmoid or outputs.numel() >= _FEWEST_SCORES):
        return (
            "All outputs lie in [0, 1], and the default `confidence` applies softmax to them: pass "
            "confidence=torch.nn.Identity() if they are probabilities of independent labels, or "
            "confidence=lambda outputs: outputs.softmax(1) if softmax is right."
        )
    return None
