"""Methods from what users have: classes of attributions of several packages, and functions."""

from __future__ import annotations

from inspect import isclass
from typing import Any, TypeAlias, cast

from captum.attr import Attribution

from captum_advise.evaluation.methods import peers
from captum_advise.evaluation.methods.captum_methods import captum
from captum_advise.evaluation.methods.interface import Method, MethodAt

# Also classes of the packages pytorch-grad-cam and torchcam, which may not be installed.
MethodLike: TypeAlias = Method | type[Attribution] | Any


def as_method(method: MethodLike) -> Method:
    """A method from a class of Captum, of pytorch-grad-cam or of torchcam; a callable as it is.

    A class is instantiated on each call: with the model, and with the layer of the run if it
    explains layers.

    Raises:
        TypeError: It is neither, or an object of such a class, which holds a model of its own.
    """
    kind = method if isclass(method) else type(method)
    if issubclass(kind, Attribution):
        made = captum(kind)
    elif _is_of(kind, "pytorch_grad_cam", "BaseCAM", "FinerCAM"):
        made = MethodAt("layer", peers.pytorch_grad_cam(kind))
    elif _is_of(kind, "torchcam", "_CAM", "_CAMWrapper"):
        made = MethodAt("layer", peers.torchcam(kind))
    elif callable(method) and not isclass(method):
        return cast(Method, method)
    else:
        raise TypeError(
            "A method is a class of Captum attributions, of pytorch-grad-cam or of torchcam, or a "
            f"callable, got {'the class ' if isclass(method) else ''}{kind.__name__}."
        )
    if not isclass(method):
        raise TypeError(
            f"An object of {kind.__name__} is bound to a model and its layers: give the class, or "
            "a function (model, layer, inputs, target, context) -> maps that makes the object."
        )
    return made


def _is_of(kind: type, package: str, *bases: str) -> bool:
    """Whether a class is derived from one of a package's, which need not be installed."""
    return any(
        base.__module__.partition(".")[0] == package and base.__name__ in bases
        for base in kind.__mro__
    )
