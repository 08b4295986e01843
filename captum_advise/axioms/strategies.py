"""Hypothesis strategies: networks, inputs and valid targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from hypothesis import strategies as st
from torch import Tensor

from captum_advise.axioms.networks import Activation, Head, Layer, NetworkSpec, Pooling

_SEEDS = st.integers(0, 2**31 - 1)
_CHOICES: dict[str, Sequence[Any]] = {
    "spatial_dims": (1, 2, 3),
    "channels": (1, 2, 3),
    "units": (2, 4, 6, 8),
    "kernel": (1, 3),
    "stride": (1, 2),
    "bias": (False, True),
    "batch_norm": (False, True),
    "activation": get_args(Activation),
    "pooling": get_args(Pooling),
    "head": get_args(Head),
    "classes": (2, 3, 7),
    "layer": get_args(Layer),
}
# Fewer than 50 locations: the cost of a density grows with the square of their number.
_SIZES = {1: (3, 10), 2: (3, 6), 3: (3, 3)}


@dataclass(frozen=True)
class Case:
    """One example of an axiom. Equal cases give bitwise equal networks and inputs.

    Attributes:
        spec: The network.
        targets: One class per example.
        input_seed: Seed of the inputs.
        rewrite_seed: Seed of everything else that the axiom draws at random.

    Example::

        >>> case = Case(NetworkSpec(), targets=(0, 2))
        >>> case.inputs.shape, case.target
        (torch.Size([2, 3, 6, 6]), tensor([0, 2]))
    """

    spec: NetworkSpec
    targets: tuple[int, ...]
    input_seed: int = 0
    rewrite_seed: int = 0

    @property
    def inputs(self) -> Tensor:
        r"""float64 (N, channels, \*spatial) in [0, 1)."""
        return self.spec.inputs(len(self.targets), self.input_seed)

    @property
    def target(self) -> Tensor:
        """int64 (N,)."""
        return torch.tensor(self.targets)


@st.composite
def network_specs(draw: st.DrawFn, /, **allowed: Sequence[Any]) -> NetworkSpec:
    """Small convolutional networks of every kind that the arguments allow.

    Convolutions in one to three dimensions, strides, batch norm in eval mode, piecewise linear and
    smooth activations, maximum and average pooling, three kinds of head. Networks have 2 to 8 units
    and maps of at most 10 locations per edge. Parameters come from a seed, so that Hypothesis does
    not shrink them to zeros or equal numbers, which real networks do not have.
    ``allowed`` are values of attributes of :class:`NetworkSpec`, the simplest first.
    """
    drawn: dict[str, Any] = {}
    for name, values in {**_CHOICES, **allowed}.items():
        if name == "layer" and not drawn["batch_norm"]:
            values = [value for value in values if value != "norm"]
        drawn[name] = draw(st.sampled_from(values))
    size = draw(st.integers(*_SIZES[drawn["spatial_dims"]]))
    return NetworkSpec(seed=draw(_SEEDS), size=size, **drawn)


@st.composite
def cases(draw: st.DrawFn, /, examples: tuple[int, int] = (1, 3), **allowed: Sequence[Any]) -> Case:
    """A network with inputs and valid targets, as many as ``examples`` say, at least and at most.

    ``allowed`` is as in :func:`network_specs`.
    """
    spec = draw(network_specs(**allowed))
    classes = st.integers(0, spec.classes - 1)
    targets = draw(st.lists(classes, min_size=examples[0], max_size=examples[1]))
    return Case(spec, tuple(targets), draw(_SEEDS), draw(_SEEDS))
