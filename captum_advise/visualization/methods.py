"""What figures, pages and printed texts say of methods and their maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captum_advise.explanation import Explanation

_SHOWN = {
    "gated-grad-cam": "GatedGradCam",
    "layer-advise": "LayerAdvise",
    "grad-cam": "Grad-CAM",
}


def shown_name(method: str) -> str:
    """The name that is shown for a method: its class, where the method is one of ours.

    Args:
        method: In kebab case, as in ``Explanation.maps``.
    """
    return _SHOWN.get(method, method)


def n_units(explanation: Explanation, method: str, index: int) -> int | None:
    """How many units of the layer make a map; None for a map that is not a sum of units."""
    if method == "layer-advise":
        return int(explanation.selected_units[index].sum())
    return explanation.selected_units.shape[1] if method == "grad-cam" else None
