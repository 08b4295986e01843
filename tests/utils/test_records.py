"""The mixin of dataclasses with tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_advise._utils.records import TensorRecord


@dataclass(frozen=True)
class Inner(TensorRecord):
    values: Tensor
    name: str


@dataclass(frozen=True)
class Outer(TensorRecord):
    inner: Inner
    nothing: Tensor | None
    several: tuple[tuple[Inner, ...], ...]
    number: int


def record():
    inner = Inner(torch.tensor([1.0, 2.0]), "one")
    return Outer(inner, None, ((inner,), ()), 3)


def test_to_moves_what_is_nested():
    moved = record().to("meta")
    assert moved.inner.values.is_meta
    assert moved.several[0][0].values.is_meta
    assert (moved.nothing, moved.number, moved.inner.name) == (None, 3, "one")


def test_to_dict_is_plain():
    inner = {"values": [1.0, 2.0], "name": "one"}
    assert record().to_dict() == {
        "inner": inner,
        "nothing": None,
        "several": [[inner], []],
        "number": 3,
    }
