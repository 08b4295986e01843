"""An explanation as one HTML file that loads nothing from a network."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import matplotlib
import numpy as np
import torch
from torch import Tensor

from captum_advise._core.request import LayerRequest
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise._version import __version__
from captum_advise.density import adaptive_kde, count_modes
from captum_advise.pixels import normalize_maps
from captum_advise.relevance import DensityOptions, on_unit_interval
from captum_advise.visualization.heat import COLOURS
from captum_advise.visualization.maps import class_name_of, is_selected
from captum_advise.visualization.style import as_images

if TYPE_CHECKING:
    import numpy.typing as npt

    from captum_advise.explanation import Candidate, Explanation
    from captum_advise.layer_advise import LayerAdvise
    from captum_advise.metrics import VisualExplainability
    from captum_advise.relevance import ActivationRange
    from captum_advise.visualization.style import Array, Pixels

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
# The cost of the densities of an image, in units times the square of the positions.
_DENSITY_BUDGET = 64_000_000
_MOST_POINTS = 128  # of a density's curve
_MOST_EXACT = 64 * 64  # positions of a map that is kept in single precision
_LEVELS = 2**16 - 1  # of an activation
_BYTES_PER_UNIT = 24  # in addition to its activations and its density
_FEWEST = 8  # units of a page, whatever they cost


def page(
    explanation: Explanation,
    images: Array | Sequence[Array],
    *,
    feature_maps: Tensor | None = None,
    contributions: Tensor | None = None,
    comparisons: Mapping[str, Explanation | Array] | None = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    n_bandwidths: int = 10,
    activation_range: ActivationRange = (0.0, 1.0),
) -> str:
    """The file that :meth:`captum_advise.Explanation.to_html` describes."""
    pixels = as_images(images)
    if comparisons is None:
        comparisons = {} if contributions is None else {"Grad-CAM": contributions.sum(1)}
    _check(explanation, pixels, feature_maps, contributions, comparisons, names)
    options = DensityOptions(n_bandwidths, activation_range)
    examples = []
    for index, image in enumerate(pixels):
        units = None
        if feature_maps is not None and contributions is not None:
            relevance = explanation.unit_relevance
            units = _units(
                feature_maps[index].detach(),
                contributions[index].detach(),
                None if relevance is None else relevance[index],
                options,
                _UNITS_BUDGET // len(pixels),
            )
        examples.append(
            {
                "name": None if names is None else names[index],
                "class": class_name_of(explanation, index, class_names),
                "confidence": _number(explanation.confidence, index),
                "selection": explanation.describe_selection(index),
                "image": _data_uri(image),
                "size": list(image.shape[:2]),
                "layer": list(explanation.attributions.shape[2:]),
                "maps": _maps(explanation, index),
                "comparisons": [
                    _comparison(name, maps, index) for name, maps in comparisons.items()
                ],
                "units": units,
            }
        )
    colours = matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3]
    data = {
        "colours": _packed(colours),
        "metrics": [{"key": key, "label": label} for key, label in _METRICS.items()],
        "examples": examples,
    }
    titles = dict.fromkeys(str(example["class"] or example["name"] or "") for example in examples)
    return _filled(data, ", ".join(filter(None, titles)))


def unit_tensors(
    advise: LayerAdvise, inputs: Tensor | tuple[Tensor, ...], target: Any
) -> tuple[Tensor, Tensor]:
    r"""The feature maps of a layer, and what each unit contributes to the map of all units.

    Args:
        advise: The attribution.
        inputs: As in :meth:`captum_advise.LayerAdvise.attribute`.
        target: Likewise.

    Returns:
        Both (N, C, \*spatial).
    """
    request = LayerRequest.of(inputs, None, False, DensityOptions())
    (feature_maps,) = advise._layer_call(request).feature_maps()
    contributions = advise.attribute(inputs, target, unit_selection=None, attr_dim_summation=False)
    return feature_maps.detach(), contributions.detach()


@overload
def one_example(maps: Explanation, index: int) -> Explanation: ...
@overload
def one_example(maps: Explanation | Tensor, index: int) -> Explanation | Tensor: ...
def one_example(maps: Explanation | Tensor, index: int) -> Explanation | Tensor:
    """The explanation, or the map, of one of the examples, for a page of its own."""
    if isinstance(maps, Tensor):
        return maps[index : index + 1]
    parts: _Json = {
        field.name: value[index : index + 1]
        for field in fields(maps)
        if isinstance(value := getattr(maps, field.name), Tensor | tuple)
    }
    if maps.metrics is not None:
        parts["metrics"] = maps.metrics[torch.tensor([index])]
    return replace(maps, **parts)


def _check(
    explanation: Explanation,
    pixels: Sequence[Pixels],
    feature_maps: Tensor | None,
    contributions: Tensor | None,
    comparisons: Mapping[str, Explanation | Array],
    names: Sequence[str] | None,
) -> None:
    attributions = explanation.attributions
    if attributions.dim() != 4:
        raise ValueError(
            "A page needs maps of images, (N, 1, h, w), and the attributions are "
            f"{tuple(attributions.shape)}."
        )
    counts = {"images": len(pixels)}
    counts |= {f"maps of {name}": len(maps) for name, maps in comparisons.items()}
    if names is not None:
        counts["names"] = len(names)
    for what, count in counts.items():
        if count != len(explanation):
            raise ValueError(
                f"An explanation of {len(explanation)} examples needs as many {what}, got {count}."
            )
    if (feature_maps is None) != (contributions is None):
        raise ValueError("feature_maps and contributions belong together: pass both or neither.")
    if feature_maps is None or contributions is None:
        return
    expected = (*explanation.unit_weights.shape, *attributions.shape[2:])
    if not feature_maps.shape == contributions.shape == expected:
        raise ValueError(
            f"feature_maps and contributions must be {expected}, as the explanation, got "
            f"{tuple(feature_maps.shape)} and {tuple(contributions.shape)}."
        )
    gradients = _mean_gradients(feature_maps, contributions)
    difference = (gradients[..., None, None] * feature_maps - contributions).abs().max()
    # Half precision rounds more than a thousandth.
    if not difference <= 1e-2 * contributions.abs().max():
        raise ValueError(
            "contributions must be each unit's mean gradient times its feature map: make them by "
            "attribute(..., unit_selection=None, attr_dim_summation=False) at the same layer."
        )


def _mean_gradients(feature_maps: Tensor, contributions: Tensor) -> Tensor:
    """The factors (..., C) that turn feature maps into contributions; 0 for units without any."""
    product = (feature_maps.double() * contributions).sum((-2, -1))
    square = feature_maps.double().square().sum((-2, -1))
    return torch.where(square > 0, product / square.clamp(min=1e-300), 0).to(feature_maps.dtype)


# --- maps


def _maps(explanation: Explanation, index: int) -> list[_Json]:
    """The candidates, one of which is selected; else the selected map goes first."""
    weights = explanation.unit_weights[index]
    candidates = explanation.candidates[index]
    maps = [_candidate(candidate, is_selected(candidate, weights)) for candidate in candidates]
    if not any(found["selected"] for found in maps):
        units = weights.nonzero()[:, 0]
        metrics = None if explanation.metrics is None else explanation.metrics[index]
        own = {
            "name": explanation.describe_selection(index),
            "selected": True,
            **_members(units, weights[units]),
            "metrics": _metrics(metrics),
            "values": _map(explanation.attributions[index]),
        }
        maps.insert(0, own)
    for name, count in Counter(found["name"] for found in maps).items():
        if count > 1:
            same = [found for found in maps if found["name"] == name]
            for number, found in enumerate(same, 1):
                found["name"] = f"{name} ({number})"
    return maps


def _candidate(candidate: Candidate, selected: bool) -> _Json:
    return {
        "name": candidate.describe().partition(":")[0],
        "selected": selected,
        **_members(candidate.units, candidate.weights),
        "metrics": _metrics(candidate.metrics),
        "values": _map(candidate.attributions),
    }


def _members(units: Tensor, weights: Tensor) -> _Json:
    is_weighted = bool((weights != 1).any())
    return {
        "n_units": len(units),
        "units": _packed(units, np.int32),
        "weights": _packed(weights, np.float32) if is_weighted else None,
    }


def _comparison(name: str, maps: Explanation | Array, index: int) -> _Json:
    if isinstance(maps, Tensor | np.ndarray):
        values, n_units, metrics = torch.as_tensor(maps[index]), None, None
    else:
        values, n_units = maps.attributions[index], int(maps.selected_units[index].sum())
        metrics = None if maps.metrics is None else maps.metrics[index]
    return {
        "name": name,
        "n_units": n_units,
        "metrics": _metrics(metrics),
        "values": _map(values),
    }


def _metrics(metrics: VisualExplainability | None) -> _Json | None:
    if metrics is None:
        return None
    values = {key: getattr(metrics, key).item() for key in _METRICS}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _map(values: Tensor) -> _Json:
    """A map (h, w), or with units before, which are summed. Large ones have 8 bits per position."""
    values = values.detach().float().cpu()
    if values.dim() == 3:
        values = values.sum(0)
    if values.dim() != 2 or not bool(values.isfinite().all()):
        raise ValueError(
            f"A map of a page must be (h, w) and finite, got {tuple(values.shape)}; NaN and "
            "infinite values cannot be drawn."
        )
    if values.numel() > _MOST_EXACT:
        return _packed((normalize_maps(values.relu()[None])[0] * 255).round(), np.uint8)
    return _packed(values, np.float32)


# --- units


def _units(
    feature_maps: Tensor,
    contributions: Tensor,
    relevance: Tensor | None,
    options: DensityOptions,
    budget: int,
) -> _Json:
    """The units of one image: all, or those with the most evidence that the budget allows.

    Args:
        feature_maps: (C, h, w).
        contributions: (C, h, w).
        relevance: (C,), or None.
        options: Of the densities.
        budget: Bytes.
    """
    maps, contributions = feature_maps.float().cpu(), contributions.float().cpu()
    evidence = contributions.relu().flatten(1).sum(1)
    n_shown, n_densities = _affordable(len(maps), maps[0].numel(), budget)
    best = evidence.argsort(descending=True, stable=True)[:n_shown]
    index = best.sort().values
    shown = maps[index]
    low, high = shown.flatten(1).amin(1), shown.flatten(1).amax(1)
    # 16 bits: the density is that of few activations near zero, where others are large.
    step = (high - low) / _LEVELS
    levels = (shown - low[:, None, None]) / step.clamp(min=1e-38)[:, None, None]
    total = evidence.sum()
    return {
        "count": len(maps),
        "index": _packed(index, np.int32),
        "activations": _packed(levels.round().clamp(0, _LEVELS), np.uint16),
        "low": _packed(low, np.float32),
        "step": _packed(step, np.float32),
        "mean_gradient": _packed(_mean_gradients(maps, contributions)[index], np.float32),
        "evidence": _packed(evidence[index] / total if total > 0 else evidence[index], np.float32),
        "relevance": None if relevance is None else _packed(relevance.cpu()[index], np.int32),
        "densities": _densities(maps, best[:n_densities], relevance, options),
    }


def _affordable(n_units: int, positions: int, budget: int) -> tuple[int, int]:
    """Number of units for which a page has room, and of densities for which there is time."""
    room = budget // (2 * positions + min(positions, _MOST_POINTS) + _BYTES_PER_UNIT)
    shown = min(n_units, max(_FEWEST, room))
    return shown, min(shown, _DENSITY_BUDGET // positions**2)


def _densities(
    maps: Tensor, units: Tensor, relevance: Tensor | None, options: DensityOptions
) -> _Json | None:
    positions = maps[0].numel()
    if positions < 2 or not len(units):
        return None
    rows = on_unit_interval(maps[units].flatten(1).double(), options.activation_range)
    grid = torch.linspace(0, 1, positions, dtype=torch.float64)
    density = adaptive_kde(rows, grid, n_bandwidths=options.n_bandwidths).density
    counts = count_modes(density) if relevance is None else relevance.cpu()[units]
    curves = density.nan_to_num().numpy()
    heights = curves / np.maximum(curves.max(1, keepdims=True), 1e-300)
    points = np.linspace(0, 1, min(positions, _MOST_POINTS))
    drawn = np.stack([np.interp(points, grid.numpy(), row) for row in heights])
    return {
        "index": _packed(units, np.int32),
        "activation_range": options.activation_range,
        "curves": _packed(np.rint(255 * drawn), np.uint8),
        "modes": [
            [[round(float(grid[at]), 4), round(float(row[at]), 4)] for at in _modes(row, count)]
            for row, count in zip(heights, counts.tolist(), strict=True)
        ],
    }


def _modes(density: npt.NDArray[np.floating], count: int) -> list[int]:
    """Places of the most prominent modes, in order: whichever prominence a mode must have."""
    from scipy.signal import find_peaks

    peaks, properties = find_peaks(density, prominence=0)
    best = np.argsort(-properties["prominences"], kind="stable")[:count]
    return sorted(peaks[best].tolist())


# --- the file


def _filled(data: _Json, title: str) -> str:
    folder = resources.files("captum_advise.visualization") / "page_template"
    template, style, script = (
        (folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        # Only this script runs, and nothing is fetched, whatever the texts hold.
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "title": html.escape(f"ADVISE: {title}" if title else "ADVISE explanation"),
        "style": style,
        "script": script,
        # No text can end the element that holds the data.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "version": __version__,
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    # Names of files may hold bytes that are not UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _packed(values: Array, dtype: npt.DTypeLike = np.uint8) -> _Json:
    array = np.ascontiguousarray(torch.as_tensor(values).cpu().numpy()).astype(dtype)
    # Browsers read arrays in the order of bytes of their machine, which is little-endian.
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(content).decode(),
    }


def _data_uri(image: Pixels) -> str:
    pil = import_optional("PIL.Image", "demo")
    with io.BytesIO() as stream:
        picture = pil.fromarray(np.rint(image * 255).astype(np.uint8))
        picture.save(stream, format="JPEG", quality=92, subsampling=0)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _number(values: Tensor | None, index: int) -> float | None:
    return None if values is None or not values[index].isfinite() else values[index].item()
