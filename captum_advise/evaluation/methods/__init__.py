"""Explanation methods under one interface: a model, a layer, inputs and classes to maps."""

from captum_advise.evaluation.methods.interface import (
    ClassMaps,
    Context,
    Method,
    MethodAt,
    selecting_by_avx,
)
from captum_advise.evaluation.methods.registry import (
    MethodLike,
    as_method,
    get_methods,
    list_methods,
    parse_settings,
)

__all__ = [
    "ClassMaps",
    "Context",
    "Method",
    "MethodAt",
    "MethodLike",
    "as_method",
    "get_methods",
    "list_methods",
    "parse_settings",
    "selecting_by_avx",
]
