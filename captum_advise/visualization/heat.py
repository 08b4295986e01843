"""A map as heat over the image that it explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import matplotlib
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from captum_advise.pixels import normalize_maps, upsample_maps
from captum_advise.visualization.style import GREY

if TYPE_CHECKING:
    from captum_advise.visualization.style import Array, ManyAxes, Pixels

_OPACITY = 0.65  # of the highest value; the lowest is transparent
_COLOURS = "plasma"  # readable without colour vision
_BAR_LENGTH, _BAR_HEIGHT = 3.5, 0.5  # inches, the height with the labels


def heat_colours() -> Colormap:
    """A colour map that lets the image show where there is no evidence."""
    colours = matplotlib.colormaps[_COLOURS](np.linspace(0, 1, 256))
    colours[:, 3] = _OPACITY * np.linspace(0, 1, 256)
    return ListedColormap(colours, name=f"transparent {_COLOURS}")


def heat_picture(heat: Pixels) -> Image.Image:
    """Heat in [0, 1], (H, W), as a picture whose highest values are opaque."""
    picture = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    colours = matplotlib.colormaps[_COLOURS](np.arange(256), bytes=True)
    picture.putpalette(colours[:, :3].tobytes())
    picture.info["transparency"] = bytes(range(256))
    return picture


def draw_heat(ax: Axes, image: Pixels, attribution: Array) -> None:
    """Draw a map, as :func:`heat_of` takes it, over the grey image (H, W, 3) in [0, 1]."""
    heat = heat_of(attribution, image.shape[:2])
    ax.imshow(image.mean(2), cmap="gray", vmin=0, vmax=1)
    ax.imshow(heat, cmap=heat_colours(), vmin=0, vmax=1)
    ax.set_axis_off()


def heat_of(attribution: Array, size: tuple[int, ...]) -> Pixels:
    """A map as heat in [0, 1] of the image's size, as the protocol makes a mask of it.

    Args:
        attribution: A map, (h, w) with or without leading dimensions of size 1, of any size.
        size: Height and width of the image.

    Raises:
        ValueError: The map has another shape or is not finite.
    """
    values = torch.as_tensor(attribution).detach().float().cpu()
    if values.dim() < 2 or values.shape[:-2].numel() != 1:
        raise ValueError(
            f"A map to draw must be (h, w), got {tuple(values.shape)}; pass one map of a batch."
        )
    if not values.isfinite().all():
        raise ValueError("A map to draw must be finite, got infinite values or NaN.")
    maps = normalize_maps(values.reshape(1, 1, *values.shape[-2:]).relu())
    heat: Pixels = upsample_maps(maps, size)[0, 0].numpy()
    return heat


def evidence_bar(figure: Figure, axes: ManyAxes) -> None:
    """Draw the colour bar of heat maps below the axes of a new figure, which becomes higher."""
    boxes = [ax.get_position() for ax in axes.ravel()]
    width = max(box.x1 for box in boxes) - min(box.x0 for box in boxes)
    shrink = min(0.9, _BAR_LENGTH / (width * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + _BAR_HEIGHT)
    bar = figure.colorbar(
        ScalarMappable(cmap=heat_colours()),
        ax=axes,
        location="bottom",
        panchor=False,  # leaves the axes in line with others
        shrink=shrink,
        aspect=25,
        pad=0.02,
    )
    cast(Artist, bar.solids).set_alpha(None)  # the colours have their own
    bar.ax.set_facecolor(GREY)
    bar.set_ticks([0, 1], labels=["none", "most"])
    bar.set_label("evidence for the class", labelpad=-9)
    bar.ax.tick_params(length=0)
