"""Arguments of the wrong kind, said in one sentence."""

from __future__ import annotations

import torch
from torch import Tensor


def check_real(**tensors: object) -> None:
    """Every argument is a tensor of real numbers.

    Raises:
        TypeError: One is not; the message has its name.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.is_complex():
            raise TypeError(f"{name} must be a real tensor, got {kind(value)}.")


def check_same_shape(**tensors: Tensor) -> None:
    """All arguments, tensors, have one shape.

    Raises:
        ValueError: They have not.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        got = " and ".join(str(tuple(tensor.shape)) for tensor in tensors.values())
        raise ValueError(f"{' and '.join(tensors)} must have the same shape, got {got}.")


def check_classes(confidences: Tensor, target: Tensor) -> None:
    """``target`` (N,) holds int64 columns of ``confidences`` (N, K).

    Raises:
        TypeError: They are no such tensors.
        ValueError: Their shapes do not fit, or a class is out of range.
    """
    check_real(confidences=confidences, target=target)
    if target.dtype != torch.int64:
        raise TypeError(f"target must be of torch.int64, got {target.dtype}.")
    if confidences.dim() != 2 or target.shape != confidences.shape[:1]:
        raise ValueError(
            "confidences must be (N, K) and target (N,), got "
            f"{tuple(confidences.shape)} and {tuple(target.shape)}."
        )
    if not bool(((target >= 0) & (target < confidences.shape[1])).all()):
        raise ValueError(f"target must be classes from 0 to {confidences.shape[1] - 1}.")


def kind(value: object) -> str:
    """What something is, for a message."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
