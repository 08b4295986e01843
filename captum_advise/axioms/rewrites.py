"""Pairs of networks that compute the same function, and how their layers correspond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from captum_advise.axioms.checks import claim_of
from captum_advise.axioms.networks import Convolution, NetworkSpec, SmallNetwork, generator

Exactness = Literal["bitwise", "rounding"]


@dataclass(frozen=True)
class EquivalentPair:
    """Two networks with equal outputs on all inputs, and the map between their layers.

    Attributes:
        original: A network.
        rewritten: Another network that computes the same function of the inputs. Its ``layer`` has
            the same feature maps as that of ``original``, up to ``unit_map``.
        unit_map: For each unit of the rewritten layer, the unit of the original layer whose
            activations it has up to a positive factor. None for an added unit, on which the
            outputs do not depend.

    Example::

        >>> pair = REWRITES["permuted_units"](NetworkSpec(units=4), 0)
        >>> sorted(pair.unit_map)
        [0, 1, 2, 3]
    """

    original: SmallNetwork = field(repr=False)
    rewritten: SmallNetwork = field(repr=False)
    unit_map: tuple[int | None, ...]


_Build = Callable[[NetworkSpec, torch.Generator], EquivalentPair]


@dataclass(frozen=True)
class Rewrite:
    """A way to write a network differently that leaves its function as it is.

    Attributes:
        name: The name in :data:`REWRITES`, and of the axiom.
        claim: What is done, in a few words: the first line of the docstring of ``build``.
        exactness: ``"bitwise"`` if both networks compute the same floating-point numbers (up to
            the powers of two by which a unit was rescaled). ``"rounding"`` if they compute the
            same real numbers, with different rounding.
        reason: The reason for the exactness.
        needs: The networks that can be rewritten: by attribute of :class:`NetworkSpec`, the values
            that it may have.
        build: Makes the rewritten network; the generator is for what it draws at random.

    Example::

        >>> REWRITES["split_head"].reason
        'a product of two matrices is rounded at another step'
    """

    name: str
    claim: str
    exactness: Exactness
    reason: str
    needs: Mapping[str, tuple[Any, ...]]
    build: _Build = field(repr=False)

    def __call__(self, spec: NetworkSpec, seed: int) -> EquivalentPair:
        """Rewrite a network.

        Raises:
            ValueError: The network is not as :attr:`needs` says.
        """
        for name, values in self.needs.items():
            value = getattr(spec, name)
            if value not in values:
                raise ValueError(
                    f"{self.name} cannot rewrite a network with {name}={value!r}: it must be "
                    f"{' or '.join(map(repr, values))}."
                )
        return self.build(spec, generator(seed))


REWRITES: dict[str, Rewrite] = {}
"""All rewrites by name, in the order of the tables."""


def _rewrite(
    exactness: Exactness, reason: str, **needs: tuple[Any, ...]
) -> Callable[[_Build], _Build]:
    def register(build: _Build) -> _Build:
        name, claim = build.__name__, claim_of(build)
        claim = claim[:1].lower() + claim[1:]
        REWRITES[name] = Rewrite(name, claim, exactness, reason, needs, build)
        return build

    return register


@_rewrite("rounding", "the head adds the units in another order")
def permuted_units(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """Units in another order."""
    return _reordered(spec, torch.randperm(spec.units, generator=source).tolist())


@_rewrite("rounding", "zeros among the terms of a sum change the order of its evaluation")
def dead_units(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Units added that nothing reads."""
    return _reordered(spec, [*range(spec.units), None])


@_rewrite(
    "bitwise",
    "a power of two only shifts exponents",
    activation=("relu", "leaky_relu", "none"),  # f(s x) = s f(x) for s > 0
)
def rescaled_units(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """Units rescaled, and scaled back after the layer."""
    factors = torch.exp2(torch.randint(-4, 5, (spec.units,), generator=source, dtype=torch.float64))
    network = SmallNetwork(spec)
    with torch.no_grad():
        if spec.batch_norm and spec.layer == "convolution":
            # The batch norm reads the units, and takes the factor away.
            _scale_rows(network.convolution, factors)
            values = network.norm.state_dict()
            values["running_mean"].mul_(factors)
            values["weight"].div_(factors)
        else:
            _scale_rows(network.norm if spec.batch_norm else network.convolution, factors)
            network.outgoing().div_(factors[:, None])
    return _pair(network)


@_rewrite("rounding", "a product of two matrices is rounded at another step")
def split_head(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """The last linear map as a product of two."""
    network = SmallNetwork(spec)
    last = network.last
    left, right = torch.linalg.qr(last.weight.detach())
    with torch.random.fork_rng(devices=[]):
        first = nn.Linear(last.in_features, len(right), bias=False)
        second = nn.Linear(len(right), spec.classes)
    first.weight.data, second.weight.data, second.bias.data = right, left, last.bias.data
    network.head[-1] = nn.Sequential(first, second)
    return _pair(network)


@_rewrite("bitwise", "x * 1 + y * 0 is x")
def inserted_identity(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Identity layers inserted."""
    network = SmallNetwork(spec)
    convolution = network.convolution
    network.stem.append(_identity_convolution(convolution, convolution.in_channels))
    network.head.insert(0, _identity_convolution(convolution, spec.units))
    return _pair(network)


@_rewrite(
    "rounding",
    "the factors of a product are rounded before they are multiplied",
    batch_norm=(True,),
    layer=("norm", "activation"),
)
def folded_batch_norm(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Batch norm folded into the convolution."""
    network = SmallNetwork(spec)
    network.convolution = fuse_conv_bn_eval(network.convolution, cast(nn.BatchNorm2d, network.norm))
    network.norm = nn.Identity()
    return _pair(network)


class _Function(nn.Module):
    """A function, which tells nothing of the module from which it comes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


@_rewrite("bitwise", "the same functions are called")
def functional_form(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Activations and pooling written as functions, not as modules."""
    network = SmallNetwork(spec)
    for parent in (network, network.stem, network.head):
        for name, child in parent.named_children():
            if not child.state_dict():
                setattr(parent, name, _Function(child.forward))
    return _pair(network)


def _pair(network: SmallNetwork) -> EquivalentPair:
    """The network and the one from which it was rewritten, with the same units."""
    return EquivalentPair(SmallNetwork(network.spec), network, tuple(range(network.spec.units)))


@torch.no_grad()
def _reordered(spec: NetworkSpec, order: Sequence[int | None]) -> EquivalentPair:
    """The units in another order; None is a new unit that nothing reads."""
    original, network = SmallNetwork(spec), SmallNetwork(replace(spec, units=len(order)))
    new = [position for position, unit in enumerate(order) if unit is not None]
    old = [unit for unit in order if unit is not None]
    originals = original.state_dict()
    for name, values in network.state_dict().items():
        if name.startswith(("convolution", "norm")) and values.dim():
            values[new] = originals[name][old]
        elif values.shape == originals[name].shape:
            values.copy_(originals[name])
    network.outgoing().zero_()
    network.outgoing()[:, new] = original.outgoing()[:, old]
    return EquivalentPair(original, network, tuple(order))


def _scale_rows(module: nn.Module, factors: Tensor) -> None:
    for parameter in module.parameters():
        parameter.mul_(factors.view(-1, *(1,) * (parameter.dim() - 1)))


def _identity_convolution(like: Convolution, units: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        convolution = type(like)(units, units, 1, bias=False).double()
    nn.init.dirac_(convolution.weight)
    return convolution
