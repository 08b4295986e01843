"""Methods whose axioms are known: LayerAdvise in every selection, and related methods of Captum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captum.attr import (
    LayerActivation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from torch import nn

from captum_advise._utils.markdown import markdown_table
from captum_advise.axioms.method import Method
from captum_advise.axioms.registry import AXIOMS
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise
from captum_advise.relevance import ActivationRange

_AVERAGED = "a unit's weight is its mean gradient over all locations, and applies to all of them"
_CANCELLED = "a mean gradient can be zero where the gradient is not"
_SATURATED = "the gradient is zero where the network is saturated"
_SCALE = "only activations in [0, 1] count, so rescaling a unit changes its relevance"
_SELECTED = "which group is selected depends on the head"
_MASKED_INPUTS = "the selection depends on the network's outputs for masked inputs"
_OTHER_RELEVANCE = "the unit that matters can have another relevance than the one asked for"
_NO_HEAD = "the method does not use the head"
_ENLARGED = "evidence is averaged and enlarged, so that evidence spreads to its neighbours"
_STRETCHED = "maps are stretched to [0, 1], multiplied and added"
_POSITIVE = "only positive evidence counts"


@dataclass(frozen=True)
class Reference:
    """The known axioms of a method.

    Attributes:
        method: The method.
        does_not_hold: The axioms that it does not fulfil, each with the reason.

    Example::

        >>> references = {reference.method.name: reference for reference in REFERENCES}
        >>> list(references["LayerGradCam"].does_not_hold)
        ['dummy_location', 'sensitivity_affine', 'sensitivity_saturated']
    """

    method: Method
    does_not_hold: Mapping[str, str]


def _layer_advise(selection: str | int, activation_range: ActivationRange) -> Reference:
    # AVX needs images.
    images: dict[str, Any] = {"spatial_dims": (2,), "channels": (1, 3)}
    reasons = {
        "rescaled_units": _SCALE,
        "dummy_location": _AVERAGED,
        "locality": _MASKED_INPUTS,
        "sensitivity_pooled": _OTHER_RELEVANCE,
        "sensitivity_affine": _CANCELLED,
        "sensitivity_saturated": _SATURATED,
        "linearity": _SELECTED,
    }
    holding = ["locality", "linearity"] if isinstance(selection, int) else ["sensitivity_pooled"]
    if activation_range == "minmax":
        holding.append("rescaled_units")
    return Reference(
        Method(
            f"LayerAdvise {selection}, {'minmax' if activation_range == 'minmax' else '(0, 1)'}",
            LayerAdvise,
            {"unit_selection": selection, "activation_range": activation_range},
            **(images if selection == "avx" else {}),
        ),
        {name: reason for name, reason in reasons.items() if name not in holding},
    )


def _with_stem(model: nn.Module, layer: nn.Module) -> GatedGradCam:
    return GatedGradCam(model, [model.get_submodule("stem"), layer])


_AS_GRAD_CAM = {
    "dummy_location": _AVERAGED,
    "sensitivity_affine": _CANCELLED,
    "sensitivity_saturated": _SATURATED,
}

_RANGES: tuple[ActivationRange, ...] = ((0.0, 1.0), "minmax")

REFERENCES: tuple[Reference, ...] = (
    *(
        _layer_advise(selection, activation_range)
        for selection in ("avx", "average_drop", 1)
        for activation_range in _RANGES
    ),
    Reference(
        Method("GatedGradCam, stem and layer", _with_stem, spatial_dims=(2,)),
        {
            "dummy_location": _ENLARGED,
            "sensitivity_pooled": _POSITIVE,
            "sensitivity_affine": _CANCELLED,
            "sensitivity_saturated": _SATURATED,
            "linearity": _STRETCHED,
        },
    ),
    Reference(Method("LayerAdvise None", LayerAdvise, {"unit_selection": None}), _AS_GRAD_CAM),
    Reference(Method("LayerGradCam", LayerGradCam), _AS_GRAD_CAM),
    Reference(
        Method("LayerGradientXActivation", LayerGradientXActivation),
        {"sensitivity_saturated": _SATURATED},
    ),
    Reference(
        Method("LayerIntegratedGradients", LayerIntegratedGradients, {"n_steps": 8}),
        {"locality": "gradients are taken along the path from a baseline"},
    ),
    Reference(
        Method("LayerActivation", LayerActivation),
        {
            "rescaled_units": "the attributions are the rescaled activations",
            **dict.fromkeys(
                ("dead_units", "dummy_unit", "dummy_location", "dummy_class", "linearity"), _NO_HEAD
            ),
        },
    ),
)


def axiom_table(results: Mapping[str, Mapping[str, bool]]) -> str:
    """Which axioms hold, as a Markdown table: a row per axiom, a column per method.

    Args:
        results: Method name to axiom name to whether the axiom holds.
    """
    axioms = [name for name in AXIOMS if any(name in column for column in results.values())]
    rows = [
        [f"`{name}`", *("yes" if column[name] else "**no**" for column in results.values())]
        for name in axioms
    ]
    return markdown_table(["axiom", *results], rows, centred=True)


def known_table() -> str:
    """The table of :data:`REFERENCES`, as the test suite requires it."""
    return axiom_table(
        {
            reference.method.name: {name: name not in reference.does_not_hold for name in AXIOMS}
            for reference in REFERENCES
        }
    )
