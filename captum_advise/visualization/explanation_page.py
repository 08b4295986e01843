"""An explanation as one HTML file that loads nothing from a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from captum_advise.explanation import Explanation, metrics_in_words, most_probable
from captum_advise.visualization.heat import heat_of, heat_picture
from captum_advise.visualization.html import data_uri, filled
from captum_advise.visualization.maps import images_of, shown_name, units_and_avx

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from captum_advise.visualization.style import Pixels

_Parts: TypeAlias = dict[str, Any]

# The metrics of the table, and which values are better.
_METRICS = {
    "avx": "AVX ↑",
    "average_drop": "average drop ↓",
    "ssim": "SSIM ↑",
    "fsim": "FSIMc ↑",
    "mse": "MSE ↓",
    "class_sensitivity": "class sensitivity ↓",
    "hit": "hit (top 5)",
}

_UNITS = 10  # of an image
_MOST_POINTS = 128  # of a density's curve
_BEYOND = 0.18  # of the range that counts, drawn on either side of it


def page(explanation: Explanation, *, names: Sequence[str] | None = None) -> str:
    """A page in one file, which loads nothing from a network.

    It shows the maps of all methods, the recommended one first, those of the groups of units, and
    their metrics. If the explanation has its units (``keep_units=True``), it shows those with the
    most evidence as well: their activations and their densities. The file has about 0.5 MB per
    image of 224 x 224 pixels.

    Args:
        explanation: With images.
        names: One per image, such as the name of its file.

    Returns:
        The content of the file, which is to be written in UTF-8.

    Raises:
        ValueError: The explanation has no images, a map is not one of images or not finite, or the
            number of names differs.

    Example::

        >>> from pathlib import Path
        >>> explanation = LayerAdvise(net, net.conv4).explain(images, keep_units=True)
        >>> text = page(explanation, names=["cat", "dog"])
        >>> Path("explanation.html").write_text(text, encoding="utf-8") > 1000
        True
    """
    pixels = images_of(explanation)
    if names is not None and len(names) != len(explanation):
        raise ValueError(
            f"An explanation of {len(explanation)} examples needs as many names, got {len(names)}."
        )
    examples = [
        _example(explanation, index, image, None if names is None else names[index])
        for index, image in enumerate(pixels)
    ]
    titles = dict.fromkeys(example["headline"] for example in examples)
    parts = {
        "title": ", ".join(["Explanation", *filter(None, titles)]),
        "setup": explanation.setup,
        "scale": data_uri(heat_picture(np.linspace(0, 1, 256)[None]), "PNG"),
        "metrics": _METRICS,
        "examples": examples,
    }
    return filled("captum_advise.visualization", parts)


def _example(explanation: Explanation, index: int, image: Pixels, name: str | None) -> _Parts:
    confidence, size = explanation.confidence, image.shape[:2]
    maps = [
        {
            "name": shown_name(method),
            "note": units_and_avx(explanation, method, index),
            "heat": _heat(maps[index], size),
            "metrics": metrics_in_words(None if found is None else found[index]),
        }
        for method, maps in explanation.maps.items()
        for found in [explanation.map_metrics.get(method)]
    ]
    selected = explanation.selected_units[index].nonzero().squeeze(1)
    groups = [
        {
            "name": title,
            "note": note,
            "heat": _heat(candidate.attributions, size),
            "metrics": metrics_in_words(candidate.metrics),
            "is_selected": candidate.units.equal(selected),
        }
        for candidate in explanation.candidates[index]
        for title, _, note in [candidate.describe().partition(": ")]
    ]
    return {
        "headline": explanation.class_name(index) or name or "",
        "name": name,
        "confidence": None if confidence is None else confidence[index].item(),
        "selection": explanation.describe_selection(index),
        "top": _most_probable(explanation, index),
        "size": size,
        "image": data_uri(image),
        "grey": data_uri(image.mean(2)),
        "maps": maps,
        "groups": groups,
        "units": _units(explanation[index], size),
    }


def _most_probable(explanation: Explanation, index: int) -> list[tuple[str, float]]:
    """Names and confidences of the most probable classes, where the names are known."""
    if explanation.confidences is None or explanation.setup is None:
        return []
    of_classes, names = explanation.confidences[index], explanation.setup.class_names
    return [(names[one], of_classes[one].item()) for one in most_probable(of_classes)]


def _heat(values: Tensor, size: tuple[int, ...]) -> str:
    """The address of a map (h, w), or with units before, which are summed, as heat."""
    values = values.sum(0) if values.dim() > 2 else values
    return data_uri(heat_picture(heat_of(values, size)), "PNG")


# --- units


def _units(explanation: Explanation, size: tuple[int, ...]) -> list[_Parts]:
    """The units of one image with the most evidence; none if the explanation has no units."""
    units, relevance = explanation.units, explanation.unit_relevance
    if units is None:
        return []
    evidence = units.contributions[0].float().relu().flatten(1).sum(1)
    best = evidence.argsort(descending=True, stable=True)[:_UNITS]
    shown = []
    for unit in best[evidence[best] > 0].tolist():
        activations = units.feature_maps[0, unit].float().cpu()
        count = None if relevance is None else int(relevance[0, unit])
        shown.append(
            {
                "number": unit,
                "relevance": count,
                "share": (evidence[unit] / evidence.sum()).item(),
                "is_selected": bool(explanation.selected_units[0, unit]),
                "heat": _heat(activations - activations.min(), size),
                "density": _density(
                    activations.double().flatten().numpy(),
                    units.densities[0, unit].nan_to_num().cpu().numpy(),
                    units.ranges[0, unit].tolist(),
                    count,
                ),
            }
        )
    return shown


def _density(
    activations: npt.NDArray[np.floating],
    density: npt.NDArray[np.floating],
    counted: Sequence[float],
    n_modes: int | None,
) -> _Parts:
    """What is drawn of a unit's density, at places where 0 and 1 are the ends of the range.

    Heights are those of the density divided by its maximum.
    """
    low, high = counted
    heights = density / max(density.max(), 1e-300)
    grid = np.linspace(0, 1, len(heights))
    points = np.linspace(0, 1, min(len(grid), _MOST_POINTS))
    places = (activations - low) / max(high - low, 1e-300)
    near = places[(places >= -_BEYOND) & (places <= 1 + _BEYOND)]
    modes = _modes(heights, n_modes)
    return {
        "curve": list(zip(points, np.interp(points, grid, heights), strict=True)),
        "is_defined": bool(heights.any()),
        "modes": [(grid[at], heights[at]) for at in modes],
        # As many as can be told apart.
        "samples": np.unique(near.round(2)).tolist(),
        "ends": [f"{value:.3g}" for value in (low, (low + high) / 2, high)],
        "below": int((activations < low).sum()),
        "above": int((activations > high).sum()),
        "count": len(activations),
    }


def _modes(heights: npt.NDArray[np.floating], count: int | None) -> list[int]:
    """Places of the most prominent modes, whichever prominence a mode must have."""
    from scipy.signal import find_peaks

    peaks, properties = find_peaks(heights, prominence=1e-6 if count is None else 0)
    best = np.argsort(-properties["prominences"], kind="stable")[:count]
    return sorted(peaks[best].tolist())
