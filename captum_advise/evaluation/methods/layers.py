"""Which layers of a model a method explains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_advise.layouts import Tokens
from captum_advise.zoo.layer_probe import layout_of, probe

if TYPE_CHECKING:
    from typing import TypeAlias

    from captum_advise.layouts import ReshapeTransform

# One of KINDS, or modules of the model, or their names.
LayerChoice: TypeAlias = "str | Sequence[str | nn.Module]"

# What the column ``layer`` of the results holds for methods that explain no layer.
INPUT, NONE = "input", "-"
KINDS = ("layer", "activation", "stages", "gated-grad-cam", INPUT, NONE)


@dataclass(frozen=True)
class Layers:
    """The layers that a method explains.

    Attributes:
        modules: From the first to the last. Empty if the method explains none.
        name: Their names, joined by ``+``; ``input`` or ``-`` if there are none.
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
    modules: Sequence[nn.Module]
    if choice == "layer":
        modules = (layer,)
    elif choice == "activation":
        modules = (_after_activation(_calls(model, inputs), layer),)
    elif choice == "stages":
        modules = _stages(_calls(model, inputs), layer, channels=inputs.shape[1])
    elif choice == "gated-grad-cam":
        own = next((name for name, module in model.named_modules() if module is layer), None)
        _, channels, *size = inputs.shape
        found = probe(model, (size[0], size[1]), "The model", layer=own, channels=channels)
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
    size: torch.Size
    is_activation: bool


def _calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """The calls that return feature maps, in order, of modules that are called once."""
    calls: dict[nn.Module, _Call | None] = {}

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if module in calls:  # a hook on it would see several values
            calls[module] = None
        elif isinstance(output, Tensor) and output.dim() == 4:
            # Now, because a module after it may overwrite the values.
            is_activation = bool((output >= 0).all())
            is_activation |= type(module).__module__ == "torch.nn.modules.activation"
            first = given[0] if given else None
            calls[module] = _Call(module, first, output, output.shape, is_activation)

    _run_on_noise(model, model.modules(), record, inputs)
    return [call for call in calls.values() if call is not None]


def _run_on_noise(
    model: nn.Module, modules: Iterable[nn.Module], hook: Callable[..., None], inputs: Tensor
) -> None:
    """Run the model once, with a forward hook on modules."""
    parameter = next(model.parameters(), inputs)
    noise = torch.rand(1, *inputs.shape[1:], generator=torch.Generator().manual_seed(0))
    with ExitStack() as hooks, torch.no_grad():
        for module in modules:
            hooks.enter_context(module.register_forward_hook(hook))
        model(noise.to(parameter.device, inputs.dtype))


def _after_activation(calls: Sequence[_Call], layer: nn.Module) -> nn.Module:
    """The layer, or the module after it that applies its activation function.

    Normalisation may lie between the two. Without an activation function, the layer.
    """
    reached = None
    for call in calls:
        if call.module is layer or (
            reached is not None and call.given is reached.output and call.size == reached.size
        ):
            reached = call
            if call.is_activation:
                return call.module
    return layer


def _stages(calls: Sequence[_Call], layer: nn.Module, channels: int) -> list[nn.Module]:
    """The last activation of each size of feature maps, from the largest to the layer's."""
    last = _after_activation(calls, layer)
    sizes = {call.module: call.size[2:] for call in calls}
    by_size: dict[torch.Size, nn.Module] = {}
    for call in calls if last in sizes else ():
        if call.module is last:
            break
        size = sizes[call.module]
        larger = all(side > least for side, least in zip(size, sizes[last], strict=True))
        # As many channels as the input: what a module that normalises it returns.
        if larger and call.is_activation and call.size[1] > channels:
            by_size[size] = call.module
    return [*(by_size[size] for size in sorted(by_size, reverse=True)), last]


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
