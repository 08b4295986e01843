"""Methods whose axioms are known: ADVISE in every selection, and its neighbours in Captum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captum.attr import (
    LayerActivation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)

from captum_advise.axioms.method import Method
from captum_advise.axioms.registry import AXIOMS
from captum_advise.layer_advise import LayerAdvise

_AVERAGED = "a unit's weight is its mean gradient over all locations, and applies to all of them"
_CANCELLED = "a mean gradient can be zero where the gradient is not"
_SATURATED = "the gradient is zero where the network is saturated"
_SCALE = "only activations in [0, 1] count, so rescaling a unit changes its relevance"
_CHOSEN = "which group is chosen depends on the head"
_ELSEWHERE = "groups are scored by the network's answer to masked inputs"
_OTHER_GROUP = "the unit that matters can have another relevance score than the one asked for"
_NO_HEAD = "the head plays no part"


@dataclass(frozen=True)
class Reference:
    """What is known of a method.

    Attributes:
        method: The method.
        does_not_hold: The axioms that it does not fulfil, with the reason for each.

    Example::

        >>> known = {reference.method.name: reference for reference in REFERENCES}
        >>> list(known["LayerGradCam"].does_not_hold)
        ['dummy_location', 'sensitivity_affine', 'sensitivity_saturated']
    """

    method: Method
    does_not_hold: Mapping[str, str]


def _advise(selection: str | int, activation_range: str) -> Reference:
    pictures: dict[str, Any] = {}
    if selection == "explainability":
        pictures = {"spatial_dims": (2,), "channels": (1, 3)}
    reasons = {
        "rescaled_units": _SCALE,
        "dummy_location": _AVERAGED,
        "locality": _ELSEWHERE,
        "sensitivity_pooled": _OTHER_GROUP,
        "sensitivity_affine": _CANCELLED,
        "sensitivity_saturated": _SATURATED,
        "linearity": _CHOSEN,
    }
    holding = ["locality", "linearity"] if isinstance(selection, int) else ["sensitivity_pooled"]
    if activation_range == "minmax":
        holding.append("rescaled_units")
    return Reference(
        Method(
            f"ADVISE {selection}, {activation_range}",
            LayerAdvise,
            {"unit_selection": selection, "activation_range": activation_range},
            **pictures,
        ),
        {name: reason for name, reason in reasons.items() if name not in holding},
    )


_AS_GRAD_CAM = {
    "dummy_location": _AVERAGED,
    "sensitivity_affine": _CANCELLED,
    "sensitivity_saturated": _SATURATED,
}

REFERENCES: tuple[Reference, ...] = (
    *(
        _advise(selection, activation_range)
        for selection in ("explainability", "confidence", 1)
        for activation_range in ("unit", "minmax")
    ),
    Reference(Method("ADVISE None", LayerAdvise, {"unit_selection": None}), _AS_GRAD_CAM),
    Reference(Method("LayerGradCam", LayerGradCam), _AS_GRAD_CAM),
    Reference(
        Method("LayerGradientXActivation", LayerGradientXActivation),
        {"sensitivity_saturated": _SATURATED},
    ),
    Reference(
        Method("LayerIntegratedGradients", LayerIntegratedGradients, {"n_steps": 8}),
        {"locality": "gradients are taken along the way from a baseline"},
    ),
    Reference(
        Method("LayerActivation", LayerActivation),
        {
            "rescaled_units": "it is what is rescaled",
            **dict.fromkeys(
                ("dead_units", "dummy_unit", "dummy_location", "dummy_class", "linearity"), _NO_HEAD
            ),
        },
    ),
)


def markdown_table(found: Mapping[str, Mapping[str, bool]]) -> str:
    """Whether axioms hold as a Markdown table: a row per axiom, a column per method.

    Args:
        found: Method name to axiom name to whether it holds.
    """
    names = [name for name in AXIOMS if any(name in column for column in found.values())]
    head: Sequence[str] = ["axiom", *found]
    rows = [
        [f"`{name}`", *({True: "yes", False: "**no**"}[found[m][name]] for m in found)]
        for name in names
    ]
    lines = [head, ["---", *(":-:" for _ in found)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def known_table() -> str:
    """The table of :data:`REFERENCES`, from what the test suite requires of each."""
    return markdown_table(
        {
            reference.method.name: {name: name not in reference.does_not_hold for name in AXIOMS}
            for reference in REFERENCES
        }
    )
