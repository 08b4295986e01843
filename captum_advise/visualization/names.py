"""What figures, pages and printed texts call the methods."""

from __future__ import annotations

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
