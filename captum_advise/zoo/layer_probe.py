"""The default layer of a network, and the layouts of its layers, from one pass on noise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_advise._utils.modes import in_eval_mode
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.layouts import Tokens, channels_last
from captum_advise.zoo.network import Network, did_you_mean, place_of
from captum_advise.zoo.recognition import unwrapped

if TYPE_CHECKING:
    from captum_advise._core.layer_pass import ReshapeTransform

# A class token, a distillation token, and up to eight registers.
_MOST_PREFIX_TOKENS = 10
# The matrices and heads inside attention are 4-D as well, and not feature maps.
_INSIDE_ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attention)[^.]*\.")


@dataclass(frozen=True)
class Probe:
    """What one pass shows of a network.

    Attributes:
        layer: The layer to explain.
        layouts: How to rearrange the outputs of layers that are not (N, C, H, W).
        classes: The number of classes.
        layers: The layers of :class:`captum_advise.GatedGradCam`, in the order of the forward pass.
            The last one is the layer to explain. Empty if there is no finer one.
    """

    layer: str
    layouts: Mapping[str, ReshapeTransform]
    classes: int
    layers: tuple[str, ...] = ()

    def layers_of(
        self, model: nn.Module, reshape_transform: ReshapeTransform | None = None
    ) -> dict[str, Any]:
        """What a :class:`captum_advise.zoo.Network` says about layers: its attributes by name."""
        return {
            "layer": model.get_submodule(self.layer),
            "layer_name": self.layer,
            "reshape_transform": reshape_transform or self.layouts.get(self.layer),
            "layers": tuple(model.get_submodule(name) for name in self.layers),
            "layer_names": self.layers,
            "reshape_transforms": tuple(self.layouts.get(name) for name in self.layers),
        }


def probe(
    model: nn.Module,
    size: tuple[int, int],
    name: str,
    *,
    layer: str | None = None,
    channels: int = 3,
    forward: Callable[[Tensor], Tensor] | None = None,
    has_reshape_transform: bool = False,
) -> Probe:
    """Find the layer to explain by one forward and backward pass on noise.

    The layer is the last module whose output is a feature map of which more than one position leads
    to the prediction. The model is left unchanged.

    Layers of ``GatedGradCam`` are looked for among the modules that every path from the image to
    the class scores passes through, so that their evidence is complete. They are the last one with
    twice the resolution of the layer to explain, and the last one with its resolution before it
    that has children (a block), unless that returns the same tensor.

    Args:
        model: An image classifier in eval mode.
        size: Height and width of its inputs.
        name: The network's, for a message.
        layer: The layer to explain, where it is known.
        channels: Of its inputs.
        forward: Inputs to class scores, for a model that returns something else.
        has_reshape_transform: Whether the caller rearranges what the layer returns.

    Raises:
        ValueError: The model does not return class scores (N, K), or has no such layer, or the
            layer gives no feature map.
    """
    record = _Record(size)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _hooked(model, record),
        _no_head_at_zero(model),
    ):
        # Not a leaf, which a model could not change in place.
        image = _noise(channels, *size).to(*place_of(model)).requires_grad_().clone()
        source = _edge(image)
        logits = (forward or model)(image)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ValueError(
                f"{name} returns {_words(logits)}, not class scores (N, K): only image classifiers "
                "can be explained; for scores inside of what it returns, explain "
                "captum_advise.targets.Output(model, key)."
            )
        if layer is None:
            layer = _last_that_matters(record, logits, name)
        else:
            _check_layer(model, record, layer, name, has_reshape_transform)
        layers = _layers_of_gated_grad_cam(model, record, layer, source, logits)
    return Probe(layer, record.layouts, logits.shape[1], layers)


def _noise(*shape: int) -> Tensor:
    # Whatever the defaults of device and dtype are.
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.rand(1, *shape, generator=generator, device="cpu", dtype=torch.float32)


def _words(value: Any) -> str:
    """A module's output in words."""
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    keys = f" with {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
    return f"a {type(value).__name__}{keys}"


def _check_layer(
    model: nn.Module, record: _Record, layer: str, name: str, has_reshape_transform: bool
) -> None:
    """Require that a layer exists, runs, and has positions.

    Raises:
        ValueError: It does not; the message names layers that could be meant.
    """
    maps = list(record.candidates())
    if layer not in dict(model.named_modules()):
        problem = f"{name} has no layer {layer!r}"
    elif layer not in record.outputs:
        problem = f"The layer {layer!r} of {name} does not run when it classifies an image"
    elif record.has_positions[layer] or has_reshape_transform:
        return
    else:
        problem = (
            f"The layer {layer!r} of {name} returns {record.outputs[layer]}, not a feature map"
        )
    others = ", ".join(reversed(maps[-3:])) or "none"
    hint = did_you_mean(layer, maps) or f": its last layers with feature maps are {others}"
    raise ValueError(f"{problem}{hint}.")


@dataclass(frozen=True)
class FeatureLayer:
    """A layer that gives feature maps.

    Attributes:
        name: Its dotted name.
        module: The layer.
        shape: (C, h, w), after rearranging.
    """

    name: str
    module: nn.Module
    shape: tuple[int, int, int]


def feature_layers(network: Network) -> list[FeatureLayer]:
    """The layers that give feature maps, in the order in which they run.

    Of a module and its last part, which return the same tensor, only the module is listed, unless
    the network names the part. Modules that return what they get are left out.

    Args:
        network: Left unchanged.
    """
    image = import_optional("PIL.Image", "zoo").new("RGB", (256, 256))
    inputs = network.transform(image)[None].to(network.device)
    model = unwrapped(network.model)
    record = _Record((inputs.shape[2], inputs.shape[3]))
    with torch.no_grad(), in_eval_mode(model), _hooked(model, record):
        network.model(inputs)
    maps = record.candidates()
    named = {network.layer_name, *network.layer_names}

    def is_part(name: str) -> bool:
        parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
        return any(parent in maps and maps[parent] is maps[name] for parent in parents)

    layers = []
    for name, value in maps.items():
        module = model.get_submodule(name)
        if name in named or not (is_part(name) or isinstance(module, nn.Identity)):
            layout = record.layouts.get(name)
            _, units, height, width = (value if layout is None else layout(value)).shape
            layers.append(FeatureLayer(name, module, (units, height, width)))
    return layers


# A tensor in the graph: the function that made it, and which of its results it is.
_Edge: TypeAlias = tuple[Any, int]


@dataclass
class _Record:
    """Feature maps and their layouts, in the order of the modules' calls."""

    size: tuple[int, int]
    maps: dict[str, Tensor] = field(default_factory=dict)
    layouts: dict[str, ReshapeTransform] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    has_positions: dict[str, bool] = field(default_factory=dict)
    edges: dict[str, _Edge] = field(default_factory=dict)

    def hook(self, key: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, _inputs: Any, output: Any) -> None:
            self.calls[key] = self.calls.get(key, 0) + 1
            self.outputs[key] = _words(output)
            self.has_positions[key] = not isinstance(output, Tensor) or output.dim() > 2
            is_map, layout = _layout(output, self.size)
            if layout is not None:
                self.layouts[key] = layout
            # Tokens only where they are normalised: elsewhere they grow from block to block.
            is_tokens = isinstance(layout, Tokens)
            if is_map and (not is_tokens or "norm" in type(module).__name__.lower()):
                self.maps.pop(key, None)
                self.maps[key] = output
                # Now, because a module after it may change the tensor in place.
                self.edges[key] = _edge(output)

        return record

    def candidates(self) -> dict[str, Tensor]:
        # A hook on a module that is called again sees several values and keeps only one.
        return {
            key: value
            for key, value in self.maps.items()
            if self.calls[key] == 1 and not _INSIDE_ATTENTION.search(key)
        }


@contextmanager
def _hooked(model: nn.Module, record: _Record) -> Iterator[None]:
    """Record the outputs of all modules for a while."""
    hooks = []
    try:
        for key, module in model.named_modules():
            if key:
                hooks.append(module.register_forward_hook(record.hook(key)))
        yield
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def _no_head_at_zero(model: nn.Module) -> Iterator[None]:
    """Give linear layers that start from zero, as some heads do, random weights for a while."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and not m.weight.any()]
    generator = torch.Generator("cpu").manual_seed(0)
    try:
        for layer in layers:
            like = torch.empty(layer.weight.shape, device="cpu", dtype=torch.float32)
            layer.weight.data.copy_(like.normal_(generator=generator))
        yield
    finally:
        for layer in layers:
            layer.weight.data.zero_()


def _layout(output: Any, size: tuple[int, int]) -> tuple[bool, ReshapeTransform | None]:
    """Whether a module's output is a feature map, and its layout unless that is (N, C, H, W)."""

    def alike(height: int, width: int) -> bool:
        return height > 1 and height * size[1] == width * size[0]

    if not isinstance(output, Tensor) or output.dim() not in (3, 4) or len(output) != 1:
        return False, None
    if output.dim() == 4:
        if alike(*output.shape[2:]):
            return True, None
        return (True, channels_last) if alike(*output.shape[1:3]) else (False, None)
    for n_prefix in range(_MOST_PREFIX_TOKENS + 1):
        patches = output.shape[1] - n_prefix
        height = math.isqrt(max(patches, 0) * size[0] // size[1])
        if height and patches == height * (patches // height) and alike(height, patches // height):
            return True, Tokens(n_prefix, (height, patches // height))
    return False, None


def _last_that_matters(record: _Record, logits: Tensor, name: str) -> str:
    """The last map of which more than one position leads to the prediction.

    After a transformer's last attention only the class token does.

    Raises:
        ValueError: There is no map, or none has gradients.
    """
    maps = record.candidates()
    if not maps:
        raise ValueError(f"{name} has no layer with a feature map that could be explained.")
    names = [key for key, value in maps.items() if value.requires_grad]
    if not names or not logits.requires_grad:
        raise ValueError(
            f"No gradient leads from the class scores of {name} to a layer with a feature map: it "
            "computes them under torch.no_grad, or detaches them."
        )
    gradients = torch.autograd.grad(logits.max(), [maps[key] for key in names], allow_unused=True)
    for key, gradient in reversed(list(zip(names, gradients, strict=True))):
        if gradient is not None:
            layout = record.layouts.get(key)
            plain = gradient if layout is None else layout(gradient)
            if int((plain != 0).any(1).sum()) > 1:
                return key
    return next(reversed(maps))


def _layers_of_gated_grad_cam(
    model: nn.Module, record: _Record, layer: str, source: _Edge, logits: Tensor
) -> tuple[str, ...]:
    """The layers of ``GatedGradCam``, the last of which is ``layer``; see :func:`probe`."""
    maps = record.candidates()
    if layer not in maps:
        return ()
    names = list(maps)
    earlier = names[: names.index(layer)]
    side = {name: _resolution(maps[name], record.layouts.get(name)) for name in names}
    graph = _Graph(logits, source)
    own = record.edges[layer]

    def last(scale: int, wanted: Callable[[str], bool]) -> str | None:
        """The last earlier map of other values, ``scale`` times as fine, that all paths pass."""
        for name in reversed(earlier):
            ratio = [round(a / b) for a, b in zip(side[name], side[layer], strict=True)]
            if (
                ratio == [scale, scale]
                and wanted(name)
                and record.edges[name] != own
                and graph.is_cut_by(record.edges[name])
            ):
                return name
        return None

    finer = last(2, lambda name: True)
    if finer is None:
        return ()
    block = last(
        1,
        lambda name: (
            next(model.get_submodule(name).children(), None) is not None
            and not finer.startswith(f"{name}.")
        ),
    )
    return (finer, layer) if block is None else (finer, block, layer)


def _resolution(value: Tensor, layout: ReshapeTransform | None) -> tuple[int, int]:
    _, _, height, width = (value if layout is None else layout(value)).shape
    return height, width


def _edge(tensor: Tensor) -> _Edge:
    return tensor.grad_fn, tensor.output_nr


class _Graph:
    """The graph of autograd from class scores back to the image."""

    def __init__(self, logits: Tensor, source: _Edge) -> None:
        self._start = _edge(logits)
        self._source = source

    def is_cut_by(self, edge: _Edge) -> bool:
        """Whether every path from the class scores to the image passes through a tensor."""
        if edge[0] is None:
            return False
        seen = {edge}
        waiting = [self._start]
        while waiting:
            current = waiting.pop()
            if current in seen or current[0] is None:
                continue
            if current == self._source:
                return False
            seen.add(current)
            waiting.extend(current[0].next_functions)
        return True
