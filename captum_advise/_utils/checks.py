"""Checks of arguments. Each raises a TypeError or ValueError of one sentence."""

from __future__ import annotations

import torch
from torch import Tensor


def check_real(**tensors: object) -> None:
    """Require that every argument is a tensor of real numbers."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.is_complex():
            raise TypeError(f"{name} must be a real tensor, got {kind(value)}.")


def check_same_shape(**tensors: Tensor) -> None:
    """Require that all tensors have the same shape."""
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        got = " and ".join(str(tuple(tensor.shape)) for tensor in tensors.values())
        raise ValueError(f"{' and '.join(tensors)} must have the same shape, got {got}.")


def check_outputs(outputs: object) -> None:
    """Require that a model returned numbers, one row per example."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"forward_func returned a {type(outputs).__name__}, not a tensor: wrap it in a "
            'function that picks the tensor, as in `lambda inputs: model(inputs)["logits"]`.'
        )
    if not outputs.is_floating_point() or outputs.dim() == 0:
        raise TypeError(
            "forward_func must return real numbers, one row per example, got "
            f"{outputs.dtype} of shape {tuple(outputs.shape)}."
        )


def check_classes(confidences: Tensor, target: Tensor) -> None:
    """Require that ``target`` (N,) holds int64 columns of ``confidences`` (N, K)."""
    check_real(confidences=confidences)
    check_int64(target)
    if confidences.dim() != 2 or target.shape != confidences.shape[:1]:
        raise ValueError(
            "confidences must be (N, K) and target (N,), got "
            f"{tuple(confidences.shape)} and {tuple(target.shape)}."
        )
    check_class_range(target, confidences.shape[1])


def check_int64(target: object) -> None:
    """Require a tensor of classes."""
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"target must be a tensor of torch.int64, got {kind(target)}.")


def check_class_range(target: Tensor, n_classes: int) -> None:
    """Require classes from 0 up and below ``n_classes``."""
    if not bool(((target >= 0) & (target < n_classes)).all()):
        raise ValueError(f"target must be classes from 0 to {n_classes - 1}.")


def check_count(name: str, value: object, *, at_least: int) -> None:
    """Require an int of at least ``at_least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}.")


def check_share(name: str, value: object) -> None:
    """Require a number from 0 up and below 1."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}.")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value}.")


def kind(value: object) -> str:
    """The type of a value, for a message."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
