"""Pairs of networks that compute the same function, and how their layers correspond."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from captum_advise.axioms.checks import claim_of
from captum_advise.axioms.networks import (
    Convolution,
    NetworkSpec,
    SmallNetwork,
    draw_parameters,
    generator,
)

Exactness = Literal["bitwise", "rounding"]


@dataclass(frozen=True)
class EquivalentPair:
    """Two networks with equal outputs on all inputs, and the map between their layers.

    Attributes:
        original: A network.
        rewritten: Another network that computes the same function of the inputs.
        rewritten_layer: The module of ``rewritten`` with the same feature maps as the layer of
            ``original``, up to ``unit_map``.
        unit_map: For each unit of the rewritten layer, the unit of the original layer whose
            activations it has up to a positive factor. None for an added unit, on which the
            outputs do not depend.
        class_map: For each class of the rewritten network, the class of the original.

    Example::

        >>> pair = REWRITES["permuted_units"](NetworkSpec(units=4), 0)
        >>> sorted(pair.unit_map)
        [0, 1, 2, 3]
    """

    original: SmallNetwork = field(repr=False)
    rewritten: nn.Module = field(repr=False)
    rewritten_layer: nn.Module = field(repr=False)
    unit_map: tuple[int | None, ...]
    class_map: tuple[int, ...]

    def rewritten_target(self, target: Tensor) -> Tensor:
        """Classes (N,) of the original network as classes of the rewritten one."""
        return torch.tensor(self.class_map).argsort()[target]


def _pair(
    spec: NetworkSpec,
    network: nn.Module,
    *,
    original: SmallNetwork | None = None,
    layer: nn.Module | None = None,
    units: Sequence[int | None] | None = None,
    classes: Sequence[int] | None = None,
) -> EquivalentPair:
    """A pair; what is None is as in a :class:`SmallNetwork` of the spec."""
    return EquivalentPair(
        SmallNetwork(spec) if original is None else original,
        network,
        getattr(network, spec.layer) if layer is None else layer,
        tuple(range(spec.units) if units is None else units),
        tuple(range(spec.classes) if classes is None else classes),
    )


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

    def shuffled(group: list[int]) -> list[int | None]:
        return [group[i] for i in torch.randperm(len(group), generator=source).tolist()]

    return _reordered(spec, shuffled, source)


@_rewrite("rounding", "zeros among the terms of a sum change the order of its evaluation")
def dead_units(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """Units added that nothing reads.

    One per group of the explained convolution, read with weights of zero.
    """
    return _reordered(spec, lambda group: [*group, None], source)


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
    return _pair(spec, network)


@_rewrite("rounding", "a product of two matrices is rounded at another step")
def split_head(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """The last linear map as a product of two."""
    original, rewritten = SmallNetwork(spec), SmallNetwork(spec)
    first, last = copy.deepcopy(rewritten.last), rewritten.last
    first.bias = None
    kind: Any = type(last)
    size = () if isinstance(last, nn.Linear) else (1,)
    second = kind(spec.classes, spec.classes, *size).double()
    with torch.no_grad():
        factor = torch.eye(spec.classes, dtype=torch.float64) + 0.3 * torch.randn(
            spec.classes, spec.classes, generator=source, dtype=torch.float64
        )
        second.weight.copy_(factor.view_as(second.weight))
        second.bias.copy_(last.bias)
        product = factor @ first.weight.flatten(1)
        original.last.weight.copy_(product.view_as(original.last.weight))
    rewritten.head = nn.Sequential(
        *(nn.Sequential(first, second) if module is last else module for module in rewritten.head)
    )
    return _pair(spec, rewritten, original=original)


@_rewrite("bitwise", "x * 1 + y * 0 is x")
def inserted_identity(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Identity layers inserted."""
    network = SmallNetwork(spec)
    network.before = _identity_convolution(network.convolution, network.convolution.in_channels)
    network.after = _identity_convolution(network.convolution, spec.units)
    return _pair(spec, network)


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
    return _pair(
        spec, network, layer=network.convolution if spec.layer == "norm" else network.activation
    )


@_rewrite("bitwise", "x + 0 is x")
def dead_branch(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """A second path added, times zero."""
    network = SmallNetwork(spec)
    features = spec.units * spec.pooled_size**spec.spatial_dims
    with torch.random.fork_rng(devices=[]):
        branch = nn.Sequential(
            nn.Flatten(), nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, spec.classes)
        ).double()
    draw_parameters(branch, source)
    for parameter in branch[-1].parameters():
        nn.init.zeros_(parameter)
    network.branch = branch
    return _pair(spec, network)


@_rewrite("rounding", "means and products are evaluated in another order")
def functional_form(spec: NetworkSpec, _source: torch.Generator) -> EquivalentPair:
    """Written with functions in place of modules."""
    network = FunctionalNetwork(SmallNetwork(spec))
    return _pair(spec, network, layer=network.tap)


@_rewrite("rounding", "a softmax adds in another order")
def permuted_classes(spec: NetworkSpec, source: torch.Generator) -> EquivalentPair:
    """Classes in another order."""
    order = torch.randperm(spec.classes, generator=source)
    network = SmallNetwork(spec)
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.copy_(parameter[order].clone())
    return _pair(spec, network, classes=order.tolist())


class FunctionalNetwork(nn.Module):
    """A :class:`SmallNetwork` in the functional style, with its parameters.

    ``stem`` and ``tap`` return the maps of the stem and of the explained layer.
    """

    def __init__(self, network: SmallNetwork) -> None:
        super().__init__()
        self.stem = nn.Identity()
        self.tap = nn.Identity()
        self.network = (network.requires_grad_(False),)  # in a tuple, so not a part of this one
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, size, ...) to class scores (N, classes)."""
        (network,) = self.network
        spec, norm = network.spec, network.norm
        first, convolution = cast(Convolution, network.stem[0]), network.convolution
        convolve = self._function("conv")
        maps = convolve(inputs, first.weight, first.bias, padding=1)
        maps = convolve(
            self.stem(self._activation(maps)),
            convolution.weight,
            convolution.bias,
            spec.stride,
            spec.kernel // 2,
            groups=spec.groups,
        )
        maps = self.tap(maps) if spec.layer == "convolution" else maps
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            maps = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        maps = self.tap(maps) if spec.layer == "norm" else maps
        maps = self._activation(maps)
        maps = self.tap(maps) if spec.layer == "activation" else maps
        if spec.pooling != "none":
            pool = self._function({"max": "max_pool", "average": "avg_pool"}[spec.pooling])
            maps = pool(maps, 2, ceil_mode=True)
        return self._class_scores(maps)

    def _function(self, name: str) -> Callable[..., Tensor]:
        function: Callable[..., Tensor] = getattr(F, f"{name}{self.network[0].spec.spatial_dims}d")
        return function

    def _activation(self, values: Tensor) -> Tensor:
        name = self.network[0].spec.activation
        if name == "relu":
            # Not clamp, whose gradient at zero is 1 in some versions of torch.
            return values.where(values > 0, values.new_zeros(()))
        function: Callable[[Tensor], Tensor] = getattr(F, name, lambda values: values)
        return function(values)

    def _class_scores(self, features: Tensor) -> Tensor:
        (network,) = self.network
        head, spatial = network.spec.head, tuple(range(2, features.dim()))
        if head == "convolutional":
            weight = network.last.weight.flatten(1)
            class_maps = torch.einsum("nu...,ku->nk...", features, weight)
            return class_maps.mean(spatial) + cast(Tensor, network.last.bias)
        if head in ("pooled", "peak"):
            values = features.mean(spatial) if head == "pooled" else features.amax(spatial)
        else:
            values = features.reshape(len(features), -1)
        if head == "hidden":
            values = self._activation(_affine(network.reader, values))
        return _affine(network.last, values)


def _affine(module: nn.Linear | Convolution, values: Tensor) -> Tensor:
    return torch.addmm(cast(Tensor, module.bias), values, module.weight.T)


@torch.no_grad()
def _reordered(
    spec: NetworkSpec,
    reorder: Callable[[list[int]], list[int | None]],
    source: torch.Generator,
) -> EquivalentPair:
    """The units of each group in another order; None is a new unit that nothing reads."""
    groups = torch.arange(spec.units).chunk(spec.groups)
    order = [unit for group in groups for unit in reorder(group.tolist())]
    original = SmallNetwork(spec)
    network = SmallNetwork(replace(spec, units=len(order)))
    draw_parameters(network.convolution, source)
    draw_parameters(network.norm, source)
    network.outgoing().zero_()
    new = [position for position, unit in enumerate(order) if unit is not None]
    old = [unit for unit in order if unit is not None]
    for module, original_module in (
        (network.convolution, original.convolution),
        (network.norm, original.norm),
    ):
        for key, values in module.state_dict().items():
            if values.dim():
                values[new] = original_module.state_dict()[key][old]
    network.outgoing()[:, new] = original.outgoing()[:, old]
    if network.reader.bias is not None and original.reader.bias is not None:
        network.reader.bias.copy_(original.reader.bias)
    if network.last is not network.reader:
        network.last.load_state_dict(original.last.state_dict())
    network.stem.load_state_dict(original.stem.state_dict())
    return _pair(spec, network, units=order)


def _scale_rows(module: nn.Module, factors: Tensor) -> None:
    for parameter in module.parameters():
        parameter.mul_(factors.view(-1, *(1,) * (parameter.dim() - 1)))


def _identity_convolution(like: Convolution, units: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        convolution = type(like)(units, units, 1, bias=False).double()
    nn.init.dirac_(convolution.weight)
    return convolution
