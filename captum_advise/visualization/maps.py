"""Figures of maps over the images that they explain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_advise._utils.errors import warn_caller
from captum_advise.explanation import Explanation, avx_in_words
from captum_advise.visualization.heat import draw_heat, evidence_bar
from captum_advise.visualization.style import as_image, as_images

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise.visualization.style import Array, ManyAxes, Pixels

_TITLE: dict[str, Any] = {"fontsize": "medium", "parse_math": False}
_LETTERS = 28  # of a title, as wide as an image
_SHOWN = {"gated-grad-cam": "GatedGradCam", "layer-advise": "LayerAdvise", "grad-cam": "Grad-CAM"}


def overlay(
    image: Array | Image.Image,
    attribution: Array,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """A map as heat over the grey image that it explains.

    The more evidence, the more opaque the heat: the image shows where there is none. Negative
    evidence counts as none. The map is stretched to [0, 1] and enlarged to the image as the
    protocol does before it masks with it.

    Args:
        image: (3 or 1, H, W) tensor, or (H, W, 3 or 1) or (H, W) array, in [0, 1], or a PIL image.
        attribution: A map, (h, w) with or without leading dimensions of size 1, of any size.
        title: Written above.
        ax: Where to draw; a new figure if None, which then has a colour bar.

    Returns:
        The figure and the axes drawn on.

    Raises:
        ValueError: The image or the map does not have such a shape.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, ax = overlay(images[0], explanation.attributions[0])
        >>> figure.savefig("heat.png")
    """
    pixels = as_image(image)
    new = ax is None
    ax = ax or Figure(figsize=(4.5, 4.7), layout="constrained").subplots()
    figure = cast(Figure, ax.figure)
    draw_heat(ax, pixels, attribution)
    _warn_of_another_aspect([(attribution, pixels)])
    ax.set_title(title or "")
    if new:
        evidence_bar(figure, np.array(ax))
    return figure, ax


def overlays(
    images: Array | Image.Image | Sequence[Array | Image.Image], maps: Mapping[str, Array]
) -> tuple[Figure, ManyAxes]:
    """Images, each followed by the maps that several methods make of it.

    Args:
        images: (N, 3 or 1, H, W) tensor, (N, H, W, 3 or 1) array, or a sequence of N images as
            :func:`overlay` takes them. One image without N is accepted for N = 1.
        maps: By the methods' names, (N, C, h, w), summed over C.

    Returns:
        The figure, and the axes (N, 1 + methods).

    Raises:
        ValueError: The numbers of images and maps differ, or one cannot be drawn.

    Example::

        >>> grad_cam = LayerGradCam(net, net.conv4)
        >>> maps = {f"class {target}": grad_cam.attribute(images, target) for target in (3, 4)}
        >>> figure, axes = overlays(images, maps)
    """
    pixels = as_images(images)
    for name, of_method in maps.items():
        if len(of_method) != len(pixels):
            raise ValueError(
                f"{len(pixels)} images need as many maps of {name}, got {len(of_method)}."
            )
    figure, axes = _rows(pixels, maps, lambda name, _: f"{name}\n{_positions(maps[name])}")
    _warn_of_another_aspect(product(maps.values(), pixels))
    return figure, axes


def gallery(explanation: Explanation) -> tuple[Figure, ManyAxes]:
    """The images of an explanation, each followed by all its maps, the recommended one first.

    Above an image are its class and the confidence in it, above a map its method, and its units and
    AVX or its size.

    Args:
        explanation: With images.

    Returns:
        The figure, and the axes (N, 1 + maps).

    Raises:
        ValueError: The explanation has no images.

    Example::

        >>> figure, axes = gallery(LayerAdvise(net, net.conv4).explain(images))
    """
    figure, axes = _rows(
        images_of(explanation),
        explanation.maps,
        lambda name, index: f"{shown_name(name)}\n{units_and_avx(explanation, name, index)}",
    )
    for index, ax in enumerate(axes[:, 0]):
        ax.set_title(_caption(explanation, index), **_TITLE)
    return figure, axes


def images_of(explanation: Explanation) -> list[Pixels]:
    """The images of an explanation as arrays (H, W, 3) in [0, 1]; a ValueError if it has none."""
    if explanation.images is None:
        raise ValueError(
            "The explanation has no images to draw, because its inputs are not images: "
            "visualization.overlay draws a map over any image."
        )
    return as_images(explanation.images)


def _rows(
    images: Sequence[Pixels], maps: Mapping[str, Array], title: Callable[[str, int], str]
) -> tuple[Figure, ManyAxes]:
    """A row per image: the image and its map of each method, with a title of two lines."""
    columns = 1 + len(maps)
    figure = Figure(figsize=(2.6 * columns, 3.35 * len(images)), layout="constrained")
    axes: ManyAxes = figure.subplots(len(images), columns, squeeze=False)
    for index, (image, row) in enumerate(zip(images, axes, strict=True)):
        row[0].imshow(image)
        row[0].set_axis_off()
        for ax, (name, of_method) in zip(row[1:], maps.items(), strict=True):
            values = torch.as_tensor(of_method[index])
            draw_heat(ax, image, values.sum(0) if values.dim() == 3 else values)
            ax.set_title(title(name, index), **_TITLE)
    evidence_bar(figure, axes)
    return figure, axes


def _positions(maps: Array) -> str:
    return "{} x {} positions".format(*maps.shape[-2:])


def shown_name(method: str) -> str:
    """The name that is shown for a method: its class, where the method is one of ours."""
    return _SHOWN.get(method, method)


def units_and_avx(explanation: Explanation, method: str, index: int) -> str:
    """How many units make a map of an explanation, and its AVX; else its size."""
    if method not in ("layer-advise", "grad-cam"):
        return _positions(explanation.maps[method])
    selected = explanation.selected_units[index]
    is_all = method == "grad-cam" or bool(selected.all())
    count = len(selected) if is_all else int(selected.sum())
    text = f"{'all ' * is_all}{count} unit{'s' * (count != 1)}"
    metrics = explanation.map_metrics.get(method)
    return text + avx_in_words(None if metrics is None else metrics[index])


def _caption(explanation: Explanation, index: int) -> str:
    """The class and the confidence in it, where they are known; a long name is cut."""
    name = explanation.class_name(index)
    if name is not None and len(name) > _LETTERS:
        name = f"{name[: _LETTERS - 1]}…"
    parts = [] if name is None else [name]
    if explanation.confidence is not None:
        parts.append(f"confidence {explanation.confidence[index].item():.1%}")
    return "\n".join(parts)


def _warn_of_another_aspect(pairs: Iterable[tuple[Array, Pixels]]) -> None:
    """Warn of the first of some maps that does not have its image's aspect."""
    for attribution, image in pairs:
        (h, w), (height, width) = attribution.shape[-2:], image.shape[:2]
        if abs(h * width - w * height) > max(height, width):  # by more than a cell
            warn_caller(
                f"A map of {h} x {w} is stretched over an image of {height} x {width}, of another "
                "aspect. Draw it over the image that the model saw, resized and cropped."
            )
            return
