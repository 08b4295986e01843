"""Whether a model gives other outputs at each call, or others in other batches."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.spectral_norm import SpectralNorm

RANDOM_OUTPUTS = (
    "The model draws random numbers in evaluation mode, as functional dropout does with "
    "training=True, and its outputs differ from pass to pass: switch this off, or average the "
    "results of several calls."
)
# How far functions, partials and methods are followed.
_DEPTH = 4


def unsteady(forward_func: object, *others: object) -> str | None:
    """What makes a model's outputs depend on chance or on the batch, as a sentence; else None.

    ``others`` are further modules that are part of the model.
    """
    found = dict.fromkeys(
        module
        for value in (forward_func, *others)
        for root in _modules_of(value, _DEPTH)
        for module in root.modules()
    )
    changing = [module for module in found if module.training and _differs_in_training(module)]
    if changing:
        kinds = ", ".join(sorted({type(module).__name__ for module in changing}))
        return (
            "The model is in training mode: batch norm, dropout and the like make results random, "
            f"and batch norm changes its statistics (seen: {kinds}). Call model.eval() first."
        )
    if any(isinstance(module, _BatchNorm) and module.running_mean is None for module in found):
        return (
            "The model has batch norm without running statistics, so the results of an image "
            "depend on the other images of its batch: use one image at a time with "
            "internal_batch_size=1, or a model with track_running_stats=True."
        )
    return None


def random_states(tensors: Iterable[Tensor]) -> list[bytes]:
    """The states of torch's random numbers on the CPU and on the tensors' GPUs."""
    gpus = dict.fromkeys(tensor.device for tensor in tensors if tensor.is_cuda)
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, gpus)]
    return [state.numpy().tobytes() for state in states]


def _modules_of(value: Any, depth: int) -> list[Module]:
    """The modules that a function, method, partial or callable object refers to."""
    if isinstance(value, Module):
        return [value]
    if depth == 0:
        return []
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, MethodType):
        parts = [value.__self__]
    elif isinstance(value, FunctionType):
        try:
            variables = inspect.getclosurevars(value)
        except ValueError:  # a variable that has no value yet
            return []
        parts = [*variables.nonlocals.values(), *variables.globals.values()]
        parts += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        is_object = callable(value) and not isinstance(value, type)
        parts = list(getattr(value, "__dict__", {}).values()) if is_object else []
    return [module for part in parts for module in _modules_of(part, depth - 1)]


def _differs_in_training(module: Module) -> bool:
    """Whether the module's own code asks for its mode, and not all of its rates are zero."""
    kind: Any = type(module)
    # Quantised modules are made in training mode and compute what they do in evaluation.
    if ".quantized.modules." in kind.__module__:
        return False
    if isinstance(module, _InstanceNorm):
        return module.track_running_stats
    is_normalised = any(
        isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values()
    )
    if is_normalised or isinstance(module, _BatchNorm):
        return True
    if not _reads_training(kind):
        return False
    rates = [
        value
        for name, value in vars(module).items()
        if (name == "p" or "drop" in name) and isinstance(value, int | float)
    ]
    if not rates and kind.__module__.startswith("torch.nn"):
        return kind.__name__ in ("RReLU", "_SpectralNorm")
    return any(rates) or not rates


@functools.cache
def _reads_training(kind: Any) -> bool:
    functions = (
        function
        for base in kind.__mro__[: kind.__mro__.index(Module)]
        for function in vars(base).values()
        if isinstance(function, FunctionType) and function.__name__ not in ("__init__", "train")
    )
    return any("training" in function.__code__.co_names for function in functions)
