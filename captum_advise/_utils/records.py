"""Dataclasses of tensors: copies on another device, and plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from typing_extensions import Self


class TensorRecord:
    """Mixin of a frozen dataclass of tensors, other records, and tuples or dicts of these."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on another device."""
        moved: Self = mapped(self, lambda tensor: tensor.to(device))
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists under the names of the attributes."""
        numbers: dict[str, Any] = plain(self, lambda tensor, _: tensor.tolist())
        return numbers


def _items(record: Any) -> list[tuple[str, Any]]:
    instance: DataclassInstance = record
    return [(field.name, getattr(instance, field.name)) for field in fields(instance)]


def mapped(value: Any, of_tensor: Callable[[Tensor], Tensor]) -> Any:
    """The same with what is made of each tensor in its place."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, TensorRecord):
        parts = {name: mapped(part, of_tensor) for name, part in _items(value)}
        return replace(value, **parts)  # type: ignore[type-var]
    if isinstance(value, tuple):
        return tuple(mapped(part, of_tensor) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, of_tensor) for key, part in value.items()}
    return value


def plain(value: Any, of_tensor: Callable[[Tensor, str], Any], name: str = "") -> Any:
    """Dicts and lists in place of records, dicts and tuples, and what is made of their tensors.

    ``of_tensor`` takes a tensor and its name: its path, as in ``metrics.avx``.
    """
    if isinstance(value, Tensor):
        return of_tensor(value, name)
    if is_dataclass(value) and not isinstance(value, type):
        value = dict(_items(value))
    prefix = f"{name}." if name else ""
    if isinstance(value, dict):
        return {key: plain(part, of_tensor, f"{prefix}{key}") for key, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part, of_tensor, f"{prefix}{index}") for index, part in enumerate(value)]
    return value
