"""Pairs of networks that compute the same function, and how their layers correspond."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from captum_advise.axioms.networks import NetworkSpec, SmallNetwork, draw_parameters, generator

Exactness = Literal["bitwise", "rounding"]


@dataclass(frozen=True)
class EquivalentPair:
    """Two networks with equal outputs on all inputs, and the map between their layers.

    Attributes:
        name: The rewrite, one of :data:`REWRITES`.
        original: A network.
        rewritten: Another network that computes the same function of the inputs.
        original_layer: A module of ``original``.
        rewritten_layer: The module of ``rewritten`` with the same feature maps, up to
            ``unit_map``.
        unit_map: For each unit of the rewritten layer, the unit of the original layer whose
            activations it has up to a positive factor. None for an added unit, on which the
            outputs do not depend.
        class_map: For each class of the rewritten network, the class of the original.
        exactness: ``"bitwise"`` if both compute the same floating-point numbers (up to the
            powers of two by which a unit was rescaled). ``"rounding"`` if they compute the same
            real numbers, with different rounding.
        reason: The reason for the exactness.
        spec: The description of the original network.

    Example::

        >>> pair = REWRITES["permuted_units"](NetworkSpec(units=4), 0)
        >>> sorted(pair.unit_map)
        [0, 1, 2, 3]
    """

    name: str
    original: nn.Module = field(repr=False)
    rewritten: nn.Module = field(repr=False)
    original_layer: nn.Module = field(repr=False)
    rewritten_layer: nn.Module = field(repr=False)
    unit_map: tuple[int | None, ...]
    class_map: tuple[int, ...]
    exactness: Exactness
    reason: str
    spec: NetworkSpec

    def rewritten_target(self, target: Tensor) -> Tensor:
        """Classes (N,) of the original network as classes of the rewritten one."""
        inverse = torch.empty(len(self.class_map), dtype=torch.int64)
        inverse[list(self.class_map)] = torch.arange(len(self.class_map))
        return inverse[target]


def permuted_units(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """The units of the explained convolution, and the weights that read them, in another order."""
    source = generator(seed)
    order: list[int | None] = []
    for group in torch.arange(spec.units).chunk(spec.groups):
        order += group[torch.randperm(len(group), generator=source)].tolist()
    return _pair(
        "permuted_units",
        spec,
        _reordered(spec, order, source),
        "rounding",
        "the head adds the units in another order",
        units=order,
    )


def dead_units(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """One more unit per group of the explained convolution, read with weights of zero."""
    source = generator(seed)
    order: list[int | None] = []
    for group in torch.arange(spec.units).chunk(spec.groups):
        order += [*group.tolist(), None]
    return _pair(
        "dead_units",
        spec,
        _reordered(spec, order, source),
        "rounding",
        "zeros among the terms of a sum change the order of its evaluation",
        units=order,
    )


def rescaled_units(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """Each unit multiplied by a power of two, and divided by it where it is read.

    Needs an activation with f(s x) = s f(x) for s > 0, unless a batch norm after the explained
    convolution removes the factor.
    """
    source = generator(seed)
    factors = torch.exp2(torch.randint(-4, 5, (spec.units,), generator=source, dtype=torch.float64))
    network = SmallNetwork(spec)
    outgoing = network.outgoing()
    with torch.no_grad():
        if spec.batch_norm and spec.layer == "convolution":
            _scale_rows(network.convolution, factors)
            values = network.norm.state_dict()
            values["running_mean"].mul_(factors)
            values["weight"].div_(factors)
        else:
            if spec.activation not in ("relu", "leaky_relu", "none"):
                raise ValueError(f"Units before {spec.activation} cannot be rescaled.")
            _scale_rows(network.norm if spec.batch_norm else network.convolution, factors)
            outgoing.div_(factors[:, None])
    return _pair(
        "rescaled_units",
        spec,
        network,
        "bitwise",
        "a power of two only shifts exponents",
    )


def split_head(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """The last linear map as a product of two: W = W2 W1."""
    source = generator(seed)
    original, rewritten = SmallNetwork(spec), SmallNetwork(spec)
    first, last = copy.deepcopy(rewritten.last), rewritten.last
    first.bias = None
    kind = type(last)
    second = (
        nn.Linear(spec.classes, spec.classes)
        if isinstance(last, nn.Linear)
        else kind(spec.classes, spec.classes, 1)  # type: ignore[arg-type]
    ).double()
    with torch.no_grad():
        factor = torch.eye(spec.classes, dtype=torch.float64) + 0.3 * torch.randn(
            spec.classes, spec.classes, generator=source, dtype=torch.float64
        )
        second.weight.copy_(factor.view_as(second.weight))
        second.bias.copy_(last.bias)  # type: ignore[union-attr,arg-type]
        product = factor @ first.weight.flatten(1)
        original.last.weight.copy_(product.view_as(original.last.weight))
    rewritten.head = nn.Sequential(
        *(nn.Sequential(first, second) if module is last else module for module in rewritten.head)
    )
    return _pair(
        "split_head",
        spec,
        rewritten,
        "rounding",
        "a product of two matrices is rounded at another step",
        original=original,
    )


def inserted_identity(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """Convolutions that compute the identity, before and after the layer."""
    network = SmallNetwork(spec)
    network.before = _identity_convolution(network.convolution, network.convolution.in_channels)
    network.after = _identity_convolution(network.convolution, spec.units)
    return _pair(
        "inserted_identity",
        spec,
        network,
        "bitwise",
        "x * 1 + y * 0 is x",
    )


def folded_batch_norm(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """The batch norm in the weights of the convolution before it."""
    if not spec.batch_norm or spec.layer == "convolution":
        raise ValueError("Folding needs a batch norm and an explained layer after the convolution.")
    network = SmallNetwork(spec)
    network.convolution = fuse_conv_bn_eval(network.convolution, cast(nn.BatchNorm2d, network.norm))
    layer = network.convolution if spec.layer == "norm" else network.activation
    network.norm = nn.Identity()
    return _pair(
        "folded_batch_norm",
        spec,
        network,
        "rounding",
        "the factors of a product are rounded before they are multiplied",
        layer=layer,
    )


def dead_branch(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """A second, non-linear path from the features to the class scores, times zero."""
    network = SmallNetwork(spec)
    features = spec.units * spec.pooled_size**spec.spatial_dims
    with torch.random.fork_rng(devices=[]):
        branch = nn.Sequential(
            nn.Flatten(), nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, spec.classes)
        ).double()
    draw_parameters(branch, generator(seed))
    for parameter in branch[-1].parameters():
        nn.init.zeros_(parameter)
    network.branch = branch
    return _pair("dead_branch", spec, network, "bitwise", "x + 0 is x")


def functional_form(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """The same network, written with functions instead of modules."""
    network = FunctionalNetwork(SmallNetwork(spec))
    return _pair(
        "functional_form",
        spec,
        network,
        "rounding",
        "means and products are evaluated in another order",
        layer=network.tap,
    )


def permuted_classes(spec: NetworkSpec, seed: int) -> EquivalentPair:
    """The classes in another order."""
    order = torch.randperm(spec.classes, generator=generator(seed))
    network = SmallNetwork(spec)
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.copy_(parameter[order].clone())
    return _pair(
        "permuted_classes",
        spec,
        network,
        "rounding",
        "a softmax adds in another order",
        classes=order.tolist(),
    )


REWRITES: dict[str, Callable[[NetworkSpec, int], EquivalentPair]] = {
    rewrite.__name__: rewrite
    for rewrite in (
        permuted_units,
        dead_units,
        rescaled_units,
        split_head,
        inserted_identity,
        folded_batch_norm,
        dead_branch,
        functional_form,
        permuted_classes,
    )
}


class FunctionalNetwork(nn.Module):
    """A :class:`SmallNetwork` in the functional style.

    ``stem`` and ``tap`` return the maps of the stem and of the explained layer.

    Args:
        network: The network whose parameters are used.
    """

    def __init__(self, network: SmallNetwork) -> None:
        super().__init__()
        self.spec = network.spec
        self.stem = nn.Identity()
        self.tap = nn.Identity()
        self.tensors: dict[str, Tensor] = {
            name.replace(".", "_"): value.detach() for name, value in network.state_dict().items()
        }
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, size, ...) to class scores (N, classes)."""
        spec, get = self.spec, self.tensors.get
        convolve = (F.conv1d, F.conv2d, F.conv3d)[spec.spatial_dims - 1]
        stem = convolve(inputs, self.tensors["stem_0_weight"], get("stem_0_bias"), padding=1)
        maps = convolve(
            self.stem(self._activation(stem)),
            self.tensors["convolution_weight"],
            get("convolution_bias"),
            spec.stride,
            spec.kernel // 2,
            groups=spec.groups,
        )
        maps = self.tap(maps) if spec.layer == "convolution" else maps
        if spec.batch_norm:
            maps = F.batch_norm(
                maps,
                self.tensors["norm_running_mean"],
                self.tensors["norm_running_var"],
                self.tensors["norm_weight"],
                self.tensors["norm_bias"],
            )
        maps = self.tap(maps) if spec.layer == "norm" else maps
        maps = self._activation(maps)
        maps = self.tap(maps) if spec.layer == "activation" else maps
        return self._head(self._pooled(maps))

    def _activation(self, values: Tensor) -> Tensor:
        if self.spec.activation == "relu":
            # Not clamp, whose gradient at zero is 1 in some versions of torch.
            return values.where(values > 0, values.new_zeros(()))
        if self.spec.activation == "none":
            return values
        function: Callable[[Tensor], Tensor] = getattr(F, self.spec.activation)
        return function(values)

    def _pooled(self, maps: Tensor) -> Tensor:
        dims = self.spec.spatial_dims
        if self.spec.pooling == "none":
            return maps
        pools: dict[str, Sequence[Callable[..., Tensor]]] = {
            "max": (F.max_pool1d, F.max_pool2d, F.max_pool3d),
            "average": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
        }
        return pools[self.spec.pooling][dims - 1](maps, 2, ceil_mode=True)

    def _head(self, features: Tensor) -> Tensor:
        tensors, spatial = self.tensors, tuple(range(2, features.dim()))
        if self.spec.head == "convolutional":
            weight = tensors["head_0_weight"].flatten(1)
            class_maps: Tensor = torch.einsum("nu...,ku->nk...", features, weight)
            return class_maps.mean(spatial) + tensors["head_0_bias"]
        if self.spec.head in ("pooled", "peak"):
            averaged = self.spec.head == "pooled"
            summary = features.mean(spatial) if averaged else features.amax(spatial)
            return torch.addmm(tensors["head_2_bias"], summary, tensors["head_2_weight"].T)
        flat = features.reshape(len(features), -1)
        outputs = torch.addmm(tensors["head_1_bias"], flat, tensors["head_1_weight"].T)
        if self.spec.head == "hidden":
            hidden = self._activation(outputs)
            outputs = torch.addmm(tensors["head_3_bias"], hidden, tensors["head_3_weight"].T)
        return outputs


def _pair(
    name: str,
    spec: NetworkSpec,
    rewritten: nn.Module,
    exactness: Exactness,
    reason: str,
    *,
    original: SmallNetwork | None = None,
    layer: nn.Module | None = None,
    units: Sequence[int | None] | None = None,
    classes: Sequence[int] | None = None,
) -> EquivalentPair:
    original = SmallNetwork(spec) if original is None else original
    if layer is None:
        layer = getattr(rewritten, spec.layer)
    return EquivalentPair(
        name=name,
        original=original,
        rewritten=rewritten,
        original_layer=original.layer,
        rewritten_layer=layer,
        unit_map=tuple(range(spec.units) if units is None else units),
        class_map=tuple(range(spec.classes) if classes is None else classes),
        exactness=exactness,
        reason=reason,
        spec=spec,
    )


@torch.no_grad()
def _reordered(
    spec: NetworkSpec, order: Sequence[int | None], source: torch.Generator
) -> SmallNetwork:
    """The network with its units in this order; None is a new unit that nothing reads."""
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
    return network


def _scale_rows(module: nn.Module, factors: Tensor) -> None:
    for parameter in module.parameters():
        parameter.mul_(factors.view(-1, *(1,) * (parameter.dim() - 1)))


def _identity_convolution(like: nn.Conv1d | nn.Conv2d | nn.Conv3d, units: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        convolution = type(like)(units, units, 1, bias=False).double()
    nn.init.dirac_(convolution.weight)
    return convolution
