"""State-dict files: reading them, and loading them into a network."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict. Nothing in the file is executed.

    Wrappers (``{"state_dict": ...}``) and the prefixes of ``DataParallel`` and ``torch.compile``
    are removed. A file whose name ends in ``.safetensors`` is read by safetensors.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.is_dir():
        raise ValueError(f"The weights {path} are a folder, not a state-dict file.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) for key in content)
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise ValueError(
            f"The weights file {path} does not hold a state dict (names with tensors)."
        )
    state = dict(content)
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def load_state_dict(model: nn.Module, state: dict[str, Tensor], name: str, path: str) -> None:
    """Load a state dict into a model, all entries of which it must fit.

    The names of the model and of the file are for the message of an error.
    """
    own = model.state_dict()
    shapes = {
        key: f"{key} is {_shape(state[key])} instead of {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    }
    fitting = {key: value for key, value in state.items() if key not in shapes}
    # Modules know which of their entries older files may lack; a comparison of keys does not.
    missing, unknown = model.load_state_dict(fitting, strict=False)
    differences = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for keys, what in (
            ([key for key in missing if key not in shapes], "missing"),
            (unknown, "unknown"),
            (list(shapes.values()), "of another shape"),
        )
        if keys
    ]
    if differences:
        raise ValueError(
            f"The weights file {path} does not fit {name}: of its entries, "
            f"{', '.join(differences)}."
        )


def _read_safetensors(path: Path) -> Any:
    safetensors = import_optional("safetensors", "zoo")
    try:
        return import_optional("safetensors.torch", "zoo").load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"The weights file {path} is not a complete safetensors file ({reason(error)})."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # What torch.load raises on a damaged file depends on where the damage is.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise ValueError(
                f"The weights file {path} holds pickled Python objects, which can run any code "
                "and are not loaded: save model.state_dict() instead."
            ) from error
        raise ValueError(
            f"The weights file {path} is truncated or not a state-dict file."
        ) from error


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
