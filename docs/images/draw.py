"""The figures of the README: ``python docs/images/draw.py``.

The images come from scikit-image, the network is EfficientNet-Lite0 with its ImageNet weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from skimage import data

from captum_advise import ImageExplanation, explain
from captum_advise.visualization import overlay, panel

HERE = Path(__file__).parent
IMAGES = ("chelsea", "coffee", "camera", "rocket")


def explained(name: str) -> ImageExplanation:
    """The explanation of an image of scikit-image."""
    return explain(getattr(data, name)(), "efficientnet-lite0")


def gallery() -> Figure:
    """A column per image; rows: the image, Grad-CAM, GatedGradCam, LayerAdvise."""
    figure = Figure(figsize=(2.6 * len(IMAGES), 10.8), layout="constrained")
    axes = figure.subplots(4, len(IMAGES))
    for column, name in zip(axes.T, IMAGES, strict=True):
        explanation = explained(name)
        image = explanation.images[0].clamp(0, 1)
        column[0].imshow(np.moveaxis(image.numpy(), 0, 2))
        column[0].set_axis_off()
        confidence = f"{explanation.confidence.item():.0%} confidence"
        column[0].set_title(f"{explanation.class_name()}\n{confidence}")
        others = explanation.comparisons
        maps = (others["Grad-CAM"].attributions, others["GatedGradCam"], explanation.attributions)
        for ax, attributions in zip(column[1:], maps, strict=True):
            overlay(image, attributions[0], ax=ax)
    for row, label in zip(axes, ("image", "Grad-CAM", "GatedGradCam", "LayerAdvise"), strict=True):
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
    explanation = explained("coffee")
    figure, _ = panel(
        explanation.images[0].clamp(0, 1),
        explanation,
        explanation.comparisons,
        class_name=explanation.class_name(),
    )
    figure.savefig(HERE / "panel.png", dpi=110)
    gallery().savefig(HERE / "gallery.png", dpi=90)


if __name__ == "__main__":
    main()
