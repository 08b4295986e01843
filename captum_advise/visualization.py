"""Figures of explanations, on top of ``captum.attr.visualization``.

Every function returns the figure and the axes, and draws on axes of the caller's if it is given
some. It takes NumPy arrays and torch tensors. New figures belong to the caller: none is registered
with ``matplotlib.pyplot``, no window opens, no display is needed and no setting of matplotlib is
changed. ``figure.savefig`` writes them. A notebook shows a figure that is a cell's last line, after
``%matplotlib inline``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_advise.density import adaptive_kde
from captum_advise.explanation import Explanation
from captum_advise.pixels import normalize_maps, upsample_maps

if TYPE_CHECKING:
    import numpy.typing as npt

    from captum_advise.explanation import Candidate
    from captum_advise.relevance import ActivationRange

    Array: TypeAlias = Tensor | npt.NDArray[np.generic]
    ManyAxes: TypeAlias = npt.NDArray[np.object_]

__all__ = [
    "densities",
    "group_maps",
    "groups",
    "overlay",
    "overlays",
    "panel",
    "unit_gallery",
]

# Of Okabe and Ito's colour-blind-safe set, and a grey.
_KEPT, _OTHER, _AVX, _TEXT = "#0072b2", "#b9c4cc", "#d55e00", "#404040"
# Inches: a picture among several, with a title of two lines, and a curve.
_SIDE, _ROW, _CURVE = 2.6, 3.15, 2.2


def overlay(
    picture: Array,
    attribution: Array,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    alpha: float = 0.5,
    cmap: str = "plasma",
) -> tuple[Figure, Axes]:
    """A map as heat over the grey picture it explains.

    Negative evidence counts as none. The map is stretched to [0, 1] and enlarged to the picture
    as the protocol does before it masks with it.

    Args:
        picture: (3 or 1, H, W) tensor, or (H, W, 3 or 1) or (H, W) array, in [0, 1].
        attribution: A map, (h, w) with or without leading dimensions of size 1, of any size.
        title: Written above.
        ax: Where to draw; a new figure if None.
        alpha: Opacity of the heat, 0 to 1.
        cmap: Matplotlib colour map; the default can be read without colour vision.

    Returns:
        The figure and the axes drawn on.

    Raises:
        ValueError: The picture or the map does not have such a shape.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, ax = overlay(images[0], explanation.attributions[0])
        >>> figure.savefig("heat.png")
    """
    pixels = _pixels(picture)
    heat = _heat(attribution, pixels.shape[:2])
    figure, ax = _axes(ax)
    if heat.any():
        captum_visualization.visualize_image_attr(
            heat[..., None],
            pixels,
            method="blended_heat_map",
            sign="positive",
            plt_fig_axis=(figure, ax),
            # Clip next to nothing. Zero fails in Captum when a float sum is not exact.
            outlier_perc=0.1,
            cmap=cmap,
            alpha_overlay=alpha,
            title=title,
            use_pyplot=False,
        )
    else:  # which Captum refuses to scale
        ax.imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=1)
        ax.imshow(heat, cmap=cmap, vmin=0, vmax=1, alpha=alpha)
        ax.set_title(title or "")
    ax.set_axis_off()
    return figure, ax


def groups(
    candidates: Sequence[Candidate],
    *,
    selected: int | Collection[int] = (),
    unit_relevance: Array | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Number of units per relevance score, as bars, with the AVX of each group as points.

    Args:
        candidates: The groups of one picture, ``explanation.candidates[i]``. Those that span
            several scores are left out.
        selected: The relevance score that was kept, or several: their bars are dark.
        unit_relevance: (C,), ``explanation.unit_relevance[i]``: adds the scores whose units have
            no map with any evidence, and so no AVX.
        ax: Where to draw; a new figure if None.

    Returns:
        The figure and the axes of the bars.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, ax = groups(explanation.candidates[0], selected=explanation.kept_scores())
    """
    figure, ax = _axes(ax)
    units: Mapping[int, int] = {
        candidate.relevance: len(candidate.units)
        for candidate in candidates
        if candidate.relevance is not None
    }
    if unit_relevance is not None:
        scores, counts = np.unique(_array(unit_relevance), return_counts=True)
        units = {**units, **dict(zip(scores.tolist(), counts.tolist(), strict=True))}
    avx = {
        candidate.relevance: candidate.scores.avx.item()
        for candidate in candidates
        if candidate.relevance is not None and candidate.scores is not None
    }
    kept = {selected} if isinstance(selected, int) else set(selected)
    shown = sorted(units)
    bars = ax.bar(
        shown,
        [units[score] for score in shown],
        color=[_KEPT if score in kept else _OTHER for score in shown],
    )
    ax.bar_label(bars, fontsize="small", padding=2)
    ax.set_xlabel("relevance score (modes per unit)")
    ax.set_ylabel("units")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.margins(y=0.15)
    ax.spines[["top", "right"]].set_visible(False)
    if avx:
        twin = ax.twinx()
        known = sorted(avx)
        twin.plot(
            known,
            [avx[score] for score in known],
            color=_AVX,
            marker="o",
            markersize=8,
            linestyle="none",
            markeredgecolor="white",
        )
        twin.set_ylim(0, 1.05)
        twin.set_ylabel("AVX", color=_AVX)
        twin.tick_params(axis="y", colors=_AVX)
        twin.spines["top"].set_visible(False)
    return figure, ax


def overlays(
    pictures: Array | Sequence[Array],
    attributions: Explanation | Mapping[str, Explanation | Array],
    *,
    class_names: Sequence[str] | None = None,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """Pictures, and beside each the maps that several methods make of it.

    Args:
        pictures: (N, 3 or 1, H, W) tensor, (N, H, W, 3 or 1) array, or a sequence of N pictures
            as :func:`overlay` takes them. One picture without N will do for N = 1.
        attributions: By the methods' names, (N, C, h, w) maps, summed over C, or explanations of
            the N pictures, whose class and confidence are written above the picture if all explain
            the same classes. One explanation by itself is called ADVISE.
        class_names: By class, for explanations.
        axes: Where to draw, N x (1 + methods) of them; a new figure if None.

    Returns:
        The figure, and the axes (N, 1 + methods).

    Raises:
        ValueError: The numbers of pictures, maps or axes differ, or one cannot be drawn.

    Example::

        >>> grad_cam = LayerGradCam(net, net.conv4).attribute(images, target=3)
        >>> explanation = LayerAdvise(net, net.conv4).explain(images, target=3)
        >>> figure, axes = overlays(images, {"Grad-CAM": grad_cam, "ADVISE": explanation})
    """
    seen = _pictures(pictures)
    named = {"ADVISE": attributions} if isinstance(attributions, Explanation) else attributions
    for name, maps in named.items():
        if len(maps) != len(seen):
            raise ValueError(f"{len(seen)} pictures need as many maps of {name}, got {len(maps)}.")
    columns = 1 + len(named)
    figure, grid = _grid(axes, len(seen), columns, (_SIDE * columns, _ROW * len(seen)))
    explanations = [maps for maps in named.values() if isinstance(maps, Explanation)]
    # A caption says which class is explained: only where that is one and the same.
    is_one = len({_targets(maps) for maps in explanations}) == 1
    for index, (picture, row) in enumerate(zip(seen, grid, strict=True)):
        row[0].imshow(picture)
        row[0].set_axis_off()
        if is_one:
            class_name = _class_name(explanations[0], index, class_names)
            caption = "\n".join(_explained(explanations[0], index, class_name))
            row[0].set_title(caption, fontsize="medium")
        for ax, (name, maps) in zip(row[1:], named.items(), strict=True):
            if isinstance(maps, Explanation):
                values, title = maps.attributions[index], f"{name}\n{_kept(maps, index)}"
            else:
                values, title = torch.as_tensor(maps[index]), name
            if values.dim() == 3:
                values = values.sum(0)
            overlay(picture, values, ax=ax)
            ax.set_title(title, fontsize="medium")
    return figure, grid


def group_maps(
    picture: Array,
    explanation: Explanation,
    *,
    index: int = 0,
    columns: int = 4,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """The map of every group of units that was compared, with its units and its AVX.

    The title of the group that was kept is bold.

    Args:
        picture: As in :func:`overlay`.
        explanation: From :meth:`captum_advise.LayerAdvise.explain`.
        index: Which example of the explanation the picture is.
        columns: Maps beside each other in a new figure.
        axes: Where to draw, one for each candidate; a new figure if None.

    Returns:
        The figure, and one axes per candidate.

    Raises:
        ValueError: There are no candidates, or another number of axes.

    Example::

        >>> explanation = LayerAdvise(net, net.conv4).explain(images)
        >>> figure, axes = group_maps(images[0], explanation)
    """
    candidates = explanation.candidates[index]
    figure, shown = _gallery(axes, len(candidates), columns, "groups")
    kept = explanation.unit_weights[index]
    for ax, candidate in zip(shown, candidates, strict=True):
        overlay(picture, candidate.attributions, ax=ax)
        is_kept = int((kept > 0).sum()) == len(candidate.units) and torch.equal(
            kept[candidate.units], candidate.weights
        )
        ax.set_title(
            candidate.describe().replace(": ", "\n"),
            fontsize="medium",
            fontweight="bold" if is_kept else "normal",
        )
    return figure, shown


def densities(
    activations: Array,
    units: Sequence[int] | Array,
    *,
    n_bandwidths: int = 10,
    activation_range: ActivationRange = "unit",
    columns: int = 4,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    r"""Densities of chosen units' activations, with the modes that make their relevance score.

    A tick at the bottom of the axes is an activation, a point on the curve a mode. Modes count
    however small they are.

    Args:
        activations: (C, \*spatial) feature maps of one example.
        units: Which of the C units.
        n_bandwidths: As in :meth:`captum_advise.LayerAdvise.attribute`.
        activation_range: Likewise.
        columns: Densities beside each other in a new figure.
        axes: Where to draw, one for each unit; a new figure if None.

    Returns:
        The figure, and one axes per unit.

    Raises:
        ValueError: No unit, no such unit, another number of axes, or another shape.
        ModuleNotFoundError: scipy, which finds the modes, is missing; the ``demo`` extra has it.

    Example::

        >>> from captum.attr import LayerActivation
        >>> activations = LayerActivation(net, net.conv4).attribute(images)
        >>> figure, axes = densities(activations[0], [0, 17, 31])
    """
    from scipy.signal import find_peaks

    maps = torch.as_tensor(activations).detach().cpu()
    wanted = [int(unit) for unit in units]
    if maps.dim() < 2 or not all(0 <= unit < len(maps) for unit in wanted):
        raise ValueError(
            "Feature maps to draw densities of must be (C, *spatial) and hold the units, got "
            f"{tuple(maps.shape)} and the units {wanted}."
        )
    rows = maps[wanted].flatten(1).double()
    if activation_range == "minmax":
        rows = normalize_maps(rows)
    grid = torch.linspace(0, 1, rows.shape[1], dtype=torch.float64)
    curves = adaptive_kde(rows, grid, n_bandwidths=n_bandwidths).density.numpy()
    positions = grid.numpy()
    figure, shown = _gallery(axes, len(wanted), columns, "units", height=_CURVE)
    for ax, unit, row, density in zip(shown, wanted, rows.numpy(), curves, strict=True):
        modes, _ = find_peaks(np.nan_to_num(density))
        ax.plot(positions, density, color=_KEPT)
        ax.plot(positions[modes], density[modes], "o", color=_AVX, markeredgecolor="white")
        inside = row[(row >= 0) & (row <= 1)]
        ax.plot(
            inside, np.full_like(inside, 0.03), "|", color=_TEXT, transform=ax.get_xaxis_transform()
        )
        ax.set_title(f"unit {unit}: {len(modes)} mode{'s' * (len(modes) != 1)}", fontsize="medium")
        ax.set_xlim(-0.02, 1.02)
        highest = np.nanmax(density, initial=1e-12)
        ax.set_ylim(-0.04 * highest, 1.08 * highest)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
        if not len(inside):
            ax.text(0.5, 0.5, "no activation in [0, 1]", ha="center", transform=ax.transAxes)
    return figure, shown


def unit_gallery(
    picture: Array,
    contributions: Array,
    *,
    count: int = 8,
    unit_relevance: Array | None = None,
    columns: int = 4,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """The units with the most evidence for the class, each with what it contributes to the map.

    A unit's evidence is the sum of the positive part of its contribution, the unit's mean gradient
    times its activations; titles give its share of all units' evidence.

    Args:
        picture: As in :func:`overlay`.
        contributions: (C, h, w) or (1, C, h, w), ``attribute(..., attr_dim_summation=False)``.
        count: How many units; fewer if fewer have evidence.
        unit_relevance: (C,), ``explanation.unit_relevance[i]``: adds the score to the titles.
        columns: Units beside each other in a new figure.
        axes: Where to draw, at least as many as there are units; a new figure if None.

    Returns:
        The figure, and one axes per unit, the one with the most evidence first.

    Raises:
        ValueError: No unit has evidence, there are too few axes, or another shape.

    Example::

        >>> advise = LayerAdvise(net, net.conv4)
        >>> explanation = advise.explain(images, attr_dim_summation=False)
        >>> figure, axes = unit_gallery(
        ...     images[0],
        ...     explanation.attributions[0],
        ...     unit_relevance=explanation.unit_relevance[0],
        ... )
    """
    maps = torch.as_tensor(contributions).detach().cpu().float()
    if maps.dim() == 4 and maps.shape[0] == 1:
        maps = maps[0]
    if maps.dim() != 3:
        raise ValueError(
            f"Contributions of units must be (C, h, w) for one example, got {tuple(maps.shape)}."
        )
    evidence = maps.relu().flatten(1).sum(1)
    best = evidence.argsort(descending=True, stable=True)[:count]
    best = best[evidence[best] > 0]
    if axes is not None:
        axes = np.ravel(np.asarray(axes, dtype=object))[: len(best)]
    figure, shown = _gallery(axes, len(best), columns, "units with evidence")
    for ax, unit in zip(shown, best.tolist(), strict=True):
        score = "" if unit_relevance is None else f", score {int(unit_relevance[unit])}"
        overlay(picture, maps[unit], ax=ax)
        ax.set_title(
            f"unit {unit}{score}: {evidence[unit] / evidence.sum():.1%}", fontsize="medium"
        )
    return figure, shown


def panel(
    picture: Array,
    explanation: Explanation,
    grad_cam: Explanation,
    *,
    index: int = 0,
    class_name: str | None = None,
    axes: npt.ArrayLike | None = None,
) -> tuple[Figure, ManyAxes]:
    """Picture, Grad-CAM, ADVISE, and the groups that ADVISE chose from, side by side.

    Args:
        picture: As in :func:`overlay`.
        explanation: From :meth:`captum_advise.LayerAdvise.explain`.
        grad_cam: The same for every unit, ``unit_selection=None``.
        index: Which example of the two explanations the picture is.
        class_name: Of the class that is explained; its number if None.
        axes: Where to draw, four; a new figure if None, which then has a title and a legend for
            the colours.

    Returns:
        The figure, and the four axes.

    Example::

        >>> advise = LayerAdvise(net, net.conv4)
        >>> explanation = advise.explain(images)
        >>> grad_cam = advise.explain(images, explanation.target, unit_selection=None)
        >>> figure, axes = panel(images[0], explanation, grad_cam)
    """
    (seen,) = _pictures([picture])
    new = axes is None
    figure, ((first, plain, advise, chart),) = _grid(
        axes, 1, 4, (13.5, 4.1), width_ratios=[1, 1, 1, 1.25]
    )
    first.imshow(seen)
    first.set_axis_off()
    first.set_title("picture")
    for name, maps, ax in (("Grad-CAM", grad_cam, plain), ("ADVISE", explanation, advise)):
        title = f"{name}: {_kept(maps, index)}"
        overlay(seen, maps.attributions[index].sum(0), title=title, ax=ax)
    groups(
        explanation.candidates[index],
        selected=explanation.kept_scores(index),
        unit_relevance=explanation.unit_relevance[index],
        ax=chart,
    )
    chart.set_title("units per relevance score; dark: kept")
    if new:
        parts = [*_explained(explanation, index, class_name), explanation.kept_in_words(index)]
        figure.suptitle(", ".join(parts))
        figure.supxlabel(
            "heat: yellow is the most evidence for the class, blue is none",
            x=0.005,
            horizontalalignment="left",
            fontsize="medium",
        )
    return figure, np.array([first, plain, advise, chart])


def _targets(explanation: Explanation) -> str:
    return "" if explanation.target is None else str(explanation.target.tolist())


def _explained(explanation: Explanation, index: int, class_name: str | None) -> list[str]:
    """The class and the confidence in it, of those that there are."""
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


def _kept(explanation: Explanation, index: int) -> str:
    count = int(explanation.selected_units[index].sum())
    avx = explanation.scores
    score = "" if avx is None or avx.avx[index].isnan() else f", AVX {avx.avx[index].item():.3f}"
    return f"{count} unit{'s' * (count != 1)}{score}"


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    if ax is None:
        figure = Figure(layout="constrained")
        return figure, figure.subplots()
    return cast(Figure, ax.figure), ax


def _grid(
    axes: npt.ArrayLike | None,
    rows: int,
    columns: int,
    size: tuple[float, float],
    width_ratios: Sequence[float] | None = None,
) -> tuple[Figure, ManyAxes]:
    if axes is None:
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=width_ratios)
    given = np.ravel(np.asarray(axes, dtype=object))
    if len(given) != rows * columns:
        raise ValueError(f"{rows} x {columns} axes are needed to draw on, got {len(given)}.")
    return cast(Figure, given[0].figure), given.reshape(rows, columns)


def _gallery(
    axes: npt.ArrayLike | None, count: int, columns: int, what: str, height: float = _ROW
) -> tuple[Figure, ManyAxes]:
    """Axes for ``count`` things, row by row."""
    if count == 0:
        raise ValueError(f"There are no {what} to draw.")
    if axes is not None:
        figure, grid = _grid(axes, 1, count, (0, 0))
        return figure, grid[0]
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, grid = _grid(None, rows, columns, (_SIDE * columns, height * rows))
    for unused in grid.ravel()[count:]:
        unused.remove()
    return figure, grid.ravel()[:count]


def _array(values: Array) -> npt.NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _pictures(pictures: Array | Sequence[Array]) -> list[npt.NDArray[np.floating]]:
    if isinstance(pictures, Tensor | np.ndarray) and (
        pictures.ndim == 2 or (pictures.ndim == 3 and _is_one(pictures))
    ):
        pictures = [pictures]
    return [_pixels(picture) for picture in pictures]


def _is_one(picture: Array) -> bool:
    return picture.shape[0 if isinstance(picture, Tensor) else 2] in (1, 3)


def _pixels(picture: Array) -> npt.NDArray[np.floating]:
    """(H, W, 3) in [0, 1]."""
    if isinstance(picture, Tensor):
        if picture.dim() != 3 or not _is_one(picture):
            raise ValueError(
                f"A picture tensor must be (3, H, W) or (1, H, W), got {tuple(picture.shape)}; "
                "of a batch, give one picture."
            )
        picture = picture.detach().permute(1, 2, 0).float().cpu().numpy()
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or not _is_one(picture):
        raise ValueError(
            f"A picture array must be (H, W, 3), (H, W, 1) or (H, W), got {picture.shape}."
        )
    if not (
        np.issubdtype(picture.dtype, np.floating)
        and picture.min() >= -0.01
        and picture.max() <= 1.01
    ):
        raise ValueError(
            "A picture to draw must hold floating-point values in [0, 1]; "
            "PixelSpace.to_pixels makes them from model inputs."
        )
    return np.broadcast_to(picture, (*picture.shape[:2], 3)).clip(0, 1)


def _heat(attribution: Array, size: tuple[int, ...]) -> npt.NDArray[np.floating]:
    values = torch.as_tensor(attribution).detach().float().cpu()
    if values.dim() < 2 or values.shape[:-2].numel() != 1:
        raise ValueError(
            f"A map to draw must be (h, w), got {tuple(values.shape)}; of a batch, give one map."
        )
    if not values.isfinite().all():
        raise ValueError("A map to draw must be finite, got infinite values or NaN.")
    maps = normalize_maps(values.reshape(1, 1, *values.shape[-2:]).relu())
    heat: npt.NDArray[np.floating] = upsample_maps(maps, size)[0, 0].numpy()
    return heat
