"""Figures of maps over the images that they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_advise.visualization.heat import (
    COLOURS,
    OPACITY,
    draw_heat,
    evidence_bar,
    heat_colours,
)
from captum_advise.visualization.style import (
    PANEL,
    ROW,
    SIDE,
    as_image,
    as_images,
    axes_gallery,
    axes_grid,
    axes_or_new,
)
from captum_advise.visualization.units import groups

if TYPE_CHECKING:
    import numpy.typing as npt

    from captum_advise.explanation import Candidate, Explanation
    from captum_advise.visualization.style import Array, ManyAxes

# What figures call the map of an explanation.
LAYER_ADVISE = "LayerAdvise"


def overlay(
    image: Array,
    attribution: Array,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    alpha: float = OPACITY,
    cmap: str = COLOURS,
) -> tuple[Figure, Axes]:
    """A map as heat over the grey image that it explains.

    The more evidence, the more opaque the heat: the image shows where there is none. Negative
    evidence counts as none. The map is stretched to [0, 1] and enlarged to the image as the
    protocol does before it masks with it.

    Args:
        image: (3 or 1, H, W) tensor, or (H, W, 3 or 1) or (H, W) array, in [0, 1].
        attribution: A map, (h, w) with or without leading dimensions of size 1, of any size.
        title: Written above.
        ax: Where to draw; a new figure if None, which then has a colour bar.
        alpha: Opacity of the heat where the evidence is greatest, 0 to 1.
        cmap: Matplotlib colour map; the default can be read without colour vision.

    Returns:
        The figure and the axes drawn on.

    Raises:
        ValueError: The image or the map does not have such a shape.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, ax = overlay(images[0], explanation.attributions[0])
        >>> figure.savefig("heat.png")
    """
    pixels, colours = as_image(image), heat_colours(cmap, alpha)
    new = ax is None
    figure, ax = axes_or_new(ax, (4.5, 4.7))
    draw_heat(figure, ax, pixels, attribution, colours)
    ax.set_title(title or "")
    if new:
        evidence_bar(figure, np.array(ax), colours)
    return figure, ax


def overlays(
    images: Array | Sequence[Array],
    attributions: Explanation | Mapping[str, Explanation | Array],
    *,
    class_names: Sequence[str] | None = None,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """Images, each followed by the maps that several methods make of it.

    Args:
        images: (N, 3 or 1, H, W) tensor, (N, H, W, 3 or 1) array, or a sequence of N images as
            :func:`overlay` takes them. One image without N is accepted for N = 1.
        attributions: By the methods' names, (N, C, h, w) maps, summed over C, or explanations of
            the N images, whose class and confidence are written above the image if all explain
            the same classes. A single explanation is called LayerAdvise.
        class_names: By class, for explanations.
        axes: Where to draw, N x (1 + methods) of them; a new figure if None, which then has a
            colour bar.

    Returns:
        The figure, and the axes (N, 1 + methods).

    Raises:
        ValueError: The numbers of images, maps or axes differ, or one cannot be drawn.

    Example::

        >>> grad_cam = LayerGradCam(net, net.conv4).attribute(images, target=3)
        >>> explanation = LayerAdvise(net, net.conv4).explain(images, target=3)
        >>> figure, axes = overlays(images, {"Grad-CAM": grad_cam, "LayerAdvise": explanation})
    """
    pixels = as_images(images)
    named = attributions if isinstance(attributions, Mapping) else {LAYER_ADVISE: attributions}
    for name, maps in named.items():
        if len(maps) != len(pixels):
            raise ValueError(f"{len(pixels)} images need as many maps of {name}, got {len(maps)}.")
    columns = 1 + len(named)
    new = axes is None
    figure, grid = axes_grid(axes, len(pixels), columns, (SIDE * columns, ROW * len(pixels)))
    explanations = [maps for maps in named.values() if not isinstance(maps, Tensor | np.ndarray)]
    # The caption names the class: only where that is the same for all.
    is_one = len({_targets(explanation) for explanation in explanations}) == 1
    for index, (image, row) in enumerate(zip(pixels, grid, strict=True)):
        _draw_image(row[0], image)
        if is_one:
            class_name = class_name_of(explanations[0], index, class_names)
            caption = "\n".join(_class_and_confidence(explanations[0], index, class_name))
            row[0].set_title(caption, fontsize="medium", parse_math=False)
        for ax, (name, maps) in zip(row[1:], named.items(), strict=True):
            _draw_map(figure, ax, image, name, maps, index)
            ax.title.set_fontsize("medium")
    if new:
        evidence_bar(figure, grid)
    return figure, grid


def group_maps(
    image: Array,
    explanation: Explanation,
    *,
    index: int = 0,
    columns: int = 4,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """The map of every group of units that was compared, with its units and its AVX.

    The title of the selected group is bold.

    Args:
        image: As in :func:`overlay`.
        explanation: From :meth:`captum_advise.LayerAdvise.explain`.
        index: Which example of the explanation the image is.
        columns: Maps per row of a new figure.
        axes: Where to draw, one for each candidate; a new figure if None, which then has a colour
            bar.

    Returns:
        The figure, and one axes per candidate.

    Raises:
        ValueError: There are no candidates, or the number of axes differs.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, axes = group_maps(images[0], explanation)
    """
    pixels = as_image(image)
    candidates = explanation.candidates[index]
    new = axes is None
    figure, shown = axes_gallery(axes, len(candidates), columns, "groups")
    weights = explanation.unit_weights[index]
    for ax, candidate in zip(shown, candidates, strict=True):
        draw_heat(figure, ax, pixels, candidate.attributions)
        ax.set_title(
            candidate.describe().replace(": ", "\n"),
            fontsize="medium",
            fontweight="bold" if is_selected(candidate, weights) else "normal",
        )
    if new:
        evidence_bar(figure, shown)
    return figure, shown


def panel(
    image: Array,
    explanation: Explanation,
    comparisons: Mapping[str, Explanation | Array],
    *,
    index: int = 0,
    class_name: str | None = None,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """Image, other maps, that of an explanation, and the groups of which it selected one, in a row.

    Args:
        image: As in :func:`overlay`.
        explanation: From :meth:`captum_advise.LayerAdvise.explain`.
        comparisons: Other maps by their names, as in :func:`overlays`.
        index: Which example of the explanation and of the maps the image is.
        class_name: Of the class that is explained; its number if None.
        axes: Where to draw, 3 + comparisons of them; a new figure if None, which then has a title
            and a colour bar.

    Returns:
        The figure, and the axes.

    Raises:
        ValueError: The number of axes differs, or a map cannot be drawn.

    Example::

        >>> advise = LayerAdvise(net, net.conv4)
        >>> explanation = advise.explain(images)
        >>> grad_cam = advise.explain(images, explanation.target, unit_selection=None)
        >>> figure, axes = panel(images[0], explanation, {"Grad-CAM": grad_cam})
    """
    pixels = as_image(image)
    named = {**comparisons, LAYER_ADVISE: explanation}
    new, count = axes is None, len(named)
    figure, (row,) = axes_grid(
        axes, 1, 2 + count, (PANEL * (count + 2.2), 3.7), width_ratios=[1] * (1 + count) + [1.2]
    )
    first, shown, chart = row[0], row[1:-1], row[-1]
    _draw_image(first, pixels)
    first.set_title("image")
    for ax, (name, maps) in zip(shown, named.items(), strict=True):
        _draw_map(figure, ax, pixels, name, maps, index)
    relevance = explanation.unit_relevance
    groups(
        explanation.candidates[index],
        selected=explanation.selected_relevances(index),
        unit_relevance=None if relevance is None else relevance[index],
        ax=chart,
    )
    chart.set_title(f"groups of units\n{explanation.describe_selection(index)}")
    if new:
        caption = ", ".join(_class_and_confidence(explanation, index, class_name))
        figure.suptitle(caption, fontweight="bold", parse_math=False)
        evidence_bar(figure, shown)
    return figure, row


def is_selected(candidate: Candidate, weights: Tensor) -> bool:
    """Whether an example's weights of units (C,) are those of a candidate."""
    return int((weights > 0).sum()) == len(candidate.units) and torch.equal(
        weights[candidate.units], candidate.weights
    )


def class_name_of(
    explanation: Explanation, index: int, class_names: Sequence[str] | None
) -> str | None:
    """The name of the class that is explained, or its number; None where there is neither."""
    class_name = _class_name(explanation, index, class_names)
    if class_name is None and explanation.target is not None:
        return f"class {explanation.target[index].tolist()}"
    return class_name


def _draw_image(ax: Axes, image: npt.NDArray[np.floating]) -> None:
    ax.imshow(image)
    ax.set_axis_off()


def _draw_map(
    figure: Figure,
    ax: Axes,
    image: npt.NDArray[np.floating],
    name: str,
    maps: Explanation | Array,
    index: int,
) -> None:
    """A map of an example with its name, and its units and AVX or its resolution."""
    if isinstance(maps, Tensor | np.ndarray):
        values = torch.as_tensor(maps[index])
        caption = "{} x {} positions".format(*values.shape[-2:])
    else:
        values, caption = maps.attributions[index], _units_and_avx(maps, index)
    draw_heat(figure, ax, image, values.sum(0) if values.dim() == 3 else values)
    ax.set_title(f"{name}\n{caption}", parse_math=False)


def _targets(explanation: Explanation) -> str:
    return "" if explanation.target is None else str(explanation.target.tolist())


def _class_and_confidence(
    explanation: Explanation, index: int, class_name: str | None
) -> list[str]:
    """The class and the confidence in it, where they are known."""
    parts = []
    if class_name is None and explanation.target is not None:
        class_name = f"class {explanation.target[index].tolist()}"
    if class_name is not None:
        parts.append(class_name)
    if explanation.confidence is not None:
        parts.append(f"confidence {explanation.confidence[index].item():.1%}")
    return parts


def _class_name(
    explanation: Explanation, index: int, class_names: Sequence[str] | None
) -> str | None:
    if class_names is None or explanation.target is None or explanation.target[index].dim():
        return None
    return class_names[int(explanation.target[index])]


def _units_and_avx(explanation: Explanation, index: int) -> str:
    selected = explanation.selected_units[index]
    count = int(selected.sum())
    text = f"{'all ' * bool(selected.all())}{count} unit{'s' * (count != 1)}"
    metrics = explanation.metrics
    if metrics is None or metrics.avx[index].isnan():
        return text
    return f"{text}, AVX {metrics.avx[index].item():.3f}"
