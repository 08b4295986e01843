"""The methods that are known by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam, LayerGradientXActivation

from captum_advise import metrics
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods import floors
from captum_advise.evaluation.methods.captum_methods import from_captum
from captum_advise.evaluation.methods.class_activation_maps import (
    ablation_cam,
    eigen_cam,
    grad_cam_plus_plus,
)
from captum_advise.evaluation.methods.input_attributions import (
    expected_gradients,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    smooth_grad,
)
from captum_advise.evaluation.methods.interface import Method, MethodAt
from captum_advise.evaluation.methods.layers import INPUT
from captum_advise.evaluation.methods.own_methods import gated_grad_cam, layer_advise
from captum_advise.evaluation.methods.pytorch_grad_cam_methods import finer_cam, shapley_cam
from captum_advise.evaluation.methods.recorded_passes import with_recorded_passes
from captum_advise.evaluation.methods.rise import rise
from captum_advise.evaluation.methods.torchcam_methods import torchcam

_TORCHCAM: dict[str, Method] = {
    "smooth-grad-cam++": torchcam(
        "SmoothGradCAMpp", lambda context: {"num_samples": context.settings.smooth_grad_cam_samples}
    ),
    "xgrad-cam": torchcam("XGradCAM"),
    "layer-cam": torchcam("LayerCAM"),
    "layer-cam-multi": torchcam("LayerCAM", layers="stages"),
    "score-cam": with_recorded_passes(
        torchcam("ScoreCAM", lambda context: {"batch_size": context.internal_batch_size})
    ),
    "is-cam": with_recorded_passes(
        torchcam(
            "ISCAM",
            lambda context: {
                "batch_size": context.internal_batch_size,
                "num_samples": context.settings.is_cam_samples,
            },
        )
    ),
}
_PYTORCH_GRAD_CAM: dict[str, Method] = {
    "finer-cam": MethodAt("activation", finer_cam),
    "shapley-cam": MethodAt("activation", shapley_cam),
}
_SUPERPIXELS: dict[str, Method] = {
    "lime": with_recorded_passes(MethodAt(INPUT, lime)),
    "kernel-shap": with_recorded_passes(MethodAt(INPUT, kernel_shap)),
}
_METHODS: dict[str, Method] = {
    "layer-advise": layer_advise(),
    "layer-advise-minmax": layer_advise(activation_range="minmax"),
    "layer-advise-reference": layer_advise(protocol=metrics.AVXProtocol.reference()),
    "gated-grad-cam": MethodAt("gated-grad-cam", gated_grad_cam()),
    "gated-grad-cam-occlusion": MethodAt("gated-grad-cam", gated_grad_cam(n_occlusions=32)),
    "grad-cam": from_captum(LayerGradCam),
    "guided-grad-cam": from_captum(GuidedGradCam),
    "layer-gradient-x-activation": from_captum(LayerGradientXActivation),
    # The sum over the units of the same is HiResCAM, by definition.
    "hirescam": MethodAt("activation", from_captum(LayerGradientXActivation)),
    "eigen-cam": MethodAt("activation", eigen_cam),
    "ablation-cam": MethodAt("activation", ablation_cam),
    "guided-backpropagation": from_captum(GuidedBackprop),
    "integrated-gradients": MethodAt(INPUT, integrated_gradients),
    "expected-gradients": MethodAt(INPUT, expected_gradients),
    "smooth-grad": MethodAt(INPUT, smooth_grad),
    "occlusion": with_recorded_passes(MethodAt(INPUT, occlusion)),
    **_SUPERPIXELS,
    "rise": MethodAt(INPUT, rise),
    "random": floors.random,
    "gaussian": floors.gaussian,
    "grad-cam++": MethodAt("activation", grad_cam_plus_plus),
    **_TORCHCAM,
    **_PYTORCH_GRAD_CAM,
}
# Method to the module that it needs and the extra that brings it.
_OPTIONAL = {
    **dict.fromkeys(_SUPERPIXELS, ("sklearn", "evaluation")),
    **dict.fromkeys(_TORCHCAM, ("torchcam", "peers")),
    **dict.fromkeys(_PYTORCH_GRAD_CAM, ("pytorch_grad_cam", "peers")),
}


def list_methods() -> tuple[str, ...]:
    """The methods that are known by name, including those of the ``peers`` extra.

    Example::

        >>> list_methods()
        ('layer-advise', 'layer-advise-minmax', 'layer-advise-reference', 'gated-grad-cam', ...)
    """
    return tuple(_METHODS)


def package_of(name: str) -> str | None:
    """The package other than ours that a method known by name is computed with, if it is one."""
    module, _ = _OPTIONAL.get(name, (None, None))
    return module


def is_known(name: str, method: object) -> bool:
    """Whether a method is the one that is known by this name."""
    return _METHODS.get(name) is method


def get_methods(wanted: Iterable[str]) -> dict[str, Method]:
    """Methods by name, in the order given.

    Args:
        wanted: Some of :func:`names`.

    Returns:
        Name to method.

    Raises:
        ValueError: A name is unknown or repeated, or there is none.
        ModuleNotFoundError: A package that a method needs is missing.

    Example::

        >>> list(get_methods(["layer-advise", "grad-cam"]))
        ['layer-advise', 'grad-cam']
    """
    methods: dict[str, Method] = {}
    for name in wanted:
        if name not in _METHODS:
            close = difflib.get_close_matches(name, _METHODS, n=2)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise ValueError(
                f"There is no method {name!r}{hint}: the methods are {', '.join(_METHODS)}."
            )
        if name in methods:
            raise ValueError(f"The method {name} is named twice.")
        methods[name] = _METHODS[name]
        if name in _OPTIONAL:
            import_optional(*_OPTIONAL[name])
    if not methods:
        raise ValueError(f"Name at least one method: {', '.join(_METHODS)}.")
    return methods
