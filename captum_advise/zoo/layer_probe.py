"""The default layer of a network, and the layouts of its layers, from one pass on noise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_advise._utils.errors import did_you_mean
from captum_advise._utils.modes import in_eval_mode
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.layouts import Tokens, channels_last
from captum_advise.zoo.network import Network, place_of
from captum_advise.zoo.recognition import unwrapped

if TYPE_CHECKING:
    from captum_advise.layouts import ReshapeTransform

# A class token, and a distillation token or up to four registers.
_MOST_PREFIX_TOKENS = 5
# The matrices and heads inside attention are 4-D as well, and not feature maps.
_INSIDE_ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attention)[^.]*\.")


@dataclass(frozen=True)
class Probe:
    """What one pass shows of a network."""

    layer: str  # the one to explain
    layouts: Mapping[str, ReshapeTransform]  # of layers that are not (N, C, H, W)
    classes: int
    layers: tuple[str, ...] = ()  # of GatedGradCam: finer ones, and `layer`; else empty
    finer_layers: tuple[str, ...] = ()  # of each larger size the last that all paths pass

    def layers_of(self, model: nn.Module) -> dict[str, Any]:
        """What a :class:`captum_advise.zoo.Network` says about layers: its attributes by name."""
        return {
            "layer": model.get_submodule(self.layer),
            "layer_name": self.layer,
            "reshape_transform": self.layouts.get(self.layer),
            "layers": tuple(model.get_submodule(name) for name in self.layers),
            "layer_names": self.layers,
            "reshape_transforms": tuple(self.layouts.get(name) for name in self.layers),
        }


def probe(
    model: nn.Module,
    shape: tuple[int, int, int],
    name: str,
    *,
    layer: str | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    reshape_transform: ReshapeTransform | None = None,
) -> Probe:
    """Find the layer to explain by one forward and backward pass on noise.

    The layer is the last module whose output is a feature map of which more than one position leads
    to the prediction. The model is left unchanged.

    Every path from the image to the class scores passes through the layers of ``GatedGradCam``, so
    that their evidence is complete. One is the last such module with twice the resolution of the
    layer to explain. Another is the last block (a module with children) before it with its
    resolution, unless that returns the same tensor.

    Args:
        model: An image classifier in eval mode.
        shape: (C, H, W) of its inputs.
        name: The network's, for a message.
        layer, reshape_transform: The layer to explain and its layout, where they are known.
        forward: Inputs to class scores, for a model that returns something else.

    Raises:
        ValueError: There are no class scores (N, K), no such layer, or none with a feature map.
    """
    with (
        # Also where the caller switched gradients off.
        torch.inference_mode(False),
        torch.enable_grad(),
        _recorded(model, shape[1:]) as outputs,
        _no_head_at_zero(model),
    ):
        # Not a leaf, which a model could not change in place.
        image = noise(1, *shape).to(*place_of(model)).requires_grad_().clone()
        source = _edge(image)
        logits = (forward or model)(image)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ValueError(
                f"{name} returns {_words(logits)}, not class scores (N, K): only image classifiers "
                "can be explained; where the scores are a part of it, explain "
                "captum_advise.targets.Output(model, key)."
            )
        if layer is None:
            # Not a map before tokens whose grid is not known: these would be explained.
            gridless = [n for n, one in enumerate(outputs.values(), 1) if one.layout == Tokens()]
            after = dict(list(outputs.items())[gridless[-1] if gridless else 0 :])
            layer = _last_that_matters(_maps(after), logits, name)
        else:
            _check_layer(layer, model, outputs, name, is_reshaped=reshape_transform is not None)
        maps = _maps(outputs)
        scales = _scales_before(layer, maps, source, _edge(logits))
    layouts = {k: one.layout for k, one in outputs.items() if one.layout not in (None, Tokens())}
    if reshape_transform is not None:
        layouts[layer] = reshape_transform
    # Of each larger size, the last map before the layer that all paths pass.
    last = {scale: name for name, scale in scales.items() if min(scale) > 1}
    finer = tuple(name for name in scales if name in last.values())
    layers = _layers_of_gated_grad_cam(layer, maps, scales)
    return Probe(layer, layouts, logits.shape[1], layers, finer)


def feature_layers(network: Network) -> dict[str, tuple[int, int, int]]:
    """The layers that give feature maps, in the order in which they run, with (C, h, w) of each.

    Left out, unless the network names them, are modules that return what they get. So are the last
    parts of modules, which return the same tensor as these.
    """
    image = import_optional("PIL.Image", "zoo").new("RGB", (256, 256))
    inputs = network.transform(image)[None].to(network.device)
    model = unwrapped(network.model)
    size = (inputs.shape[2], inputs.shape[3])
    with torch.no_grad(), in_eval_mode(model), _recorded(model, size) as outputs:
        network.model(inputs)
    maps = _maps(outputs)
    named = {network.layer_name, *network.layer_names}
    return {
        name: _shape(output)
        for name, output in maps.items()
        if name in named or not (_is_part(name, maps) or isinstance(output.module, nn.Identity))
    }


# A tensor in the graph: the function that made it, and which of its results it is.
_Edge: TypeAlias = tuple[Any, int]


@dataclass(frozen=True)
class _Output:
    """What a module returned in its last call."""

    module: nn.Module
    flat: torch.Size | None  # its shape if it has no positions, and cannot be a feature map
    map: Tensor | None  # the output if it is a feature map, and the module's only one
    layout: ReshapeTransform | None  # how to rearrange it, unless it is (N, C, H, W)
    edge: _Edge


@contextmanager
def _recorded(model: nn.Module, size: tuple[int, int]) -> Iterator[dict[str, _Output]]:
    """Record the outputs of all modules for a while, in the order of their calls."""
    outputs: dict[str, _Output] = {}

    def record(key: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        is_map, layout = layout_of(output, size)
        # Tokens only where they are normalised: elsewhere they grow from block to block.
        if isinstance(layout, Tokens):
            is_norm = "norm" in type(module).__name__.lower()
            is_map, layout = is_map and is_norm, layout if is_norm or is_map else None
        # A hook on a module that is called again sees several values and keeps only one.
        if key in outputs or _INSIDE_ATTENTION.search(key):
            is_map = False
        # Pooled to a size of its own, which nearly fits some images by chance.
        if is_map and isinstance(module, nn.AdaptiveAvgPool2d):
            is_map = output.shape[2] * size[1] == output.shape[3] * size[0]
        is_tensor = isinstance(output, Tensor)
        outputs[key] = _Output(
            module,
            output.shape if is_tensor and output.dim() < 3 else None,
            output if is_map else None,
            layout,
            # Now, because a module after it may change the tensor in place.
            _edge(output) if is_tensor else (None, 0),
        )

    with ExitStack() as hooks:
        for key, part in model.named_modules():
            if key:
                hooks.enter_context(part.register_forward_hook(partial(record, key)))
        yield outputs


def _maps(outputs: Mapping[str, _Output]) -> dict[str, _Output]:
    return {key: output for key, output in outputs.items() if output.map is not None}


def _is_part(name: str, maps: Mapping[str, _Output]) -> bool:
    """Whether a module around this one returns the same tensor."""
    parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
    return any(parent in maps and maps[parent].map is maps[name].map for parent in parents)


def _shape(output: _Output) -> tuple[int, int, int]:
    """(C, h, w) of a map."""
    assert output.map is not None
    value = output.map if output.layout is None else output.layout(output.map)
    return value.shape[1], value.shape[2], value.shape[3]


def _edge(tensor: Tensor) -> _Edge:
    return tensor.grad_fn, tensor.output_nr


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    keys = f" with {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
    return f"a {type(value).__name__}{keys}"


def noise(*shape: int) -> Tensor:
    """The same random numbers in [0, 1), whatever the defaults of device and dtype are."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.rand(shape, generator=generator, device="cpu", dtype=torch.float32)


@contextmanager
def _no_head_at_zero(model: nn.Module) -> Iterator[None]:
    """Give linear layers that start from zero, as some heads do, random weights for a while."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and not m.weight.any()]
    try:
        for layer in layers:
            layer.weight.data.copy_(noise(*layer.weight.shape) - 0.5)
        yield
    finally:
        for layer in layers:
            layer.weight.data.zero_()


def layout_of(output: Any, size: tuple[int, int]) -> tuple[bool, ReshapeTransform | None]:
    """Whether a module's output is a feature map, and its layout unless that is (N, C, H, W).

    The layout of tokens that may be a grid with a remainder of the image is ``Tokens()``.
    """

    def alike(height: int, width: int) -> bool:
        return height > 1 and height * size[1] == width * size[0]

    def nearly(height: int, width: int) -> bool:
        # One stride gives both sides, up to rounding and what lacks padding; squares stay squares.
        if size[0] == size[1] or min(height, width) < 2:
            return False
        least = max(size[0] / (height + 2), size[1] / (width + 2))
        return least < min(size[0] / (height - 1), size[1] / (width - 1))

    if not isinstance(output, Tensor) or output.dim() not in (3, 4) or len(output) != 1:
        return False, None
    if output.dim() == 4:
        for fits in (alike, nearly):
            if fits(*output.shape[2:]):
                return True, None
            if fits(*output.shape[1:3]):
                return True, channels_last
        return False, None
    for n_prefix in range(_MOST_PREFIX_TOKENS + 1):
        patches = output.shape[1] - n_prefix
        height = math.isqrt(max(patches, 0) * size[0] // size[1])
        # Patches have whole numbers of pixels.
        if height and size[0] % height == 0 and patches % height == 0:
            width = patches // height
            if alike(height, width):
                return True, Tokens(n_prefix, (height, width))
    counts = range(output.shape[1] - _MOST_PREFIX_TOKENS, output.shape[1] + 1)
    grids = ((side, n // side) for n in counts for side in range(2, n) if n % side == 0)
    return False, Tokens() if size[0] != size[1] and any(nearly(*one) for one in grids) else None


def _check_layer(
    layer: str, model: nn.Module, outputs: Mapping[str, _Output], name: str, *, is_reshaped: bool
) -> None:
    """Require that a layer exists, runs, and has positions; an error names similar ones."""
    if layer not in dict(model.named_modules()):
        problem = f"{name} has no layer {layer!r}"
    elif layer not in outputs:
        problem = f"The layer {layer!r} of {name} does not run when it classifies an image"
    elif (flat := outputs[layer].flat) is None or is_reshaped:
        return
    else:
        words = f"a tensor of the shape {tuple(flat)}"
        problem = f"The layer {layer!r} of {name} returns {words}, not a feature map"
    maps = _maps(outputs)
    last = [key for key in reversed(maps) if not _is_part(key, maps)]
    hint = did_you_mean(layer, maps) or f": its last feature maps are {', '.join(last[:3])}"
    raise ValueError(f"{problem}{hint}.")


def _last_that_matters(maps: dict[str, _Output], logits: Tensor, name: str) -> str:
    """The last map of which more than one position leads to the prediction.

    After a transformer's last attention only the class token does.
    """
    if not maps:
        raise ValueError(f"{name} has no layer with a feature map that could be explained.")
    tensors = {k: found.map for k, found in maps.items() if found.map is not None and found.edge[0]}
    if not tensors or not logits.requires_grad:
        raise ValueError(
            f"No gradient leads from the class scores of {name} to a layer with a feature map: it "
            "computes them under torch.no_grad, detaches or quantises them, or recomputes them by "
            "torch.utils.checkpoint."
        )
    gradients = torch.autograd.grad(logits.max(), list(tensors.values()), allow_unused=True)
    for key, gradient in reversed(list(zip(tensors, gradients, strict=True))):
        if gradient is not None:
            layout = maps[key].layout
            plain = gradient if layout is None else layout(gradient)
            if int((plain != 0).any(1).sum()) > 1:
                return key
    return next(reversed(maps))


def _scales_before(
    layer: str, maps: Mapping[str, _Output], source: _Edge, start: _Edge
) -> dict[str, tuple[float, float]]:
    """The maps before the layer that all paths pass, in order: their size by that of the layer."""
    if layer not in maps:
        return {}
    _, height, width = _shape(maps[layer])
    before = takewhile(lambda name: name != layer, maps)
    passed = [name for name in before if _all_paths_pass(maps[name].edge, start, source)]
    shapes = {name: _shape(maps[name]) for name in passed}
    return {name: (h / height, w / width) for name, (_, h, w) in shapes.items()}


def _layers_of_gated_grad_cam(
    layer: str, maps: Mapping[str, _Output], scales: dict[str, tuple[float, float]]
) -> tuple[str, ...]:
    """The layers of ``GatedGradCam``, the last of which is ``layer``; see :func:`probe`."""
    # In a transformer, methods that read attention are better: docs/explanation/known-truth.md.
    if not scales or isinstance(maps[layer].layout, Tokens):
        return ()
    last_first = {
        name: (round(rows), round(columns))
        for name, (rows, columns) in reversed(scales.items())
        if maps[name].edge != maps[layer].edge  # else they are the same tensor
    }
    finer = next((name for name, scale in last_first.items() if scale == (2, 2)), None)
    if finer is None:
        return ()
    for name, scale in last_first.items():
        is_block = next(maps[name].module.children(), None) is not None
        if scale == (1, 1) and is_block and not finer.startswith(f"{name}."):
            return finer, name, layer
    return finer, layer


def _all_paths_pass(edge: _Edge, start: _Edge, source: _Edge) -> bool:
    """Whether every path of the graph from the class scores to the image passes a tensor."""
    if edge[0] is None:
        return False
    seen = {edge}
    waiting = [start]
    while waiting:
        current = waiting.pop()
        if current == source:
            return False
        if current not in seen and current[0] is not None:
            seen.add(current)
            waiting.extend(current[0].next_functions)
    return True
