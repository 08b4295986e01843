"""State-dict files: reading them, and loading them into a network."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from captum_advise._utils.optional_dependencies import import_optional


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict. Nothing in the file is executed.

    Wrappers (``{"state_dict": ...}``) and the prefixes of ``DataParallel`` and ``torch.compile``
    are removed. A file whose name ends in ``.safetensors`` is read by safetensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    content = _read(path)
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
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        # A line on missing, one on unknown entries, and one for each of another shape.
        lines = [line.strip(" \t.") for line in str(error).splitlines()[1:4]]
        problems = "; ".join(textwrap.shorten(line, 160) for line in lines)
        raise ValueError(f"The weights file {path} does not fit {name}: {problems}.") from error


def _read(path: Path) -> Any:
    safetensors = import_optional("safetensors.torch", "zoo")
    try:
        if path.suffix == ".safetensors":
            return safetensors.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    # What reading a damaged file raises depends on where the damage is.
    except Exception as error:
        raise ValueError(
            f"The weights file {path} is truncated, not a state-dict file, or holds pickled Python "
            "objects, which can run any code and are not loaded: save model.state_dict()."
        ) from error
