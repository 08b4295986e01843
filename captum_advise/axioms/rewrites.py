"""Ways to write a network differently that leave its function as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from captum_advise.axioms.networks import Convolution, NetworkSpec, SmallNetwork, generator


class Rewritten(NamedTuple):
    """A network with the outputs of another one on all inputs, and the map between their layers."""

    network: SmallNetwork
    # For each unit, the unit of the other network whose activations it has up to a positive factor.
    # None for an added unit, on which the outputs do not depend.
    unit_map: Sequence[int | None]


_Build = Callable[[SmallNetwork, torch.Generator], Rewritten]


class Rewrite(NamedTuple):
    """A way to write a network differently that leaves its function as it is."""

    build: _Build
    # Whether both networks compute the same floating-point numbers, up to powers of two by which a
    # unit was rescaled. Otherwise they compute the same real numbers, with different rounding.
    is_bitwise: bool
    reason: str  # why they are, or are not
    needs: Mapping[str, tuple[Any, ...]]  # values of the spec's attributes, of what it can rewrite

    def __call__(self, spec: NetworkSpec, seed: int) -> Rewritten:
        """Rewrite the network that a spec describes."""
        return self.build(SmallNetwork(spec), generator(seed))


REWRITES: dict[str, Rewrite] = {}
"""All rewrites by name, in the order of the tables."""


def _rewrite(
    reason: str, *, is_bitwise: bool, **needs: tuple[Any, ...]
) -> Callable[[_Build], _Build]:
    def register(build: _Build) -> _Build:
        REWRITES[build.__name__] = Rewrite(build, is_bitwise, reason, needs)
        return build

    return register


@_rewrite("the head adds the units in another order", is_bitwise=False)
def permuted_units(network: SmallNetwork, source: torch.Generator) -> Rewritten:
    """Units in another order."""
    return _reordered(network, torch.randperm(network.spec.units, generator=source).tolist())


@_rewrite("zeros among the terms of a sum change the order of its evaluation", is_bitwise=False)
def dead_units(network: SmallNetwork, _source: torch.Generator) -> Rewritten:
    """Units added that nothing reads."""
    return _reordered(network, [*range(network.spec.units), None])


@_rewrite(
    "a power of two only shifts exponents",
    is_bitwise=True,
    activation=("relu", "leaky_relu", "none"),  # f(s x) = s f(x) for s > 0
)
def rescaled_units(network: SmallNetwork, source: torch.Generator) -> Rewritten:
    """Units rescaled, and scaled back after the layer."""
    spec = network.spec
    factors = torch.exp2(torch.randint(-4, 5, (spec.units,), generator=source, dtype=torch.float64))
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
    return Rewritten(network, range(network.spec.units))


@_rewrite("a product of two matrices is rounded at another step", is_bitwise=False)
def split_head(network: SmallNetwork, _source: torch.Generator) -> Rewritten:
    """The last linear map as a product of two."""
    last = network.last
    left, right = torch.linalg.qr(last.weight.detach())
    with torch.random.fork_rng(devices=[]):
        first = nn.Linear(last.in_features, len(right), bias=False)
        second = nn.Linear(len(right), last.out_features)
    first.weight.data, second.weight.data, second.bias.data = right, left, last.bias.data
    network.head[-1] = nn.Sequential(first, second)
    return Rewritten(network, range(network.spec.units))


@_rewrite("x * 1 + y * 0 is x", is_bitwise=True)
def inserted_identity(network: SmallNetwork, _source: torch.Generator) -> Rewritten:
    """Identity layers inserted."""
    convolution = network.convolution
    network.stem.append(_identity_convolution(convolution, convolution.in_channels))
    network.head.insert(0, _identity_convolution(convolution, convolution.out_channels))
    return Rewritten(network, range(network.spec.units))


@_rewrite(
    "the factors of a product are rounded before they are multiplied",
    is_bitwise=False,
    batch_norm=(True,),
    layer=("norm", "activation"),
)
def folded_batch_norm(network: SmallNetwork, _source: torch.Generator) -> Rewritten:
    """Batch norm folded into the convolution."""
    network.convolution = fuse_conv_bn_eval(network.convolution, cast(nn.BatchNorm2d, network.norm))
    network.norm = nn.Identity()
    return Rewritten(network, range(network.spec.units))


class _Function(nn.Module):
    """A function, which tells nothing of the module from which it comes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


@_rewrite("the same functions are called", is_bitwise=True)
def functional_form(network: SmallNetwork, _source: torch.Generator) -> Rewritten:
    """Activations and pooling written as functions, not as modules."""
    for parent in (network, network.stem, network.head):
        for name, child in parent.named_children():
            if not child.state_dict():
                setattr(parent, name, _Function(child.forward))
    return Rewritten(network, range(network.spec.units))


@torch.no_grad()
def _reordered(original: SmallNetwork, order: Sequence[int | None]) -> Rewritten:
    """The units in another order; None is a new unit that nothing reads."""
    network = SmallNetwork(replace(original.spec, units=len(order)))
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
    return Rewritten(network, order)


def _scale_rows(module: nn.Module, factors: Tensor) -> None:
    for parameter in module.parameters():
        parameter.mul_(factors.view(-1, *(1,) * (parameter.dim() - 1)))


def _identity_convolution(like: Convolution, units: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        convolution = type(like)(units, units, 1, bias=False).double()
    nn.init.dirac_(convolution.weight)
    return convolution
