"""Packages that only some installations have, or that may be broken where they are installed."""

from __future__ import annotations

import importlib
from typing import Any


def package(module: str, extra: str | None = None) -> Any:
    """A module, or an error that says what to install.

    Args:
        module: Dotted name.
        extra: Of this package, that brings the module; None for what every installation should
            have.

    Raises:
        ModuleNotFoundError: The module, or one that it imports, is missing.
        ImportError: It is there and cannot be imported, as torchvision beside another torch than
            its own.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        install = f'"captum-advise[{extra}]"' if extra else str(error.name).partition(".")[0]
        raise ModuleNotFoundError(
            f"The package {error.name} is missing: pip install {install}.", name=error.name
        ) from error
    # What a compiled package raises where it does not fit its surroundings differs.
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ImportError(
            f"{module} is installed but cannot be imported ({reason[0]}): install it again; "
            "torch and torchvision must be a pair that was released together.",
            name=module,
        ) from error
