"""The figures of the README: ``python docs/images/draw.py``.

The photographs come from scikit-image and are explained for EfficientNet-Lite0 with its ImageNet
weights; the scene is one of the package's, explained for the network scenes-resnet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from captum_advise import Explanation, explain, visualization, zoo
from captum_advise.evaluation import scene
from captum_advise.metrics import top_pixels
from captum_advise.pixels import normalize_maps, upsample_maps
from captum_advise.visualization import overlay
from captum_advise.visualization.maps import shown_name

HERE = Path(__file__).parent
IMAGES = ("chelsea", "coffee", "camera", "rocket")
SCENE = 0


def explained(name: str) -> Explanation:
    """The explanation of an image of scikit-image."""
    return explain(Image.fromarray(getattr(data, name)()), "efficientnet-lite0")


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


def truth() -> Figure:
    """A scene explained for each of its objects, with the share on the object, and a photograph."""
    shown = scene(SCENE)
    network = zoo.load("scenes-resnet")
    image = Image.fromarray(shown.image)
    rows = [
        (explain(image, network, target=label), torch.from_numpy(mask)[None, None])
        for label, mask in zip(shown.classes, shown.masks, strict=True)
    ]
    rows.append((explained("coffee"), None))
    methods = list(rows[0][0].maps)
    figure = Figure(figsize=(9.6, 7.6), layout="constrained")
    axes = figure.subplots(len(rows), 1 + len(methods))
    for row, (explanation, mask) in zip(axes, rows, strict=True):
        pixels = explanation.images[0]
        row[0].imshow(np.moveaxis(pixels.numpy(), 0, 2))
        row[0].set_axis_off()
        row[0].set_title(f"Where is the {explanation.class_name()}?", fontsize="medium")
        for ax, method in zip(row[1:], methods, strict=True):
            of_method = explanation.maps[method]
            overlay(pixels, of_method[0], ax=ax)
            text = shown_name(method)
            if mask is not None:
                ax.contour(mask[0, 0], [0.5], colors="white", linewidths=1)
                full = upsample_maps(normalize_maps(of_method), tuple(pixels.shape[1:]))
                text += f"\n{top_pixels(full, mask).item():.0%} of it on the object"
            ax.set_title(text, fontsize="medium")
    return figure


def main() -> None:
    """Draw the figures."""
    truth().savefig(HERE / "known_truth.png", dpi=100)
    visualization.gallery(explained("coffee"))[0].savefig(HERE / "coffee.png", dpi=110)
    gallery().savefig(HERE / "gallery.png", dpi=90)


if __name__ == "__main__":
    main()
