"""Optional dependencies: packages that may be missing, or broken where they are installed."""

from __future__ import annotations

import importlib
from typing import Any

from captum_advise._utils.errors import reason


def import_optional(module: str, extra: str | None = None) -> Any:
    """Import a module, or raise an error that names the extra of this package to install.

    Without an ``extra``, it names the package itself.
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
        raise ImportError(
            f"{module} is installed but cannot be imported ({reason(error)}): install it again; "
            "torch and torchvision must be a pair that was released together.",
            name=module,
        ) from error
