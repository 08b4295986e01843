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
    stub = ast.parse(pkgutil.get_data(package, "__init__.pyi") or b"")
    homes = {
        alias.name: line.module
        for line in stub.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = homes[name]
        if module is None:
            return importlib.import_module(f"{package}.{name}")
        home = import_optional(module, extra) if extra else importlib.import_module(module)
        found = getattr(home, name)
        setattr(sys.modules[package], name, found)
        return found

    return get, lambda: list(homes), [name for name, module in homes.items() if module]
