"""Which layers of a model a method explains."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.attention import AttentionPass
from captum_advise.layouts import Tokens
from captum_advise.zoo.layer_probe import Probe, layout_of, probe

if TYPE_CHECKING:
    from typing import TypeAlias

    from captum_advise.layouts import ReshapeTransform

# One of KINDS, or modules of the model, or their names.
LayerChoice: TypeAlias = "str | Sequence[str | nn.Module]"

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


def choice_of(method: Any) -> LayerChoice:
    """What a method's attribute ``layers`` says; without one, it explains the run's layer."""
    choice: LayerChoice = getattr(method, "layers", "layer")
    return choice


def find_layers(
    model: nn.Module,
    layer: nn.Module,
    choice: LayerChoice,
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
        ValueError: There is no such choice, no module of such a name, no layer of its kind, or the
            tokens of a layer are not a grid of the image's aspect.
    """
    if choice in (INPUT, NONE):
        return Layers((), str(choice))
    if choice == ATTENTION:
        AttentionPass.run(model, _noise(model, inputs))
        return Layers((), ATTENTION)
    modules: Sequence[nn.Module]
    if choice == "layer":
        modules = (layer,)
    elif choice == "activation":
        modules = (_after_activation(_calls(model, inputs), layer),)
    elif choice == "stages":
        modules = _stages(model, layer, inputs)
    elif choice == "convolutions":
        modules = _convolutions(model, layer, inputs)
    elif choice == "gated-grad-cam":
        own = _name_of(model, layer)
        found = _probed(model, layer, inputs)
        if not found.layers:
            raise ValueError(
                f"GatedGradCam needs a layer with twice the resolution of {own}, and the model has "
                "none: leave the method out, or name another layer."
            )
        modules = [model.get_submodule(name) for name in found.layers]
    elif isinstance(choice, str) or not choice:
        raise ValueError(
            f"A method's attribute layers is one of {', '.join(KINDS)}, or a list of modules or "
            f"their names, got {choice!r}."
        )
    else:
        modules = [_module(model, entry) for entry in choice]
    names = {module: name for name, module in model.named_modules()}
    # An object may explain another model, whose modules have no name in this one.
    shown = [names.get(module, type(module).__name__) for module in modules]
    layouts = _layouts(model, modules, inputs)
    if reshape_transform is not None:
        layouts[layer] = reshape_transform
    if len(shown) > _MOST_SHOWN:
        shown = [shown[0], f"... ({len(shown)} layers)", shown[-1]]
    return Layers(tuple(modules), "+".join(shown), tuple(layouts.get(m) for m in modules))


def _layouts(
    model: nn.Module, modules: Sequence[nn.Module], inputs: Tensor
) -> dict[nn.Module, ReshapeTransform | None]:
    """How to rearrange what modules return, where they run and it is not (N, C, H, W)."""
    found: dict[nn.Module, ReshapeTransform | None] = {}

    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        _, found[module] = layout_of(output, (inputs.shape[2], inputs.shape[3]))
        if found[module] is None and isinstance(output, Tensor) and output.dim() == 3:
            found[module] = Tokens()  # of no grid that fits

    _run_on_noise(model, modules, record, inputs)
    return found


class _Call(NamedTuple):
    """The only call of a module that returns a feature map."""

    module: nn.Module
    given: Any
    output: Tensor
    layout: ReshapeTransform | None
    is_activation: bool


def _calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """The calls that return feature maps, in order, of modules that are called once."""
    calls: dict[nn.Module, _Call | None] = {}

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if module in calls:  # a hook on it would see several values
            calls[module] = None
        elif isinstance(output, Tensor) and output.dim() in (3, 4):
            # Now, because a module after it may overwrite the values.
            is_activation = bool((output >= 0).all())
            is_activation |= type(module).__module__ == "torch.nn.modules.activation"
            first = given[0] if given else None
            _, layout = layout_of(output, (inputs.shape[2], inputs.shape[3]))
            if output.dim() == 4 or layout is not None:
                calls[module] = _Call(module, first, output, layout, is_activation)

    _run_on_noise(model, model.modules(), record, inputs)
    return [call for call in calls.values() if call is not None]


def _run_on_noise(
    model: nn.Module, modules: Iterable[nn.Module], hook: Callable[..., None], inputs: Tensor
) -> None:
    """Run the model once, with a forward hook on modules."""
    with ExitStack() as hooks, torch.no_grad():
        for module in modules:
            hooks.enter_context(module.register_forward_hook(hook))
        model(_noise(model, inputs))


def _noise(model: nn.Module, inputs: Tensor) -> Tensor:
    parameter = next(model.parameters(), inputs)
    noise = torch.rand(1, *inputs.shape[1:], generator=torch.Generator().manual_seed(0))
    return noise.to(parameter.device, inputs.dtype)


def _name_of(model: nn.Module, layer: nn.Module) -> str | None:
    return next((name for name, module in model.named_modules() if module is layer), None)


def _probed(
    model: nn.Module, layer: nn.Module, inputs: Tensor, *, with_finer_layers: bool = False
) -> Probe:
    _, channels, height, width = inputs.shape
    return probe(
        model,
        (height, width),
        "The model",
        layer=_name_of(model, layer),
        channels=channels,
        with_finer_layers=with_finer_layers,
    )


def _after_activation(calls: Sequence[_Call], layer: nn.Module) -> nn.Module:
    """The layer, or the module after it that applies its activation function.

    Normalisation may lie between the two. Without an activation function, the layer.
    """
    reached = None
    for call in calls:
        follows = reached is not None and call.given is reached.output
        if call.module is layer or (follows and call.output.shape == call.given.shape):
            reached = call
            if call.is_activation:
                return call.module
    return layer


def _stages(model: nn.Module, layer: nn.Module, inputs: Tensor) -> Sequence[nn.Module]:
    """The last activation of each size of feature maps, from the largest to the layer's.

    Without activations, the last map that all paths pass; of tokens, which have one size, the
    normalisations like the layer in all blocks.
    """
    calls = _calls(model, inputs)
    if tokens := _alike(model, layer, calls):
        return tokens
    last = _after_activation(calls, layer)
    sizes = {call.module: call.output.shape[2:] for call in calls if call.layout is None}
    by_size: dict[torch.Size, nn.Module] = {}
    for call in calls if last in sizes else ():
        if call.module is last:
            break
        if call.module not in sizes:
            continue
        size = sizes[call.module]
        larger = all(side > least for side, least in zip(size, sizes[last], strict=True))
        # As many channels as the input: what a module that normalises it returns.
        if larger and call.is_activation and call.output.shape[1] > inputs.shape[1]:
            by_size[size] = call.module
    if not by_size:
        found = _probed(model, layer, inputs, with_finer_layers=True)
        return [*(model.get_submodule(name) for name in found.finer_layers), last]
    return [*(by_size[size] for size in sorted(by_size, reverse=True)), last]


def _convolutions(model: nn.Module, layer: nn.Module, inputs: Tensor) -> Sequence[nn.Module]:
    """All convolutions that run before the layer, and the layer.

    Normalisations instead where the layer is channels last, and what is like it of tokens.
    """
    calls = _calls(model, inputs)
    own = next((call for call in calls if call.module is layer), None)
    if own is None:
        raise ValueError("it needs a layer that returns a feature map: name another one")
    before = calls[: calls.index(own)]
    found: list[nn.Module]
    if own.layout is None:
        found = [call.module for call in before if isinstance(call.module, nn.Conv2d)]
    else:
        alike = [call for call in before if call.layout == own.layout]
        found = [c.module for c in alike if "norm" in type(c.module).__name__.lower()]
    return _alike(model, layer, calls) or [*found, layer]


def _alike(model: nn.Module, layer: nn.Module, calls: Sequence[_Call]) -> list[nn.Module]:
    """A layer of tokens and the same of earlier blocks; empty if the layer is of another kind."""
    own = next((call for call in calls if call.module is layer), None)
    if own is None or not isinstance(own.layout, Tokens):
        return []
    # blocks.*.norm1 of blocks.0.norm1.
    kinds: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        head, _, last = name.rpartition(".")
        kinds[module] = re.sub(r"\d+", "*", head) + last
    alike = [call for call in calls if call.layout == own.layout]
    return [call.module for call in alike if kinds[call.module] == kinds[layer]]


def _module(model: nn.Module, entry: str | nn.Module) -> nn.Module:
    if isinstance(entry, nn.Module):
        return entry
    try:
        return model.get_submodule(entry)
    except AttributeError as error:
        raise ValueError(
            f"A method explains the layer {entry!r}, which the model does not have: give the name "
            "of one of its modules."
        ) from error
