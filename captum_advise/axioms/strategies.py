"""Hypothesis strategies: networks, inputs, valid targets, and equivalent pairs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from hypothesis import strategies as st
from torch import Tensor

from captum_advise.axioms.equivalence import REWRITES, EquivalentPair
from captum_advise.axioms.networks import Activation, Head, Layer, NetworkSpec, Pooling

_SEEDS = st.integers(0, 2**31 - 1)
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
def network_specs(
    draw: st.DrawFn,
    *,
    spatial_dims: Collection[int] = (1, 2, 3),
    channels: Collection[int] = (1, 2, 3),
    activations: Collection[Activation] = get_args(Activation),
    heads: Collection[Head] = get_args(Head),
    layers: Sequence[Layer] = get_args(Layer),
    batch_norm: bool | None = None,
) -> NetworkSpec:
    """Small convolutional networks of every kind that the arguments allow.

    Convolutions in one to three dimensions, strides, groups, batch norm in eval mode, piecewise
    linear and smooth activations, maximum and average pooling, five kinds of head. Networks have
    2 to 8 units and maps of at most 10 locations per edge. Parameters come from a seed, so that
    Hypothesis does not shrink them to zeros or equal numbers, which real networks do not have.

    Args:
        spatial_dims: Allowed numbers of spatial dimensions.
        channels: Allowed numbers of input channels.
        activations: Allowed activation functions.
        heads: Allowed heads.
        layers: Allowed explained layers.
        batch_norm: With, without, or (None) either.

    Example::

        >>> from captum_advise.axioms import SmallNetwork
        >>> from hypothesis import given
        >>> @given(network_specs(spatial_dims=(2,), heads=("pooled",)))
        ... def test_class_scores(spec):
        ...     class_scores = SmallNetwork(spec)(spec.inputs(2, seed=0))
        ...     assert class_scores.shape == (2, spec.classes)
        >>> test_class_scores()
    """
    dims = draw(st.sampled_from(sorted(spatial_dims)))
    groups = draw(st.sampled_from((1, 2)))
    normed = draw(st.booleans()) if batch_norm is None else batch_norm
    return NetworkSpec(
        seed=draw(_SEEDS),
        spatial_dims=dims,
        channels=draw(st.sampled_from(sorted(channels))),
        size=draw(st.integers(*_SIZES[dims])),
        units=2 * draw(st.integers(1, 4)),
        kernel=draw(st.sampled_from((1, 3))),
        stride=draw(st.sampled_from((1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
        batch_norm=normed,
        activation=draw(st.sampled_from([a for a in get_args(Activation) if a in activations])),
        pooling=draw(st.sampled_from(get_args(Pooling))),
        head=draw(st.sampled_from([head for head in get_args(Head) if head in heads])),
        classes=draw(st.sampled_from((2, 3, 7))),
        layer=draw(
            st.sampled_from(
                [name for name in get_args(Layer) if name in layers and (normed or name != "norm")]
            )
        ),
    )


@st.composite
def cases(
    draw: st.DrawFn,
    specs: st.SearchStrategy[NetworkSpec] = network_specs(),  # noqa: B008 - immutable
    *,
    examples: tuple[int, int] = (1, 3),
) -> Case:
    """A network with inputs and valid targets.

    Args:
        specs: Strategy for networks.
        examples: Smallest and largest number of examples.

    Example::

        >>> from hypothesis import given
        >>> @given(cases(examples=(2, 2)))
        ... def test_shapes(case):
        ...     assert len(case.inputs) == len(case.target) == 2
        >>> test_shapes()
    """
    spec = draw(specs)
    classes = st.integers(0, spec.classes - 1)
    targets = draw(st.lists(classes, min_size=examples[0], max_size=examples[1]))
    return Case(spec, tuple(targets), draw(_SEEDS), draw(_SEEDS))


def rewritable_specs(
    rewrite: str,
    *,
    spatial_dims: Collection[int] = (1, 2, 3),
    channels: Collection[int] = (1, 2, 3),
) -> st.SearchStrategy[NetworkSpec]:
    """Networks to which a rewrite, one of :data:`REWRITES`, can be applied.

    Raises:
        ValueError: There is no such rewrite.
    """
    if rewrite not in REWRITES:
        raise ValueError(
            f"There is no rewrite {rewrite!r}: the rewrites are {', '.join(REWRITES)}."
        )
    if rewrite == "rescaled_units":
        return network_specs(
            spatial_dims=spatial_dims,
            channels=channels,
            activations=("relu", "leaky_relu", "none"),
        )
    if rewrite == "folded_batch_norm":
        return network_specs(
            spatial_dims=spatial_dims,
            channels=channels,
            batch_norm=True,
            layers=("norm", "activation"),
        )
    return network_specs(spatial_dims=spatial_dims, channels=channels)


@st.composite
def equivalent_pairs(
    draw: st.DrawFn,
    rewrite: str | None = None,
    *,
    spatial_dims: Collection[int] = (1, 2, 3),
    channels: Collection[int] = (1, 2, 3),
) -> EquivalentPair:
    """Two networks that compute the same function, by one rewrite or any.

    Args:
        rewrite: One of :data:`REWRITES`; None for any.
        spatial_dims: Allowed numbers of spatial dimensions.
        channels: Allowed numbers of input channels.

    Example::

        >>> from hypothesis import given
        >>> @given(equivalent_pairs("folded_batch_norm"))
        ... def test_equal_outputs(pair):
        ...     inputs = pair.spec.inputs(2, seed=0)
        ...     torch.testing.assert_close(pair.original(inputs), pair.rewritten(inputs))
        >>> test_equal_outputs()
    """
    name = draw(st.sampled_from(list(REWRITES))) if rewrite is None else rewrite
    spec = draw(rewritable_specs(name, spatial_dims=spatial_dims, channels=channels))
    return REWRITES[name](spec, draw(_SEEDS))


def one_unit_specs(
    *, spatial_dims: Collection[int], channels: Collection[int], head: Head
) -> st.SearchStrategy[NetworkSpec]:
    """Networks whose layer can be zero except for one unit, with zero maps for zero inputs."""
    return network_specs(
        spatial_dims=spatial_dims,
        channels=channels,
        activations=("relu", "leaky_relu", "tanh", "gelu", "none"),
        heads=(head,),
        layers=("activation",),
        batch_norm=False,
    ).map(lambda spec: replace(spec, bias=False, pooling="none", stride=1))
