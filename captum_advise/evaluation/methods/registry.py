"""The methods that are known by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from captum.attr import GuidedGradCam, LayerGradCam, LayerGradientXActivation

from captum_advise import metrics
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods import floors
from captum_advise.evaluation.methods.advise import advise, advise_layers
from captum_advise.evaluation.methods.input_attributions import (
    integrated_gradients,
    lime,
    occlusion,
)
from captum_advise.evaluation.methods.interface import Method, as_method
from captum_advise.evaluation.methods.recorded_passes import with_recorded_passes
from captum_advise.evaluation.methods.torchcam_methods import torchcam

_TORCHCAM: dict[str, Method] = {
    "grad-cam++": torchcam("GradCAMpp"),
    "smooth-grad-cam++": torchcam(
        "SmoothGradCAMpp", lambda context: {"num_samples": context.settings.smooth_grad_cam_samples}
    ),
    "xgrad-cam": torchcam("XGradCAM"),
    "layer-cam": torchcam("LayerCAM"),
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
_METHODS: dict[str, Method] = {
    "advise": advise(),
    "advise-minmax": advise(activation_range="minmax"),
    "advise-reference": advise(protocol=metrics.Protocol.reference()),
    "advise-faithful": advise(unit_selection="faithfulness"),
    "advise-layers": advise_layers,
    "grad-cam": as_method(LayerGradCam),
    "guided-grad-cam": as_method(GuidedGradCam),
    "layer-gradient-x-activation": as_method(LayerGradientXActivation),
    "integrated-gradients": integrated_gradients,
    "occlusion": with_recorded_passes(occlusion),
    "lime": with_recorded_passes(lime),
    "random": floors.random,
    "gaussian": floors.gaussian,
    **_TORCHCAM,
}
# Method to the module that it needs and the extra that brings it.
_OPTIONAL = {"lime": ("sklearn", "evaluation"), **dict.fromkeys(_TORCHCAM, ("torchcam", "peers"))}


def names() -> tuple[str, ...]:
    """The methods that are known by name, including those of the ``peers`` extra.

    Example::

        >>> names()
        ('advise', 'advise-minmax', 'advise-reference', 'advise-faithful', 'advise-layers', ...)
    """
    return tuple(_METHODS)


def package_of(name: str) -> str | None:
    """The package other than ours that a method known by name is computed with, if it is one."""
    module, _ = _OPTIONAL.get(name, (None, None))
    return module


def by_name(wanted: Iterable[str]) -> dict[str, Method]:
    """Methods by name, in the order given.

    Args:
        wanted: Some of :func:`names`.

    Returns:
        Name to method.

    Raises:
        ValueError: A name is unknown or repeated, or there is none.
        ModuleNotFoundError: A package that a method needs is missing.

    Example::

        >>> list(by_name(["advise", "grad-cam"]))
        ['advise', 'grad-cam']
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
