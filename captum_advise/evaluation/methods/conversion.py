"""Methods from what users have: attributions of several packages, and callables."""

from __future__ import annotations

from dataclasses import replace
from inspect import isclass
from typing import Any, Literal, TypeAlias, cast

from captum.attr import Attribution

from captum_advise.evaluation.methods import peers
from captum_advise.evaluation.methods.captum_methods import captum
from captum_advise.evaluation.methods.interface import Method, MethodAt
from captum_advise.evaluation.methods.layers import INPUT, LayerChoice

# Also what the packages pytorch-grad-cam, torchcam and Zennit have, which may not be installed.
MethodLike: TypeAlias = Method | Attribution | type[Attribution] | Any


def as_method(method: MethodLike) -> Method:
    """Turn an attribution of Captum or of another package, or a callable, into a :class:`Method`.

    An object is used as it is, at its own layers. A class is instantiated on each call: with the
    model, and with the layer of the run if it explains layers.

    Args:
        method: One of

            - a Captum attribution (object or class), called as
              ``attribute(inputs, target=classes)``;
            - a class activation map of pytorch-grad-cam (object or class), called with
              ``ClassifierOutputTarget``. An object's hooks keep the layer's activations of every
              forward pass until its next map, so give the class where you can;
            - an extractor of torchcam (object or class); the maps of several layers are fused;
            - a Zennit attributor (object or class), or a pair of such a class and a composite. It
              attributes the class score, and the model is left as it was;
            - a callable with the interface of :class:`Method`.

    Raises:
        TypeError: It is none of these.

    Example::

        >>> from captum_advise.evaluation import Context
        >>> grad_cam = as_method(LayerGradCam)
        >>> grad_cam(net, net.conv4, images, torch.tensor([3, 3]), Context()).shape
        torch.Size([2, 1, 8, 8])
    """
    method = cast(Any, method)
    kind = method if isclass(method) else type(method)
    at: LayerChoice
    if issubclass(kind, Attribution):
        return replace(captum(method), layout=_layout(method))
    if _is_of(kind, "pytorch_grad_cam", "BaseCAM", "FinerCAM"):
        at = "layer" if isclass(method) else tuple(peers.with_hooks(method).target_layers)
        return MethodAt(at, peers.pytorch_grad_cam(method), layout=_layout(method))
    if _is_of(kind, "torchcam", "_CAM", "_CAMWrapper"):
        at = "layer" if isclass(method) else tuple(method.target_names)
        return MethodAt(at, peers.torchcam(method), layout=_layout(method))
    if _is_of(kind, "zennit", "Attributor"):
        return MethodAt(INPUT, peers.zennit(method))
    if isinstance(method, tuple) and len(method) == 2 and isclass(method[0]):
        attributor_class, composite = method
        if _is_of(attributor_class, "zennit", "Attributor"):
            return MethodAt(INPUT, peers.zennit(attributor_class, composite))
    if callable(method) and not isclass(method):
        return cast(Method, method)
    shown = method.__name__ if isclass(method) else kind.__name__
    raise TypeError(
        "A method is a Captum attribution (object or class), a class activation map of "
        "pytorch-grad-cam or torchcam, a Zennit attributor, or a callable, got "
        f"{'the class ' if isclass(method) else ''}{shown}."
    )


def _layout(method: Any) -> Literal["given", "own", "none"]:
    """What a class or an object knows of layouts, as in :class:`MethodAt`."""
    if isclass(method):
        return "given"
    names = ("reshape_transform", "_reshape_transform")
    known = [getattr(peers.with_hooks(method), name, None) for name in names]
    return "own" if any(known) else "none"


def _is_of(kind: type, package: str, *bases: str) -> bool:
    """Whether a class is derived from one of a package's, which need not be installed."""
    return any(
        base.__module__.partition(".")[0] == package and base.__name__ in bases
        for base in kind.__mro__
    )
