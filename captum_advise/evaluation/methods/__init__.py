"""Explanation methods under one interface: a model, a layer, inputs and classes to maps."""

from captum_advise.evaluation.methods.interface import (
    ClassMaps,
    Context,
    Method,
    MethodLike,
    MethodSettings,
    as_method,
)
from captum_advise.evaluation.methods.registry import by_name, names

__all__ = [
    "ClassMaps",
    "Context",
    "Method",
    "MethodLike",
    "MethodSettings",
    "as_method",
    "by_name",
    "names",
]
