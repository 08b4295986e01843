"""Which layers of a model a method explains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
    """The layers that a method explains.

    Attributes:
        modules: From the first to the last. Empty if the method explains none.
        name: Their names, joined by ``+``, of many the first and the last; ``input``,
            ``attention`` or ``-`` if there are none.
        reshape_transforms: One per module, for those that are not (N, C, H, W).
    """

    modules: tuple[nn.Module, ...]
    name: str
    reshape_transforms: tuple[ReshapeTransform | None, ...] = ()


def find_layers(
    model: nn.Module,
    layer: nn.Module,
    choice: str,
    inputs: Tensor,
    reshape_transform: ReshapeTransform | None = None,
) -> Layers:
    """The modules that a method explains, with their layouts. The model runs on noise.

    Args:
        model: In eval mode.
        layer: The layer of the run.
        choice: As the attribute ``layers`` of a :class:`Method`.
        inputs: (N, C, H, W); only the shape and the type count.
        reshape_transform: How to rearrange what ``layer`` returns. None: found by its shape, as
            for other modules.

    Raises:
        ValueError: There is no such choice, no layer of its kind, or the tokens of a layer are not
            a grid of the image's aspect.
    """
    if choice not in KINDS:
        raise ValueError(
            f"A method's attribute layers is one of {', '.join(KINDS)}, got {choice!r}."
        )
    if choice in (INPUT, NONE):
        return Layers((), choice)
    if choice == ATTENTION:
        AttentionPass.run(model, _noise(model, inputs))
        return Layers((), ATTENTION)
    names = {module: name for name, module in model.named_modules()}
    calls = [] if choice == "gated-grad-cam" else _calls(model, inputs)
    layouts = {call.module: call.layout for call in calls}
    # Of these modules, a hook sees one feature map.
    maps = [call for call in calls if call.is_only and call.layout != Tokens()]
    modules: Sequence[nn.Module] = (layer,)
    if choice == "activation":
        modules = (_after_activation(maps, layer),)
    elif choice == "stages":
        modules = _stages(model, layer, inputs, maps)
    elif choice == "convolutions":
        modules = _convolutions(model, layer, maps)
    elif choice == "gated-grad-cam":
        found = _probed(model, layer, inputs)
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

    module: nn.Module
    given: Any
    output: Tensor
    layout: ReshapeTransform | None  # Tokens() if tokens do not form a grid of the image
    is_activation: bool
    is_only: bool  # the only call of the module


def _calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
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
        is_only = module not in calls
        calls[module] = _Call(module, first, output, layout, is_activation, is_only)

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(record))
        model(_noise(model, inputs))
    return list(calls.values())


def _noise(model: nn.Module, inputs: Tensor) -> Tensor:
    parameter = next(model.parameters(), inputs)
    return noise(1, *inputs.shape[1:]).to(parameter.device, inputs.dtype)


def _probed(model: nn.Module, layer: nn.Module, inputs: Tensor) -> Probe:
    names = {module: name for name, module in model.named_modules()}
    _, channels, height, width = inputs.shape
    return probe(model, (channels, height, width), "The model", layer=names[layer])


def _call_of(maps: Sequence[_Call], layer: nn.Module) -> _Call | None:
    return next((call for call in maps if call.module is layer), None)


def _after_activation(maps: Sequence[_Call], layer: nn.Module) -> nn.Module:
    """The layer, or the module after it that applies its activation function.

    Normalisation may lie between the two. Without an activation function, the layer.
    """
    reached = None
    for call in maps:
        follows = reached is not None and call.given is reached.output
        if call.module is layer or (follows and call.output.shape == call.given.shape):
            reached = call
            if call.is_activation:
                return call.module
    return layer


def _stages(
    model: nn.Module, layer: nn.Module, inputs: Tensor, maps: Sequence[_Call]
) -> Sequence[nn.Module]:
    """The last activation of each size of feature maps, from the largest to the layer's.

    Without activations, the last map that all paths pass; of tokens, which have one size, the
    normalisations like the layer in all blocks.
    """
    if tokens := _alike(model, layer, maps):
        return tokens
    last = _after_activation(maps, layer)
    plain = [call for call in maps if call.layout is None]
    own = _call_of(plain, last)
    by_size: dict[torch.Size, nn.Module] = {}
    if own is not None:
        side = own.output.shape[2:]
        for call in plain[: plain.index(own)]:
            size = call.output.shape[2:]
            is_larger = all(a > b for a, b in zip(size, side, strict=True))
            # As many channels as the input: what a module that normalises it returns.
            if is_larger and call.is_activation and call.output.shape[1] > inputs.shape[1]:
                by_size[size] = call.module
    if not by_size:
        found = _probed(model, layer, inputs)
        return [*(model.get_submodule(name) for name in found.finer_layers), last]
    return [*(by_size[size] for size in sorted(by_size, reverse=True)), last]


def _convolutions(model: nn.Module, layer: nn.Module, maps: Sequence[_Call]) -> Sequence[nn.Module]:
    """All convolutions that run before the layer, and the layer.

    Normalisations instead where the layer is channels last, and what is like it of tokens.
    """
    if tokens := _alike(model, layer, maps):
        return tokens
    own = _call_of(maps, layer)
    if own is None:
        raise ValueError("it needs a layer that returns a feature map: name another one")
    before = [call for call in maps[: maps.index(own)] if call.layout == own.layout]
    if own.layout is None:
        return [*(c.module for c in before if isinstance(c.module, nn.Conv2d)), layer]
    return [*(c.module for c in before if "norm" in type(c.module).__name__.lower()), layer]


def _alike(model: nn.Module, layer: nn.Module, maps: Sequence[_Call]) -> list[nn.Module]:
    """A layer of tokens and the same of earlier blocks; empty if the layer is of another kind."""
    own = _call_of(maps, layer)
    if own is None or not isinstance(own.layout, Tokens):
        return []
    # blocks.*.norm1 of blocks.0.norm1.
    kinds: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        head, _, last = name.rpartition(".")
        kinds[module] = re.sub(r"\d+", "*", head) + last
    alike = [call for call in maps if call.layout == own.layout]
    return [call.module for call in alike if kinds[call.module] == kinds[layer]]
