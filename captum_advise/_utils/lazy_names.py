"""Faces of packages that import a name when it is used (SPEC 1 of Scientific Python)."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from captum_advise._utils.optional_dependencies import import_optional


def lazy_names(
    package: str, extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, from its stub ``__init__.pyi``.

    Type checkers and editors read the same stub, so each name is said once. Its lines are
    ``from MODULE import NAME as NAME``, and ``from . import NAME as NAME`` for parts of the
    package, which ``__all__`` leaves out. A name must differ from those of the package's modules:
    importing such a module would replace what the name stands for. Errors of missing packages name
    the ``extra`` that brings them.
    """
    parts: list[str] = []
    homes: dict[str, str] = {}
    for line in ast.parse(pkgutil.get_data(package, "__init__.pyi") or b"").body:
        if isinstance(line, ast.ImportFrom):
            names = [alias.name for alias in line.names]
            parts += names if line.module is None else []
            homes |= dict.fromkeys(names, line.module) if line.module else {}

    def get(name: str) -> Any:
        if name in parts:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = (
            import_optional(homes[name], extra) if extra else importlib.import_module(homes[name])
        )
        found = getattr(home, name)
        setattr(sys.modules[package], name, found)
        return found

    return get, lambda: [*homes, *parts], list(homes)
