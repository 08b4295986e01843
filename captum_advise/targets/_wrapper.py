"""What all wrappers share: the wrapped model, and the tensor to take from its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from captum_advise._utils.checks import kind
from captum_advise._utils.probabilities import HasConfidence

OutputSelector: TypeAlias = str | int | Callable[[Any], Any] | None


class Wrapper(HasConfidence, nn.Module):
    """A model as a part of another module, with its mode and without any change to it."""

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model must be a module or a function, got {type(model).__name__}.")
        self.model = model
        # Not self.train(), which reaches the model's modules.
        self.training = bool(getattr(model, "training", False))


def select_output(outputs: Any, selector: OutputSelector, default: tuple[str, ...]) -> Tensor:
    """The tensor of real numbers that a selector of :class:`Output` names in a model's output.

    Without a selector, it is the output itself if that is a tensor. Else it is the first of the
    keys or attributes ``default`` that the output has, or its only element.
    """
    if selector is None:
        value = _selected_by_default(outputs, default)
    elif callable(selector):
        value = selector(outputs)
    else:
        value = outputs
        for part in str(selector).split("."):
            members = _members(value)
            if part not in members:
                raise ValueError(
                    f"`output` names {part!r}, but the model returned {_described(value)}."
                )
            value = members[part]
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() == 0:
        got = kind(value) + (f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "")
        raise TypeError(
            "The model's output must be a tensor of real numbers with one row per image, got "
            f"{got}: name the tensor by `output`."
        )
    return value


def _selected_by_default(outputs: Any, default: tuple[str, ...]) -> Any:
    if isinstance(outputs, Tensor):
        return outputs
    members = _members(outputs)
    for name in default:
        if name in members:
            return members[name]
    if isinstance(outputs, Sequence) and len(outputs) == 1:
        return outputs[0]
    raise ValueError(
        f"The model returned {_described(outputs)}: name the tensor by `output`, a key, attribute "
        "or position, or a function of what the model returned."
    )


def _members(value: Any) -> dict[str, Any]:
    """What a model's output holds, by keys, attributes and positions."""
    if isinstance(value, Tensor | str):
        return {}
    held = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    parts = dict(enumerate(value)) if isinstance(value, Sequence) else {}
    fields = zip(getattr(value, "_fields", ()), parts.values(), strict=False)  # of a named tuple
    everything = {**dict(fields), **held, **parts}
    return {str(name): part for name, part in everything.items() if part is not None}


def _described(value: Any) -> str:
    kind_of_value = f"a {type(value).__name__}"
    names = [name for name in _members(value) if not name.isdecimal()]
    if names:
        return f"{kind_of_value} with {', '.join(names)}"
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return f"{kind_of_value} of {len(value)}" if is_sequence else kind_of_value
