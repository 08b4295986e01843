"""The methods that are known by name, with their settings, and methods of users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import isclass
from typing import Any, TypeAlias, cast

from captum.attr import (
    Attribution,
    GuidedBackprop,
    GuidedGradCam,
    IntegratedGradients,
    KernelShap,
    LayerGradCam,
    LayerGradientXActivation,
    Lime,
    Occlusion,
)

from captum_advise._utils.checks import check_count
from captum_advise._utils.errors import require_known
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods import captum_methods as options
from captum_advise.evaluation.methods import own_methods
from captum_advise.evaluation.methods.captum_methods import captum, of_inputs
from captum_advise.evaluation.methods.class_activation_maps import (
    ablation_cam,
    eigen_cam,
    grad_cam_plus_plus,
    refine_cam,
    winsor_cam,
)
from captum_advise.evaluation.methods.interface import Method, MethodAt
from captum_advise.evaluation.methods.layers import ATTENTION, INPUT, NONE
from captum_advise.evaluation.methods.own_methods import gated_grad_cam, layer_advise
from captum_advise.evaluation.methods.peers import pytorch_grad_cam, torchcam
from captum_advise.evaluation.methods.rise import rise
from captum_advise.evaluation.methods.transformer_maps import (
    attention_guided_cam,
    attention_rollout,
    cdam,
    generic_attention,
    legrad,
    of_attention,
)
from captum_advise.metrics import AVXProtocol

# Also classes of the packages pytorch-grad-cam and torchcam, which may not be installed.
MethodLike: TypeAlias = Method | type[Attribution] | Any

_SKLEARN = ("sklearn", "evaluation")
_TORCHCAM, _GRAD_CAM = ("torchcam", "peers"), ("pytorch_grad_cam", "peers")
_LIME = {"lime_samples": 1000, "lime_grid": 8}

_advise = partial(MethodAt, "layer", selects_by_avx=True)
_lime, _kernel_shap = (
    # All channels are alike.
    of_inputs(attribution, options.superpixels, one_by_one=True, then=lambda maps: maps[:, :1])
    for attribution in (Lime, KernelShap)
)
_smooth_grad_cam = torchcam(
    "SmoothGradCAMpp",
    lambda context, smooth_grad_cam_samples: {"num_samples": smooth_grad_cam_samples},
)
_score_cam = torchcam("ScoreCAM", lambda context: {"batch_size": context.internal_batch_size})

# Name to what it explains, the function, its settings, and what it needs. The methods that are
# recommended come first.
_METHODS: dict[str, MethodAt] = {
    "gated-grad-cam": MethodAt("gated-grad-cam", gated_grad_cam),
    "gated-grad-cam-occlusion": MethodAt(
        "gated-grad-cam", partial(gated_grad_cam, n_occlusions=32)
    ),
    "layer-advise": _advise(layer_advise),
    "layer-advise-minmax": _advise(partial(layer_advise, activation_range="minmax")),
    "layer-advise-reference": _advise(partial(layer_advise, protocol=AVXProtocol.reference())),
    "grad-cam": captum(LayerGradCam),
    "guided-grad-cam": captum(GuidedGradCam),
    "layer-gradient-x-activation": captum(LayerGradientXActivation),
    # The sum over the units of the same is HiResCAM, by definition.
    "hirescam": replace(captum(LayerGradientXActivation), layers="activation"),
    "eigen-cam": MethodAt("activation", eigen_cam),
    "ablation-cam": MethodAt("activation", ablation_cam),
    "refine-cam": MethodAt("stages", refine_cam),
    "winsor-cam": MethodAt("convolutions", winsor_cam, {"winsor_percentile": 90}),
    "attention-rollout": MethodAt(ATTENTION, of_attention(attention_rollout)),
    "generic-attention": MethodAt(ATTENTION, of_attention(generic_attention)),
    "attention-guided-cam": MethodAt(ATTENTION, of_attention(attention_guided_cam)),
    "cdam": MethodAt(ATTENTION, of_attention(cdam)),
    "legrad": MethodAt(ATTENTION, of_attention(legrad)),
    "guided-backpropagation": captum(GuidedBackprop),
    "integrated-gradients": MethodAt(
        INPUT,
        of_inputs(IntegratedGradients, options.integrated_gradients),
        {"integrated_gradients_steps": 32},
    ),
    "expected-gradients": MethodAt(
        INPUT, options.expected_gradients, {"expected_gradients_samples": 32}
    ),
    "smooth-grad": MethodAt(INPUT, options.smooth_grad, {"smooth_grad_samples": 32}),
    "occlusion": MethodAt(INPUT, of_inputs(Occlusion, options.occlusion), {"occlusion_windows": 7}),
    "lime": MethodAt(INPUT, _lime, _LIME, _SKLEARN),
    "kernel-shap": MethodAt(INPUT, _kernel_shap, _LIME, _SKLEARN),
    "rise": MethodAt(INPUT, rise, {"rise_masks": 4000}),
    "random": MethodAt(NONE, own_methods.random),
    "gaussian": MethodAt(NONE, own_methods.gaussian),
    "edge-detector": MethodAt(NONE, own_methods.edge_detector),
    "grad-cam++": MethodAt("activation", grad_cam_plus_plus),
    "smooth-grad-cam++": MethodAt(
        "activation", _smooth_grad_cam, {"smooth_grad_cam_samples": 4}, _TORCHCAM
    ),
    "xgrad-cam": MethodAt("activation", torchcam("XGradCAM"), needs=_TORCHCAM),
    "layer-cam": MethodAt("activation", torchcam("LayerCAM"), needs=_TORCHCAM),
    "layer-cam-multi": MethodAt("stages", torchcam("LayerCAM"), needs=_TORCHCAM),
    "score-cam": MethodAt("activation", _score_cam, needs=_TORCHCAM),
    "finer-cam": MethodAt("activation", pytorch_grad_cam("FinerCAM"), needs=_GRAD_CAM),
    "shapley-cam": MethodAt(
        "activation", pytorch_grad_cam("ShapleyCAM", "ClassifierOutputReST"), needs=_GRAD_CAM
    ),
}


def list_methods() -> tuple[str, ...]:
    """The methods that are known by name, including those of the ``peers`` extra.

    Example::

        >>> list_methods()
        ('gated-grad-cam', 'gated-grad-cam-occlusion', 'layer-advise', ...)
    """
    return tuple(_METHODS)


def get_methods(
    wanted: Iterable[str], settings: Mapping[str, int] | None = None
) -> dict[str, Method]:
    """Methods by name, in the order given.

    Args:
        wanted: Some of :func:`list_methods`.
        settings: By name; the others have their defaults, which a method has as ``settings``.

    Returns:
        Name to method.

    Raises:
        TypeError: The value of a setting is not an int.
        ValueError: A name or a setting is unknown, or a setting is below one.
        ModuleNotFoundError: A package that a method needs is missing.

    Example::

        >>> list(get_methods(["layer-advise", "rise"], {"rise_masks": 1000}))
        ['layer-advise', 'rise']
    """
    settings = settings or {}
    known = dict.fromkeys(name for method in _METHODS.values() for name in method.settings)
    for name, value in settings.items():
        require_known("setting", name, known)
        check_count(name, value, at_least=1)
    methods: dict[str, Method] = {}
    for name in wanted:
        require_known("method", name, _METHODS)
        method = _METHODS[name]
        if method.needs:
            import_optional(*method.needs)
        own = {key: settings.get(key, default) for key, default in method.settings.items()}
        methods[name] = replace(method, settings=own)
    return methods


def parse_settings(texts: Sequence[str]) -> dict[str, int]:
    """Settings for :func:`get_methods` from texts such as ``rise_masks=4000``.

    Raises:
        ValueError: A text is none, a setting is named twice, or its value is not a whole number.
    """
    settings: dict[str, int] = {}
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        if name in settings:
            raise ValueError(f"The setting {name} is given twice.")
        try:
            settings[name] = int(number)
        except ValueError:
            raise ValueError(
                f"A setting is NAME=NUMBER, a whole one, such as rise_masks=4000, got {text!r}."
            ) from None
    return settings


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
        made = MethodAt("layer", pytorch_grad_cam(kind))
    elif _is_of(kind, "torchcam", "_CAM", "_CAMWrapper"):
        made = MethodAt("layer", torchcam(kind))
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
