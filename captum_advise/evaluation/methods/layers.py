"""Which layers of a model a method explains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.attention import AttentionPass
from captum_advise.layouts import Tokens
from captum_advise.zoo.layer_probe import Probe, layout_of, noise, probe

if TYPE_CHECKING:
    from captum_advise.layouts import ReshapeTransform

# What the column ``layer`` of the results holds for methods that explain no layer.
INPUT, NONE, ATTENTION = "input", "-", "attention"
KINDS = ("layer", "activation", "stages", "convolutions", "gated-grad-cam", ATTENTION, INPUT, NONE)

_MOST_SHOWN = 8


@dataclass(frozen=True)
class Layers:
    """The layers that a method explains."""

    modules: tuple[nn.Module, ...]  # from the first to the last; empty if it explains none
    name: str  # the column ``layer`` of the results
    reshape_transforms: tuple[ReshapeTransform | None, ...] = ()  # None where (N, C, H, W)


def find_layers(
    model: nn.Module,
    layer: nn.Module,
    choice: str,
    inputs: Tensor,
    reshape_transform: ReshapeTransform | None = None,
) -> Layers:
    """The modules that a method explains, with their layouts. The model runs on noise.

    ``layer`` is that of the run, and ``choice`` the attribute ``layers`` of a :class:`Method`. Of
    ``inputs``, (N, C, H, W), only the shape and the type count. ``reshape_transform`` is for
    ``layer``; without it, and for other modules, layouts are found by their shapes.

    Raises:
        ValueError: There is no such choice, no layer of its kind, or the tokens of a layer are not
            a grid of the image's aspect.
    """
    if choice not in KINDS:
        raise ValueError(
            f"A method's attribute layers is one of {', '.join(KINDS)}, got {choice!r}."
        )
    if choice == ATTENTION:
        AttentionPass.run(model, _noise(model, inputs))
    if choice in (INPUT, NONE, ATTENTION):
        return Layers((), choice)
    names = {module: name for name, module in model.named_modules()}
    calls: _Calls = {} if choice == "gated-grad-cam" else _calls(model, inputs)
    layouts = {module: call.layout for module, call in calls.items()}
    # Of these modules, a hook sees one feature map.
    maps = {m: call for m, call in calls.items() if call.is_only and call.layout != Tokens()}
    tokens = _of_tokens(names, layer, maps)
    modules: Sequence[nn.Module] = (layer,)
    if choice == "activation":
        modules = (_after_activation(maps, layer),)
    elif choice in ("stages", "convolutions") and tokens:  # of one size, without convolutions
        modules = tokens
    elif choice == "stages":
        modules = _stages(model, names[layer], inputs, maps)
    elif choice == "convolutions":
        modules = _convolutions(layer, maps)
    elif choice == "gated-grad-cam":
        found = _probed(model, names[layer], inputs)
        layouts = {model.get_submodule(name): layout for name, layout in found.layouts.items()}
        modules = [model.get_submodule(name) for name in found.layers]
        if not modules:
            raise ValueError(
                f"GatedGradCam needs a layer with twice the resolution of {names[layer]}, and the "
                "model has none: leave the method out, or name another layer."
            )
    if reshape_transform is not None:
        layouts[layer] = reshape_transform
    for module in modules:
        if layouts.get(module) == Tokens():
            raise ValueError(
                f"{names[module]} returns tokens that are not a grid of the image's aspect: give "
                "reshape_transform, or name another layer"
            )
    shown = [names[module] for module in modules]
    if len(shown) > _MOST_SHOWN:
        shown = [shown[0], f"... ({len(shown)} layers)", shown[-1]]
    return Layers(tuple(modules), "+".join(shown), tuple(layouts.get(m) for m in modules))


class _Call(NamedTuple):
    """The last call of a module that returns a tensor of three or four dimensions."""

    given: Any
    output: Tensor
    layout: ReshapeTransform | None  # Tokens() if tokens do not form a grid of the image
    is_activation: bool
    is_only: bool  # the only call of the module


_Calls: TypeAlias = Mapping[nn.Module, _Call]


def _calls(model: nn.Module, inputs: Tensor) -> _Calls:
    """The calls of modules in one pass on noise, in the order of their first calls."""
    calls: dict[nn.Module, _Call] = {}

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.dim() not in (3, 4):
            return
        _, layout = layout_of(output, (inputs.shape[2], inputs.shape[3]))
        if layout is None and output.dim() == 3:
            layout = Tokens()
        # Now, because a module after it may overwrite the values.
        is_activation = bool((output >= 0).all())
        is_activation |= type(module).__module__ == "torch.nn.modules.activation"
        first = given[0] if given else None
        calls[module] = _Call(first, output, layout, is_activation, module not in calls)

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(record))
        model(_noise(model, inputs))
    return calls


def _noise(model: nn.Module, inputs: Tensor) -> Tensor:
    parameter = next(model.parameters(), inputs)
    return noise(1, *inputs.shape[1:]).to(parameter.device, inputs.dtype)


def _probed(model: nn.Module, name: str, inputs: Tensor) -> Probe:
    _, channels, height, width = inputs.shape
    return probe(model, (channels, height, width), "The model", layer=name)


def _before(maps: _Calls, layer: nn.Module) -> dict[nn.Module, _Call]:
    """The calls before that of a layer, of which there is one, with its layout."""
    modules = list(maps)
    before = modules[: modules.index(layer)]
    return {m: maps[m] for m in before if maps[m].layout == maps[layer].layout}


def _after_activation(maps: _Calls, layer: nn.Module) -> nn.Module:
    """The layer, or the module after it that applies its activation function.

    Normalisation may lie between the two. Without an activation function, the layer.
    """
    reached = None
    for module, call in maps.items():
        follows = reached is not None and call.given is reached.output
        if module is layer or (follows and call.output.shape == call.given.shape):
            reached = call
            if call.is_activation:
                return module
    return layer


def _stages(model: nn.Module, name: str, inputs: Tensor, maps: _Calls) -> Sequence[nn.Module]:
    """The last activation of each size of feature maps, from the largest to the layer's.

    Without activations, the last map that all paths pass.
    """
    last = _after_activation(maps, model.get_submodule(name))
    by_size: dict[torch.Size, nn.Module] = {}
    if last in maps and maps[last].layout is None:
        side = maps[last].output.shape[2:]
        for module, call in _before(maps, last).items():
            size = call.output.shape[2:]
            is_larger = all(a > b for a, b in zip(size, side, strict=True))
            # As many channels as the input: what a module that normalises it returns.
            if is_larger and call.is_activation and call.output.shape[1] > inputs.shape[1]:
                by_size[size] = module
    if not by_size:
        found = _probed(model, name, inputs)
        return [*(model.get_submodule(finer) for finer in found.finer_layers), last]
    return [*(by_size[size] for size in sorted(by_size, reverse=True)), last]


def _convolutions(layer: nn.Module, maps: _Calls) -> Sequence[nn.Module]:
    """All convolutions that run before the layer, and the layer.

    Normalisations instead where the layer is channels last.
    """
    if layer not in maps:
        raise ValueError("it needs a layer that returns a feature map: name another one")
    before = _before(maps, layer)
    if maps[layer].layout is None:
        return [*(module for module in before if isinstance(module, nn.Conv2d)), layer]
    return [*(module for module in before if "norm" in type(module).__name__.lower()), layer]


def _of_tokens(
    names: Mapping[nn.Module, str], layer: nn.Module, maps: _Calls
) -> Sequence[nn.Module]:
    """A layer of tokens and the same of all other blocks; empty if it is of another kind."""
    if layer not in maps or not isinstance(maps[layer].layout, Tokens):
        return ()

    def kind(module: nn.Module) -> str:
        """That of blocks.0.norm1 is blocks.*.norm1."""
        head, _, last = names[module].rpartition(".")
        return re.sub(r"\d+", "*", head) + last

    own = kind(layer), maps[layer].layout
    return [module for module, call in maps.items() if (kind(module), call.layout) == own]
