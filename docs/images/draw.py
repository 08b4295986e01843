"""The figures of the README: ``python docs/images/draw.py``.

The images come from scikit-image, the network is EfficientNet-Lite0 with its ImageNet weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from captum_advise import LayerAdvise, zoo
from captum_advise.visualization import overlay, panel

HERE = Path(__file__).parent
IMAGES = ("chelsea", "coffee", "camera", "rocket")


def explained(network: zoo.Network, name: str):
    """The image (3, H, W), its explanation by ADVISE and by Grad-CAM, and the class name."""
    inputs = network.transform(Image.fromarray(getattr(data, name)()))[None]
    advise = LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space)
    explanation = advise.explain(inputs)
    grad_cam = advise.explain(inputs, explanation.target, unit_selection=None)
    image = network.pixel_space.to_pixels(inputs)[0].clamp(0, 1)
    return image, explanation, grad_cam, network.class_names[int(explanation.target)]


def gallery(network: zoo.Network) -> Figure:
    """A column per image; rows: the image, Grad-CAM, ADVISE."""
    figure = Figure(figsize=(2.6 * len(IMAGES), 8.2), layout="constrained")
    axes = figure.subplots(3, len(IMAGES))
    for column, name in zip(axes.T, IMAGES, strict=True):
        image, explanation, grad_cam, class_name = explained(network, name)
        column[0].imshow(np.moveaxis(image.numpy(), 0, 2))
        column[0].set_axis_off()
        column[0].set_title(f"{class_name}\n{explanation.confidence.item():.0%} confidence")
        for ax, result in zip(column[1:], (grad_cam, explanation), strict=True):
            overlay(image, result.attributions[0], ax=ax)
    for row, label in zip(axes, ("image", "Grad-CAM", "ADVISE"), strict=True):
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
    network = zoo.load("efficientnet-lite0")
    image, explanation, grad_cam, class_name = explained(network, "coffee")
    figure, _ = panel(image, explanation, grad_cam, class_name=class_name)
    figure.savefig(HERE / "panel.png", dpi=110)
    gallery(network).savefig(HERE / "gallery.png", dpi=90)


if __name__ == "__main__":
    main()
