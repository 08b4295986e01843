"""Dataclasses of tensors: copies on another device, and plain values."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
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
        moved: Self = _moved(self, torch.device(device))
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists under the names of the attributes."""
        return {name: _plain(value) for name, value in _items(self)}


def _items(record: Any) -> list[tuple[str, Any]]:
    instance: DataclassInstance = record
    return [(field.name, getattr(instance, field.name)) for field in fields(instance)]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, TensorRecord):
        moved = {name: _moved(part, device) for name, part in _items(value)}
        return replace(value, **moved)  # type: ignore[type-var]
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, TensorRecord):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
