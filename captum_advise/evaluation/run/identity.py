"""Identity of objects across processes: what a stored row depends on.

A function is known by its module, name and code, and by the plain data that it uses: defaults,
closure, attributes, and the functions, classes and constants that it reads from its module. An
object is known by its class and attributes, and a model by its weights, classes and settings.
Addresses and file names play no part. Installed packages are known by name; their versions stand
for their code.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise.evaluation.digests import digest, tensor_bytes, weights_digest

# Packages that are not a user's own code, wherever they lie.
_INSTALLED = {"captum", "captum_advise", "numpy", "timm", "torch", "torchcam", "torchvision"}
# Those whose objects hold settings. Attributes of other packages' objects count if these can be
# called, as methods can.
_WITH_SETTINGS = {"captum", "captum_advise", "timm", "torchcam", "torchvision"}
_WITH_SETTINGS |= {"pytorch_grad_cam", "zennit", "argparse", "functools", "types"}
_OPAQUE = {"torch", "builtins", *sys.stdlib_module_names}

_PLAIN = (
    *(bool, int, float, complex, str, bytes, range, slice, PurePath),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
# What a function may read from its module and seldom changes there. Lists and dictionaries may be
# traces of its use.
_FIXED = (*_PLAIN, tuple, Tensor, np.ndarray, types.ModuleType)
# In these, two definitions of one class may differ although they do the same.
_CLASS_DETAILS = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
    *("__annotations__", "__annotate_func__", "__annotations_cache__", "_abc_impl"),
    *("__dataclass_fields__", "__dataclass_params__", "__static_attributes__"),
}
# What every module has: parameters, hooks and the like.
_DETAILS = set(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@dataclass(frozen=True)
class Identity:
    """What an object is.

    Attributes:
        digest: Short hex of SHA-256. Equal objects have the same in every process.
        packages: The installed packages whose code the object uses.
    """

    digest: str
    packages: frozenset[str]

    @classmethod
    def of(
        cls, value: Any, model: nn.Module | None = None, *, with_weights: bool = True
    ) -> Identity:
        """The identity of a function, an attribution, a model, or any other object.

        ``model`` and its modules are known by their names in it; the weights of others count.
        """
        known = {} if model is None else {id(part): name for name, part in model.named_modules()}
        stream = _Stream(known, with_weights)
        stream.add(value)
        return cls(stream.digest(), frozenset(stream.packages))


def qualified_name(value: Any) -> str:
    """Module and qualified name of a function or class, or of an object's class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


class _Stream:
    """Writes objects into a digest: what kind each is, and its parts."""

    def __init__(self, known: Mapping[int, str], with_weights: bool) -> None:
        self.packages: set[str] = set()
        self._hash = hashlib.sha256()
        self._known, self._with_weights = known, with_weights
        # By address. The objects are kept, or their addresses could be given to others.
        self._seen: dict[int, tuple[int, Any]] = {}

    def digest(self) -> str:
        return self._hash.hexdigest()[:16]

    def add(self, value: Any) -> None:
        if id(value) in self._known:
            self._write("module of the model", self._known[id(value)])
        elif value is None or value is ... or value is NotImplemented:
            self._write("constant", str(value))
        elif isinstance(value, _PLAIN) and not isinstance(value, enum.Enum):
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
            self._hash.update(len(data).to_bytes(8, "little"))
            self._hash.update(data)

    def _parts(self, value: Any) -> tuple[Any, ...]:
        """The kind of an object, and what is to be known of it."""
        match value:
            case enum.Enum():
                return "member", str(value.name), value.value, type(value)
            case tuple():
                return qualified_name(value), *value
            case list() | collections.deque():
                return "list", *value
            case set() | frozenset():
                return "set", *sorted(map(self._apart, value))
            case dict() | types.MappingProxyType():
                by_key = {self._apart(key): own for key, own in value.items()}
                return "mapping", *(part for key in sorted(by_key) for part in (key, by_key[key]))
            case Tensor():
                shape = tuple(value.shape)
                return "tensor", str(value.dtype), shape, digest(tensor_bytes(value))
            case np.ndarray() | np.generic():
                plain = value.tolist() if value.dtype.hasobject else digest(value.tobytes())
                return "array", value.dtype.str, value.shape, plain
            case nn.Module():
                return self._module(value)
            case types.ModuleType():
                self._note(_installed(value.__name__))
                return "package", value.__name__
            case type():
                own = {k: v for k, v in vars(value).items() if k not in _CLASS_DETAILS}
                code = (value.__bases__, own) if self._package(value) is None else ()
                return "class", qualified_name(value), *code
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
                return "built-in", qualified_name(value), owner if is_method else None
            case property():
                return "property", value.fget, value.fset, value.fdel
            case functools.partial():
                return "partial", value.func, value.args, value.keywords
            case torch.jit.ScriptFunction():
                return "script", str(value.code)
            case _:
                return self._object(value)

    def _apart(self, value: Any) -> str:
        """The digest of a value by itself, for an order that is the same in every process."""
        stream = _Stream(self._known, self._with_weights)
        if not isinstance(value, _PLAIN):
            stream._seen = dict(self._seen)
        stream.add(value)
        self.packages |= stream.packages
        return stream.digest()

    def _package(self, value: Any) -> str | None:
        """The installed package that a function or class belongs to; None for a user's own."""
        package = _installed(value.__module__ or "builtins")
        self._note(package)
        return package

    def _note(self, package: str | None) -> None:
        if package is not None and package not in {*sys.stdlib_module_names, "builtins"}:
            self.packages.add(package)

    def _function(self, function: types.FunctionType) -> tuple[Any, ...]:
        return (
            "function",
            qualified_name(function),
            function.__code__,
            [_content(cell) for cell in function.__closure__ or ()],
            (function.__defaults__, function.__kwdefaults__),
            vars(function),
            dict(_globals(function)) if self._package(function) is None else None,
        )

    def _module(self, module: nn.Module) -> tuple[Any, ...]:
        found: list[Any] = []
        for name, part in module.named_modules():
            # What these do is in their code, and in the module that torch.compile has wrapped.
            is_script = isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule)
            is_wrapper = type(part).__module__.startswith("torch._dynamo")
            own = {
                key: value
                for key, value in vars(part).items()
                if not (is_script or is_wrapper or key in _DETAILS or _is_state(value))
            }
            hooks = [list(getattr(part, key, {}).values()) for key in _HOOKS]
            script = str(getattr(part, "code", "")) if is_script else ""
            found += name, type(part), own, part.training, hooks, script
        return "model", weights_digest(module) if self._with_weights else "", *found

    def _object(self, value: Any) -> tuple[Any, ...]:
        package = self._package(type(value))
        found = ("object", type(value), str(getattr(value, "__name__", "")))
        if package not in _WITH_SETTINGS and (
            package in _OPAQUE or (package is not None and not callable(value))
        ):
            return found
        attributes = {
            key: attribute
            for key, attribute in _attributes(value)
            # Neither an absent value nor one that comes from a computation is a setting.
            if attribute is not None
            and not (isinstance(attribute, Tensor) and attribute.grad_fn is not None)
        }
        return *found, attributes


def _code(code: types.CodeType) -> tuple[Any, ...]:
    arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    exceptions: bytes = getattr(code, "co_exceptiontable", b"")  # from Python 3.11 on
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return "code", code.co_code, exceptions, arguments, names, code.co_consts


def _installed(module: str) -> str | None:
    """The package that a module belongs to, if it is installed or Python's own."""
    package = module.partition(".")[0]
    if package in _INSTALLED or package in sys.stdlib_module_names or package == "builtins":
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
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType) and _installed(value.__name__) is None:
            found = {f"{name}.{key}": own for key, own in vars(value).items() if key in names}
        else:
            found = {name: value}
        for key in sorted(found):
            if isinstance(found[key], _FIXED) or callable(found[key]):
                yield key, found[key]


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


def _is_state(value: Any) -> bool:
    """Whether an attribute of a module may be a trace of its use, as activations that it keeps."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        return not value or any(map(_is_state, value))
    return value is None or isinstance(value, Tensor)
