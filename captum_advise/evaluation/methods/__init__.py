"""Explanation methods under one interface: a model, a layer, inputs and classes to maps."""

from captum_advise.evaluation.methods.conversion import MethodLike, as_method
from captum_advise.evaluation.methods.interface import (
    ClassMaps,
    Context,
    Method,
    MethodSettings,
)
from captum_advise.evaluation.methods.registry import get_methods, list_methods
from captum_advise.evaluation.methods.saved_maps import SavedMaps

__all__ = [
    "ClassMaps",
    "Context",
    "Method",
    "MethodLike",
    "MethodSettings",
    "SavedMaps",
    "as_method",
    "get_methods",
    "list_methods",
]
