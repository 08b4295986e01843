"""Packages that only some installations have."""

from __future__ import annotations

import importlib
from typing import Any


def package(module: str, extra: str = "evaluation") -> Any:
    """The module, or an error that names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'The package {error.name} is missing: pip install "captum-advise[{extra}]".',
            name=error.name,
        ) from error
