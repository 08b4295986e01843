"""The figures of the README: ``python docs/images/draw.py``.

The images come from scikit-image, the network is EfficientNet-Lite0 with its ImageNet weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from skimage import data

from captum_advise import Explanation, explain
from captum_advise.visualization import overlay, panel
from captum_advise.visualization.methods import shown_name

HERE = Path(__file__).parent
IMAGES = ("chelsea", "coffee", "camera", "rocket")


def explained(name: str) -> Explanation:
    """The explanation of an image of scikit-image."""
    return explain(getattr(data, name)(), "efficientnet-lite0")


def gallery() -> Figure:
    """A column per image; rows: the image, and its maps, the recommended one first."""
    explanations = [explained(name) for name in IMAGES]
    methods = list(explanations[0].maps)
    figure = Figure(figsize=(2.6 * len(IMAGES), 10.8), layout="constrained")
    axes = figure.subplots(1 + len(methods), len(IMAGES))
    for column, explanation in zip(axes.T, explanations, strict=True):
        image = explanation.images[0]
        column[0].imshow(np.moveaxis(image.numpy(), 0, 2))
        column[0].set_axis_off()
        confidence = f"{explanation.confidence.item():.0%} confidence"
        column[0].set_title(f"{explanation.class_name()}\n{confidence}")
        for ax, method in zip(column[1:], methods, strict=True):
            overlay(image, explanation.maps[method][0], ax=ax)
    for row, label in zip(axes, ("image", *map(shown_name, methods)), strict=True):
        row[0].text(
            *(-0.05, 0.5, label),
            transform=row[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize="large",
        )
    return figure


def main() -> None:
    """Draw both figures."""
    panel(explained("coffee"))[0].savefig(HERE / "panel.png", dpi=110)
    gallery().savefig(HERE / "gallery.png", dpi=90)


if __name__ == "__main__":
    main()
