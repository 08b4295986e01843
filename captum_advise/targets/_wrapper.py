"""What all wrappers share: the wrapped model, and the tensor to take from its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
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

    Without one, it is the output itself if it is a tensor, the first of the keys or attributes
    ``default`` that it has, or its only element.
    """
    if selector is None:
        value = _selected_by_default(outputs, default)
    elif callable(selector):
        value = selector(outputs)
    else:
        value = outputs
        for part in str(selector).split("."):
            value = _member(value, part)
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
    names = _names(outputs)
    for name in default:
        if name in names:
            return _member(outputs, name)
    if isinstance(outputs, Sequence) and len(outputs) == 1:
        return outputs[0]
    raise ValueError(
        f"The model returned {_described(outputs)}: name the tensor by `output`, a key, attribute "
        "or position, or a function of what the model returned."
    )


def _member(value: Any, part: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, Sequence) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    # A tensor has attributes as well, such as T, that nobody means.
    if not isinstance(value, Tensor) and hasattr(value, part):
        return getattr(value, part)
    raise ValueError(f"`output` names {part!r}, but the model returned {_described(value)}.")


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [key for key in value if isinstance(key, str)]
    if is_dataclass(value):
        return [field.name for field in fields(value) if getattr(value, field.name) is not None]
    return [*getattr(value, "_fields", ()), *getattr(value, "__dict__", ())]


def _described(value: Any) -> str:
    name, names = type(value).__name__, _names(value)
    if names:
        return f"a {name} with {', '.join(names)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {name} of {len(value)}"
    return f"a {name}"
