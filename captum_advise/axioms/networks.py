"""Small convolutional networks, built from a seed, on which the checks run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "leaky_relu", "tanh", "gelu", "softplus", "none"]
Pooling = Literal["none", "max", "average"]
Head = Literal["pooled", "flat", "hidden"]
Layer = Literal["convolution", "norm", "activation"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "none": nn.Identity,
}

_STEM_UNITS = 2
_HIDDEN_UNITS = 6


@dataclass(frozen=True)
class NetworkSpec:
    """The description of a small network: equal specs build equal networks.

    Attributes:
        seed: Seed of all parameters.
        spatial_dims: Number of spatial dimensions: 1, 2 or 3.
        channels: Number of input channels.
        size: Edge length of the inputs, in pixels.
        units: Units of the explained layer, at least 2.
        kernel: Edge length of the explained convolution's kernel.
        stride: Stride of the explained convolution.
        bias: Whether convolutions have a bias.
        batch_norm: Whether a batch norm follows the explained convolution.
        activation: Activation function of every hidden layer.
        pooling: Kind of the pooling, with edge length 2, after the activation.
        head: ``"pooled"`` global average and linear, ``"flat"`` linear, ``"hidden"`` two linear
            layers with an activation between them.
        classes: Number of class scores that the network returns.
        layer: The module that is explained.

    Example::

        >>> spec = NetworkSpec(spatial_dims=1, units=8, head="flat")
        >>> spec.inputs(2, seed=0).shape, spec.map_size
        (torch.Size([2, 3, 6]), 6)
    """

    seed: int = 0
    spatial_dims: int = 2
    channels: int = 3
    size: int = 6
    units: int = 4
    kernel: int = 3
    stride: int = 1
    bias: bool = True
    batch_norm: bool = False
    activation: Activation = "relu"
    pooling: Pooling = "none"
    head: Head = "pooled"
    classes: int = 3
    layer: Layer = "activation"

    @property
    def map_size(self) -> int:
        """Edge length of the explained layer's map."""
        return (self.size - 1) // self.stride + 1

    def inputs(self, n_examples: int, seed: int) -> Tensor:
        """Random inputs, float64 (n_examples, channels, size, ...), uniform on [0, 1)."""
        shape = (n_examples, self.channels, *(self.size,) * self.spatial_dims)
        return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


class SmallNetwork(nn.Module):
    """Stem, explained convolution, batch norm, activation, pooling, head; float64, eval mode."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        activation = _ACTIVATIONS[spec.activation]
        # Construction draws from the global generator; these values are replaced below.
        with torch.random.fork_rng(devices=[]):
            self.stem = nn.Sequential(
                self._module("Conv", spec.channels, _STEM_UNITS, 3, padding=1, bias=spec.bias),
                activation(),
            )
            self.convolution: Convolution = self._module(
                "Conv",
                _STEM_UNITS,
                spec.units,
                spec.kernel,
                stride=spec.stride,
                padding=spec.kernel // 2,
                bias=spec.bias,
            )
            self.norm: nn.Module = nn.Identity()
            if spec.batch_norm:
                self.norm = self._module("BatchNorm", spec.units)
            self.activation = activation()
            self.pooling: nn.Module = nn.Identity()
            if spec.pooling != "none":
                name = {"max": "MaxPool", "average": "AvgPool"}[spec.pooling]
                self.pooling = self._module(name, 2, ceil_mode=True)
            self.head = nn.Sequential(*self._head())
            self.branch: nn.Module | None = None
        self.double().eval()
        draw_parameters(self, generator(spec.seed))

    def _module(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The module of this name for the network's number of spatial dimensions."""
        kind = getattr(nn, f"{name}{self.spec.spatial_dims}d")
        return kind(*arguments, **options)

    def _head(self) -> list[nn.Module]:
        spec = self.spec
        size = spec.map_size if spec.pooling == "none" else math.ceil(spec.map_size / 2)
        features = spec.units * size**spec.spatial_dims
        if spec.head == "flat":
            return [nn.Flatten(), nn.Linear(features, spec.classes)]
        if spec.head == "hidden":
            return [
                nn.Flatten(),
                nn.Linear(features, _HIDDEN_UNITS),
                _ACTIVATIONS[spec.activation](),
                nn.Linear(_HIDDEN_UNITS, spec.classes),
            ]
        pool = self._module("AdaptiveAvgPool", 1)
        return [pool, nn.Flatten(), nn.Linear(spec.units, spec.classes)]

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, channels, size, ...) to class scores (N, classes)."""
        features = self.pooling(self.activation(self.norm(self.convolution(self.stem(inputs)))))
        class_scores: Tensor = self.head(features)
        return class_scores if self.branch is None else class_scores + self.branch(features)

    @property
    def layer(self) -> nn.Module:
        """The module to explain."""
        layer: nn.Module = getattr(self, self.spec.layer)
        return layer

    @property
    def last(self) -> nn.Linear:
        """The module of the head with one row of weights per class."""
        return self._weighted()[-1]

    def _weighted(self) -> list[nn.Linear]:
        return [module for module in self.head if isinstance(module, nn.Linear)]

    def outgoing(self) -> Tensor:
        """The weights with which the head reads the units, a view (rows, units, locations)."""
        weight = self._weighted()[0].weight.data
        return weight.view(len(weight), self.spec.units, -1)


def generator(seed: int) -> torch.Generator:
    """A new generator of random numbers."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def draw_parameters(module: nn.Module, source: torch.Generator) -> None:
    """Draw parameters and running statistics at random, so that activations are near [0, 1].

    The distributions are continuous. Equal activations, and decisions that rounding could change,
    therefore have probability zero, except where an activation function is constant.
    """

    def normal(tensor: Tensor, scale: float) -> None:
        tensor.copy_(scale * torch.randn(tensor.shape, generator=source, dtype=tensor.dtype))

    def uniform(tensor: Tensor) -> None:
        tensor.copy_(0.5 + torch.rand(tensor.shape, generator=source, dtype=tensor.dtype))

    for part in module.modules():
        if isinstance(part, nn.Linear | Convolution):
            normal(part.weight, math.sqrt(2 / part.weight[0].numel()))
            if part.bias is not None:
                normal(part.bias, 0.2)
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            uniform(part.weight)
            normal(part.bias, 0.2)
            assert part.running_mean is not None
            assert part.running_var is not None
            normal(part.running_mean, 0.2)
            uniform(part.running_var)
