"""Identity of objects across processes: what a stored row depends on.

A function is known by its module, name and code, and by the plain data that it uses: defaults,
closure, attributes, and the functions, classes and constants that it reads from its module. An
object is known by its class and attributes, and a model by its weights, classes and settings.
Addresses and file names play no part. Installed packages are known by name and version, which
stands for their code.
"""

from __future__ import annotations

import argparse
import array
import collections
import dataclasses
import datetime
import enum
import functools
import hashlib
import numbers
import operator
import re
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise.evaluation.digests import digest, tensor_bytes, weights_digest

# Packages that are not a user's own code, wherever they lie.
_INSTALLED = {"captum", "captum_advise", "numpy", "timm", "torch", "torchcam", "torchvision"}
_STANDARD = {"builtins", *sys.stdlib_module_names}
# Objects of these have no settings, or none that can be told from traces of their use.
_OPAQUE = {"torch", *_STANDARD} - {"argparse", "functools", "types"}

_PLAIN = (
    *(bool, int, float, complex, str, bytes, bytearray, range, slice, PurePath),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
# Of the standard library, what never changes.
_VALUES = (
    *(re.Pattern, operator.itemgetter, operator.attrgetter, operator.methodcaller),
    *(numbers.Number, datetime.date, datetime.time, datetime.timedelta),
)
# What a function may read from its module and seldom changes there, beside dataclasses. Lists,
# dictionaries and other objects may be traces of its use.
_FIXED = (
    *(*_PLAIN, *_VALUES, tuple, frozenset, enum.Enum, Tensor, np.ndarray),
    *(types.ModuleType, types.SimpleNamespace, argparse.Namespace),
)
# In these, two definitions of one class may differ although they do the same.
_CLASS_DETAILS = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
    *("__annotations__", "__annotate_func__", "__annotations_cache__", "_abc_impl"),
    *("__dataclass_fields__", "__dataclass_params__", "__static_attributes__"),
}
# What every module has: parameters, hooks and the like.
_DETAILS = set(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

# The packages whose versions every row depends on anyway.
PACKAGES = ("captum", "captum_advise", "torch")


def identity(value: Any, *, with_weights: bool = True) -> str:
    """What a function, a model, or any other object is, as a short digest.

    Equal objects have the same in every process. ``with_weights``: the weights of models count.
    """
    stream = _Stream(with_weights)
    stream.add(value)
    return stream.hash.hexdigest()[:16]


def version_of(package: str) -> str:
    """The version of a package, without the part that names the device it was built for."""
    (distribution, *_) = _distributions().get(package, [package])
    try:
        return metadata.version(distribution).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


_distributions = functools.cache(metadata.packages_distributions)


class _Stream:
    """Writes objects into a digest: what kind each is, and its parts."""

    def __init__(self, with_weights: bool) -> None:
        self.hash = hashlib.sha256()
        self._with_weights = with_weights
        # By address. The objects are kept, or their addresses could be given to others.
        self._seen: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> None:
        if isinstance(value, _PLAIN) and not isinstance(value, enum.Enum):
            self._write(type(value).__name__, value if isinstance(value, bytes) else str(value))
        elif id(value) in self._seen:
            self._write("again", str(self._seen[id(value)][0]))
        else:
            # Equal constants may be one object, or several.
            if not isinstance(value, tuple | types.CodeType):
                self._seen[id(value)] = len(self._seen), value
            kind, *parts = self._parts(value)
            self._write(kind, str(len(parts)))
            for part in parts:
                self.add(part)

    def _write(self, *parts: str | bytes) -> None:
        for part in parts:
            data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
            self.hash.update(len(data).to_bytes(8, "little"))
            self.hash.update(data)

    def _parts(self, value: Any) -> tuple[Any, ...]:
        """The kind of an object, and what is to be known of it."""
        match value:
            case enum.Enum():
                return "member", value.name, value.value, type(value)
            case tuple():
                return _name(type(value)), *value
            case list() | collections.deque() | array.array():
                return "list", *value
            case set() | frozenset():
                return "set", *sorted(value, key=_order)
            case dict() | types.MappingProxyType():
                keys = sorted(value, key=_order)
                return "mapping", *(part for key in keys for part in (key, value[key]))
            case Tensor():
                shape = tuple(value.shape)
                return "tensor", str(value.dtype), shape, digest(tensor_bytes(value))
            case np.ndarray() | np.generic():
                plain = value.tolist() if value.dtype.hasobject else digest(value.tobytes())
                return "array", value.dtype.str, value.shape, plain
            case re.Pattern():
                return "pattern", value.pattern, value.flags
            case _ if isinstance(value, _VALUES):
                # What makes an equal one, for a pickle.
                return "value", *value.__reduce_ex__(2)
            case nn.Module():
                return self._module(value)
            case types.ModuleType():
                self._package(value.__name__)
                return "package", value.__name__
            case type():
                own = {k: v for k, v in vars(value).items() if k not in _CLASS_DETAILS}
                is_own = self._package(value.__module__) is None
                return "class", _name(value), *((value.__bases__, own) if is_own else ())
            case types.FunctionType():
                compiled = vars(value).get("_torchdynamo_orig_callable")
                return ("compiled", compiled) if compiled else self._function(value)
            case types.CodeType():
                return _code(value)
            case types.MethodType() | staticmethod() | classmethod():
                return "method", value.__func__, getattr(value, "__self__", None)
            case types.BuiltinFunctionType():
                owner: Any = value.__self__
                is_method = not isinstance(owner, type | types.ModuleType)
                return "built-in", _name(value), owner if is_method else None
            case property():
                return "property", value.fget, value.fset, value.fdel
            case functools.partial():
                return "partial", value.func, value.args, value.keywords
            case _:
                return self._object(value)

    def _package(self, module: str | None) -> str | None:
        """The installed package that a module belongs to, if it is not a user's own."""
        package = _installed(module or "builtins")
        if package is not None and package not in {*PACKAGES, *_STANDARD}:
            self._write("version", version_of(package))
        return package

    def _function(self, function: types.FunctionType) -> tuple[Any, ...]:
        is_own = self._package(function.__module__) is None
        return (
            "function",
            _name(function),
            function.__code__,
            [_content(cell) for cell in function.__closure__ or ()],
            (function.__defaults__, function.__kwdefaults__),
            vars(function),
            dict(_globals(function)) if is_own else None,
        )

    def _module(self, module: nn.Module) -> tuple[Any, ...]:
        found: list[Any] = []
        for name, part in module.named_modules():
            # What these do is in their code, and in the module that torch.compile has wrapped.
            is_script = isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule)
            is_wrapper = type(part).__module__.startswith("torch._dynamo")
            # Tensors other than parameters may be traces of use, as activations.
            own = {
                key: value
                for key, value in vars(part).items()
                if not (is_script or is_wrapper or key in _DETAILS)
                and not (value is None or isinstance(value, Tensor))
            }
            hooks = [list(getattr(part, key, {}).values()) for key in _HOOKS]
            script = str(getattr(part, "code", "")) if is_script else ""
            found += name, type(part), own, part.training, hooks, script
        return "model", weights_digest(module) if self._with_weights else "", *found

    def _object(self, value: Any) -> tuple[Any, ...]:
        found = ("object", type(value), str(getattr(value, "__name__", "")))
        if self._package(type(value).__module__) in _OPAQUE:
            return found
        # Neither an absent value nor one that comes from a computation is a setting.
        attributes = {
            key: own
            for key, own in _attributes(value)
            if own is not None and not (isinstance(own, Tensor) and own.grad_fn is not None)
        }
        return *found, attributes


def _name(value: Any) -> str:
    """Module and qualified name of a function or class."""
    return f"{value.__module__}.{value.__qualname__}"


def _order(value: Any) -> str:
    """An order of keys and members that is the same in every process."""
    return repr(value) if isinstance(value, (*_PLAIN, tuple, enum.Enum)) else ""


def _code(code: types.CodeType) -> tuple[Any, ...]:
    arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    exceptions: bytes = getattr(code, "co_exceptiontable", b"")  # from Python 3.11 on
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return "code", code.co_code, exceptions, arguments, names, code.co_consts


def _installed(module: str) -> str | None:
    """The package that a module belongs to, if it is installed or Python's own."""
    package = module.partition(".")[0]
    if package in _INSTALLED or package in _STANDARD:
        return package
    if package == "__main__":
        return None
    loaded = sys.modules.get(package)
    places = [getattr(loaded, "__file__", None), *getattr(loaded, "__path__", ())]
    parts = {part for place in places if place for part in Path(place).parts}
    return package if parts & {"site-packages", "dist-packages"} else None


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function reads from its module, and from a user's modules named there."""
    names = {name for code in _nested(function.__code__) for name in code.co_names}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType) and _installed(value.__name__) is None:
            found = {f"{name}.{key}": own for key, own in vars(value).items() if key in names}
        else:
            found = {name: value}
        for key, own in found.items():
            if isinstance(own, _FIXED) or callable(own) or dataclasses.is_dataclass(own):
                yield key, own


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object, without cached properties, which appear when they are used."""
    for name, attribute in getattr(value, "__dict__", {}).items():
        if not isinstance(getattr(type(value), str(name), None), functools.cached_property):
            yield name, attribute
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield name, getattr(value, name)
