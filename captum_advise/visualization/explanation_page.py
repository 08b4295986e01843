"""An explanation as one HTML file that loads nothing from a network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib
import numpy as np
import torch
from torch import Tensor

from captum_advise.density import count_modes
from captum_advise.explanation import LAYER_ADVISE
from captum_advise.pixels import normalize_maps
from captum_advise.visualization.heat import COLOURS
from captum_advise.visualization.html import data_uri, embedded_json, filled, template
from captum_advise.visualization.maps import images_of, is_selected
from captum_advise.visualization.methods import n_units, shown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from captum_advise.explanation import Candidate, Explanation
    from captum_advise.metrics import VisualExplainability
    from captum_advise.visualization.style import Array

_Json: TypeAlias = dict[str, Any]

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

# Bytes of all units of a page, before base64: 2 MB in the file.
_UNITS_BUDGET = 1_500_000
_MOST_POINTS = 128  # of a density's curve
_MOST_EXACT = 64 * 64  # positions of a map that is kept in single precision
_LEVELS = 2**16 - 1  # of an activation
_BYTES_PER_UNIT = 40  # in addition to its activations and its density
_MOST_MODES = 40  # of a density, of those that count
_FEWEST = 8  # units of a page, whatever they cost
_TOP = 5  # classes with their confidences


def page(explanation: Explanation, *, names: Sequence[str] | None = None) -> str:
    """An interactive page in one file, which loads nothing from a network.

    It shows the maps of all methods, the recommended one first, those of the groups of units, and
    their metrics. If the explanation has its units (``keep_units=True``), it shows them as well:
    which ones contribute at a position, their activations and their densities. The file has about
    0.4 MB for an image of 224 x 224 pixels at a layer of 1280 units, and about 3 MB at most for up
    to 20 such images: of more units, it has those with the most evidence.

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
    budget = _UNITS_BUDGET // max(len(pixels), 1)
    examples: list[_Json] = [
        {
            "name": None if names is None else names[index],
            "class": explanation.class_name(index),
            "confidence": None if (c := explanation.confidence) is None else c[index].item(),
            "top": _most_probable(explanation, index),
            "selection": explanation.describe_selection(index),
            "image": data_uri(image),
            "size": list(image.shape[:2]),
            "layer": list(explanation.attributions.shape[2:]),
            "maps": _maps(explanation, index),
            "units": None if explanation.units is None else _units(explanation, index, budget),
        }
        for index, image in enumerate(pixels)
    ]
    colours = matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
    data = {
        "colours": _packed(colours),
        "metrics": [{"key": key, "label": label} for key, label in _METRICS.items()],
        "examples": examples,
    }
    titles = dict.fromkeys(str(example["class"] or example["name"] or "") for example in examples)
    setup = "" if explanation.setup is None else f"Network: {explanation.setup}"
    parts = {
        "title": html.escape(", ".join(["Explanation", *filter(None, titles)])),
        "setup": html.escape(setup),
        "data": embedded_json(data),
    }
    return filled(template("captum_advise.visualization", "page_template"), parts)


def _most_probable(explanation: Explanation, index: int) -> list[_Json]:
    """Names and confidences of the most probable classes, where the names are known."""
    if explanation.confidences is None or explanation.setup is None:
        return []
    values, classes = explanation.confidences[index].topk(
        min(_TOP, len(explanation.confidences[0]))
    )
    names = explanation.setup.class_names
    return [
        {"name": names[place], "confidence": value}
        for place, value in zip(classes.tolist(), values.tolist(), strict=True)
    ]


# --- maps


def _maps(explanation: Explanation, index: int) -> list[_Json]:
    """The maps of the methods, in the explanation's order, and then those of the groups."""
    units = {LAYER_ADVISE: _packed(explanation.selected_units[index].nonzero()[:, 0], np.int32)}
    of_methods = [
        {
            "name": shown_name(method),
            "kind": "method",
            "selected": False,
            "n_units": n_units(explanation, method, index),
            "units": units.get(method),
            "metrics": _metrics(None if found is None else found[index]),
            "values": _map(maps[index]),
        }
        for method, maps in explanation.maps.items()
        for found in [explanation.map_metrics.get(method)]
    ]
    selected = explanation.selected_units[index]
    candidates = explanation.candidates[index]
    return [*of_methods, *(_group(group, is_selected(group, selected)) for group in candidates)]


def _group(candidate: Candidate, selected: bool) -> _Json:
    return {
        "name": candidate.describe().partition(":")[0],
        "kind": "group",
        "selected": selected,
        "n_units": len(candidate.units),
        "units": _packed(candidate.units, np.int32),
        "metrics": _metrics(candidate.metrics),
        "values": _map(candidate.attributions),
    }


def _metrics(metrics: VisualExplainability | None) -> _Json | None:
    return None if metrics is None else {key: getattr(metrics, key).item() for key in _METRICS}


def _map(values: Tensor) -> _Json:
    """A map (h, w), or with units before, which are summed. Large ones have 8 bits per position."""
    values = values.detach().float().cpu()
    if values.dim() == 3:
        values = values.sum(0)
    if values.dim() != 2 or not bool(values.isfinite().all()):
        raise ValueError(
            f"A map of a page must be (h, w) and finite, got {tuple(values.shape)}; volumes, "
            "sequences, NaN and infinite values cannot be drawn."
        )
    if values.numel() > _MOST_EXACT:
        return _packed((normalize_maps(values.relu()[None])[0] * 255).round(), np.uint8)
    return _packed(values, np.float32)


# --- units


def _units(explanation: Explanation, index: int, budget: int) -> _Json:
    """The units of one image: all, or those with the most evidence that the budget allows."""
    units, relevance = explanation[index].units, explanation.unit_relevance
    assert units is not None
    maps, contributions = (
        part[0].float().cpu() for part in (units.feature_maps, units.contributions)
    )
    evidence = contributions.relu().flatten(1).sum(1)
    best = evidence.argsort(descending=True, stable=True)
    chosen = best[: _affordable(len(maps), maps[0].numel(), budget)].sort().values
    shown = maps[chosen]
    low, high = shown.flatten(1).amin(1), shown.flatten(1).amax(1)
    # 16 bits: the density is that of few activations near zero, where others are large.
    step = (high - low) / _LEVELS
    levels = (shown - low[:, None, None]) / step.clamp(min=1e-38)[:, None, None]
    total = evidence.sum()
    densities = units.densities[0].cpu()[chosen]
    modes = count_modes(densities) if relevance is None else relevance[index].cpu()[chosen]
    return {
        "count": len(maps),
        "index": _packed(chosen, np.int32),
        "activations": _packed(levels.round().clamp(0, _LEVELS), np.uint16),
        "low": _packed(low, np.float32),
        "step": _packed(step, np.float32),
        "factor": _packed(_factors(shown, contributions[chosen]), np.float32),
        "evidence": _packed(
            evidence[chosen] / total if total > 0 else evidence[chosen], np.float32
        ),
        "relevance": None if relevance is None else _packed(modes, np.int32),
        "ranges": _packed(units.ranges[0].cpu()[chosen], np.float32),
        **_curves(densities.nan_to_num().numpy(), modes.tolist()),
    }


def _affordable(n_units: int, positions: int, budget: int) -> int:
    """Number of units for which a page has room."""
    room = budget // (2 * positions + min(positions, _MOST_POINTS) + _BYTES_PER_UNIT)
    return min(n_units, max(_FEWEST, room))


def _factors(feature_maps: Tensor, contributions: Tensor) -> Tensor:
    """What turns the feature map of a unit into its contribution, (C,): its mean gradient."""
    product = (feature_maps.double() * contributions).sum((1, 2))
    square = feature_maps.double().square().sum((1, 2))
    return torch.where(square > 0, product / square.clamp(min=1e-300), 0)


def _curves(densities: npt.NDArray[np.floating], counts: Sequence[int]) -> _Json:
    """Densities (C, P) as curves with few points, and the places and heights of their modes."""
    heights = densities / np.maximum(densities.max(1, keepdims=True), 1e-300)
    grid = np.linspace(0, 1, heights.shape[1])
    points = np.linspace(0, 1, min(len(grid), _MOST_POINTS))
    drawn = np.stack([np.interp(points, grid, row) for row in heights])
    return {
        "curves": _packed(np.rint(255 * drawn), np.uint8),
        "modes": [
            [[round(float(grid[at]), 4), round(float(row[at]), 4)] for at in _modes(row, count)]
            for row, count in zip(heights, counts, strict=True)
        ],
    }


def _modes(density: npt.NDArray[np.floating], count: int) -> list[int]:
    """Places of the most prominent modes, in order: whichever prominence a mode must have."""
    from scipy.signal import find_peaks

    peaks, properties = find_peaks(density, prominence=0)
    best = np.argsort(-properties["prominences"], kind="stable")[: min(count, _MOST_MODES)]
    return sorted(peaks[best].tolist())


def _packed(values: Array, dtype: npt.DTypeLike = np.uint8) -> _Json:
    array = np.ascontiguousarray(torch.as_tensor(values).cpu().numpy()).astype(dtype)
    # Browsers read arrays in the order of bytes of their machine, which is little-endian.
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(content).decode(),
    }
