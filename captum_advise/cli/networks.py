"""The network that ``--model`` names: one of the zoo, or one of the caller's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from captum_advise import zoo
from captum_advise._utils.errors import did_you_mean, reason
from captum_advise.cli.process import end_imports

if TYPE_CHECKING:
    from torch import nn


def load_network(
    model: str,
    *,
    layer: str | None = None,
    weights: Any = "default",
    device: str = "cpu",
    seed: int = 0,
) -> zoo.Network:
    """Load the network that ``--model`` names, by the options of the same names.

    That is a name that :func:`captum_advise.zoo.load` takes; or ``PACKAGE.MODULE:NAME`` or
    ``FILE.py:NAME``, a function without arguments that returns a model or a
    :class:`captum_advise.zoo.Network`, or one of these itself. The global random state is not
    changed.
    """
    device = resolve_device(device)
    source, separator, name = model.rpartition(":")
    if not separator:
        if model.endswith(".py"):
            raise ValueError(f"--model {model} names no function: give {model}:NAME.")
        network = zoo.load(model, layer=layer, weights=weights, seed=seed)
        _move(network.model, device)
        if network.device.type == "cpu":
            import torch

            # Convolutions are faster so, and differ by rounding only. Own models may refuse it.
            network.model.to(memory_format=torch.channels_last)
        end_imports()  # imports are done, and images may follow
        return network
    if weights != "default":
        raise ValueError(f"--weights {weights} is for networks of the zoo: {model} sets its own.")
    made = _made(model, source, name, seed)
    inner = made.model if isinstance(made, zoo.Network) else made
    _move(inner, device)
    inner.eval()
    try:
        network = zoo.describe(made, layer=layer)
    except (TypeError, ValueError) as error:
        hint = ""
        if "pass " in str(error):  # an argument, which the command line does not have
            hint = f"; {name} can do so and return captum_advise.zoo.describe(model, ...)"
        raise ValueError(f"{model}: {reason(error)}{hint}.") from error
    end_imports()
    return replace(network, name=model)


def resolve_device(name: str) -> str:
    """The device of this process: ``auto``, and ``cuda`` under torchrun, depend on it."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"--device takes cpu, cuda, cuda:1, mps, ... or auto, not {name!r}."
        ) from error
    if name == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.getenv("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return name


def _move(model: nn.Module, device: str) -> None:
    try:
        model.to(device)
    # Which error depends on how torch was built and on the driver.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"The device {device!r} cannot be used here ({reason(error)}).") from error


def _made(model: str, source: str, name: str, seed: int) -> nn.Module | zoo.Network:
    """What a factory makes: a model or a network."""
    import torch
    from torch import nn

    with _importable(source), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = named_object(source, name)
        torch.default_generator.manual_seed(seed)  # also where it was imported before
        if not isinstance(made, nn.Module | zoo.Network) and callable(made):
            made = _called(made, model)
    if not isinstance(made, nn.Module | zoo.Network):
        raise ValueError(
            f"{model} gives a {type(made).__name__}, not a torch.nn.Module or a "
            "captum_advise.zoo.Network."
        )
    return made


def _called(factory: Any, model: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(
            f"{model} is called without arguments and needs some ({reason(error)}): write a "
            "function that needs none."
        ) from error
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{model} fails: {where(error)}.") from error


def named_object(source: str, name: str) -> Any:
    """What ``PACKAGE.MODULE:NAME`` or ``FILE.py:NAME`` names."""
    with _importable(source):
        module = _imported(source)
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ValueError(f"{source} has no {name!r}{did_you_mean(name, public)}.")
    return getattr(module, name)


def _imported(source: str) -> ModuleType:
    """A module by its dotted name, or a file as a module."""
    is_file = source.endswith(".py")
    if is_file and not Path(source).is_file():
        raise FileNotFoundError(f"There is no file {source}.")
    try:
        if not is_file:
            return importlib.import_module(source)
        # Not the file's own name, which may be that of a package. The module stays known: classes
        # are looked up in it.
        name = f"captum_advise_model_{Path(source).stem}"
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
        if missing and f"{source}.".startswith(f"{missing}."):
            raise ValueError(
                f"There is no module {missing!r}, here or among the installed packages."
            ) from error
        hint = ""
        if is_file and "no known parent package" in str(error):
            hint = "; a file with relative imports is named by its package, as in PACKAGE.MODULE"
        raise ValueError(f"{source} cannot be imported: {where(error)}{hint}.") from error


@contextmanager
def _importable(source: str) -> Iterator[None]:
    """Let modules beside a file, or here, be imported for a while, as Python does for a script."""
    before = list(sys.path)
    folder = Path(source).parent if source.endswith(".py") else Path()
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


def where(error: BaseException) -> str:
    """An error with its place in the caller's code, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = str(Path(__file__).parents[1]), "<"  # frozen modules are in files named <...>
    outer = [frame for frame in frames if not frame.filename.startswith(inner)]
    installed = [frame for frame in outer if "site-packages" in frame.filename]
    standard = sysconfig.get_path("stdlib")
    own = [at for at in outer if at not in installed and not at.filename.startswith(standard)]
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
        imported = f" of {Path(str(error.filename)).name}" if own else ""
        return f"line {error.lineno}{imported}, {error.msg}"
    ours = {"captum", "hypothesis", "torch"}  # packages that call their code, or that it calls
    theirs = own or [at for at in installed if not ours & {*Path(at.filename).parts}]
    place = f" in {Path(theirs[-1].filename).name}, line {theirs[-1].lineno}" if theirs else ""
    return f"{type(error).__name__}{place}: {reason(error)}"
