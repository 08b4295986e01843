"""Figures of explanations, on top of ``captum.attr.visualization``.

Figures belong to the caller: none is registered with ``matplotlib.pyplot``, no window opens, and
no display is needed. ``figure.savefig`` writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from captum.attr import visualization as captum_visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from captum_advise.pixels import normalize_maps, upsample_maps

if TYPE_CHECKING:
    import numpy.typing as npt

    from captum_advise.explanation import Candidate, Explanation

_KEPT, _OTHER, _AVX = "#0072b2", "#b9c4cc", "#d55e00"  # of Okabe and Ito's colour-blind-safe set


def overlay(
    picture: Tensor | npt.NDArray[np.floating],
    attribution: Tensor | npt.NDArray[np.floating],
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
        picture: (H, W, 3) NumPy array or (3, H, W) tensor, in [0, 1].
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

        >>> explanation = advise.explain(inputs)
        >>> picture = pixel_space.to_pixels(inputs)[0]
        >>> figure, _ = overlay(picture, explanation.attributions[0])
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
    unit_relevance: Tensor | None = None,
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

        >>> explanation = advise.explain(inputs)
        >>> figure, _ = groups(explanation.candidates[0], selected=int(explanation.selected[0]))
    """
    figure, ax = _axes(ax)
    units: Mapping[int, int] = {
        candidate.relevance: len(candidate.units)
        for candidate in candidates
        if candidate.relevance is not None
    }
    if unit_relevance is not None:
        scores, counts = np.unique(unit_relevance.cpu().numpy(), return_counts=True)
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


def panel(
    picture: Tensor | npt.NDArray[np.floating],
    explanation: Explanation,
    grad_cam: Explanation,
    *,
    index: int = 0,
    class_name: str | None = None,
) -> Figure:
    """Picture, Grad-CAM, ADVISE, and the groups that ADVISE chose from, side by side.

    Args:
        picture: (H, W, 3) NumPy array or (3, H, W) tensor, in [0, 1].
        explanation: From :meth:`LayerAdvise.explain`.
        grad_cam: The same for every unit, ``unit_selection=None``.
        index: Which example of the two explanations the picture is.
        class_name: Of the class that is explained; its number if None.

    Example::

        >>> explanation = advise.explain(inputs)
        >>> grad_cam = advise.explain(inputs, explanation.target, unit_selection=None)
        >>> panel(pixel_space.to_pixels(inputs)[0], explanation, grad_cam).savefig("panel.png")
    """
    figure = Figure(figsize=(13.5, 4.1), layout="constrained")
    seen, plain, advise, chart = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.25])
    seen.imshow(_pixels(picture))
    seen.set_axis_off()
    seen.set_title("picture")
    all_units = explanation.selected_units.shape[1]
    kept_units = int(explanation.selected_units[index].sum())
    overlay(
        picture,
        grad_cam.attributions[index],
        title=f"Grad-CAM: {all_units} units{_avx(grad_cam, index)}",
        ax=plain,
    )
    overlay(
        picture,
        explanation.attributions[index],
        title=f"ADVISE: {kept_units} units{_avx(explanation, index)}",
        ax=advise,
    )
    groups(
        explanation.candidates[index],
        selected=kept_scores(explanation, index),
        unit_relevance=explanation.unit_relevance[index],
        ax=chart,
    )
    chart.set_title("units per relevance score; dark: kept")
    figure.suptitle(_caption(explanation, index, class_name))
    figure.supxlabel(
        "heat: yellow is the most evidence for the class, blue is none",
        x=0.005,
        horizontalalignment="left",
        fontsize="medium",
    )
    return figure


def kept_scores(explanation: Explanation, index: int = 0) -> list[int]:
    """Relevance scores of the units that the map of one example is made of, ascending."""
    units = explanation.selected_units[index]
    return sorted(set(explanation.unit_relevance[index][units].tolist()))


def kept_in_words(explanation: Explanation, index: int = 0) -> str:
    """Which units the map of one example is made of, in a few words."""
    if explanation.fallback[index]:
        return "no group has evidence, all units kept"
    if explanation.selected_units[index].all():
        return "all units kept"
    scores = kept_scores(explanation, index)
    if not scores:
        return "no units kept"
    return f"relevance score{'s' * (len(scores) > 1)} {', '.join(map(str, scores))} kept"


def _caption(explanation: Explanation, index: int, class_name: str | None) -> str:
    parts = []
    if class_name is None and explanation.target is not None:
        class_name = f"class {explanation.target[index].tolist()}"
    if class_name is not None:
        parts.append(class_name)
    if explanation.confidence is not None:
        parts.append(f"confidence {explanation.confidence[index].item():.1%}")
    return ", ".join([*parts, kept_in_words(explanation, index)])


def _avx(explanation: Explanation, index: int) -> str:
    if explanation.scores is None:
        return ""
    return f", AVX {explanation.scores.avx[index].item():.3f}"


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    if ax is None:
        figure = Figure(layout="constrained")
        return figure, figure.subplots()
    return cast(Figure, ax.figure), ax


def _pixels(picture: Tensor | npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if isinstance(picture, Tensor):
        if picture.dim() != 3 or picture.shape[0] != 3:
            raise ValueError(
                f"A picture tensor must be (3, H, W), got {tuple(picture.shape)}; "
                "of a batch, give one picture."
            )
        picture = picture.detach().permute(1, 2, 0).float().cpu().numpy()
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"A picture array must be (H, W, 3), got {picture.shape}.")
    if not (
        np.issubdtype(picture.dtype, np.floating)
        and picture.min() >= -0.01
        and picture.max() <= 1.01
    ):
        raise ValueError(
            "A picture to draw must hold floating-point values in [0, 1]; "
            "PixelSpace.to_pixels makes them from model inputs."
        )
    return picture.clip(0, 1)


def _heat(
    attribution: Tensor | npt.NDArray[np.floating], size: tuple[int, ...]
) -> npt.NDArray[np.floating]:
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
