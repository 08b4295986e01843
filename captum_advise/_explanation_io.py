"""Reading, writing and HTML tables of explanations."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_advise._utils.errors import reason
from captum_advise._utils.io import atomic_write
from captum_advise._utils.tensor_files import pack_tensors, unpack_tensors
from captum_advise.metrics import VisualExplainability
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    from captum_advise.explanation import Candidate, Explanation

# Examples that are shown where an explanation is printed.
MOST_SHOWN = 10

_KIND = "an explanation of captum-advise, version 3"
_METRICS = tuple(field.name for field in fields(VisualExplainability))
_TENSORS = ("attributions", "selected", "unit_weights", "fallback")
_OPTIONAL = ("target", "confidence", "confidences", "unit_relevance", "images")


def save(explanation: Explanation, path: Path) -> None:
    """Write an explanation to a file that :func:`load` reads."""
    tensors = {
        name: value
        for name in (*_TENSORS, *_OPTIONAL)
        if (value := getattr(explanation, name)) is not None
    }
    tensors |= {f"maps.{name}": maps for name, maps in explanation.maps.items()}
    for name, metrics in explanation.map_metrics.items():
        tensors |= _metrics_to_tensors(f"map_metrics.{name}.", metrics)
    tensors |= _metrics_to_tensors("metrics.", explanation.metrics)
    tensors |= _candidates_to_tensors(explanation.candidates)
    if explanation.units is not None:
        tensors |= {f"units.{name}": value for name, value in vars(explanation.units).items()}
    setup = None if explanation.setup is None else asdict(explanation.setup)
    notes = {"maps": list(explanation.maps), "setup": setup}
    atomic_write(path, pack_tensors(_KIND, tensors, notes))


def load(path: Path) -> dict[str, Any]:
    """Read an explanation."""
    tensors, notes = unpack_tensors(path, _KIND)
    try:
        names, setup = notes["maps"], notes["setup"]
        if setup is not None:
            setup = {key: tuple(v) if isinstance(v, list) else v for key, v in setup.items()}
            setup["pixel_space"] = PixelSpace(**setup["pixel_space"])
        metrics = {name: _metrics_from_tensors(f"map_metrics.{name}.", tensors) for name in names}
        return {
            **{name: tensors[name] for name in _TENSORS},
            **{name: tensors.get(name) for name in _OPTIONAL},
            "maps": {name: tensors[f"maps.{name}"] for name in names},
            "map_metrics": {name: found for name, found in metrics.items() if found is not None},
            "metrics": _metrics_from_tensors("metrics.", tensors),
            "candidates": _candidates_from_tensors(tensors),
            "units": _with_prefix("units.", tensors) or None,
            "setup": setup,
        }
    # What a crafted file lacks, or holds in another shape, shows anywhere.
    except (KeyError, IndexError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged: its parts do not fit together ({reason(error)})."
        ) from error


def avx_in_words(metrics: VisualExplainability | None) -> str:
    """``", AVX 0.812"``, or nothing where there is no AVX."""
    # NaN for inputs that are not images.
    if metrics is None or metrics.avx.isnan():
        return ""
    return f", AVX {metrics.avx.item():.3f}"


def _metrics_to_tensors(prefix: str, metrics: VisualExplainability | None) -> dict[str, Tensor]:
    return {} if metrics is None else {prefix + name: getattr(metrics, name) for name in _METRICS}


def _metrics_from_tensors(prefix: str, tensors: dict[str, Tensor]) -> VisualExplainability | None:
    if prefix + "avx" not in tensors:
        return None
    return VisualExplainability(*(tensors[prefix + name] for name in _METRICS))


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def _candidates_to_tensors(candidates: tuple[tuple[Candidate, ...], ...]) -> dict[str, Tensor]:
    """All candidates in one list: few tensors, however many examples there are."""
    flat = [candidate for of_example in candidates for candidate in of_example]
    tensors = {
        "per_example": _list([len(of_example) for of_example in candidates]),
        "relevance": _list([-1 if c.relevance is None else c.relevance for c in flat]),
        "n_units": _list([len(candidate.units) for candidate in flat]),
        "scored": _list([candidate.metrics is not None for candidate in flat], torch.bool),
    }
    if flat:
        tensors["units"] = torch.cat([candidate.units for candidate in flat])
        tensors["weights"] = torch.cat([candidate.weights for candidate in flat])
        tensors["attributions"] = torch.stack([candidate.attributions for candidate in flat])
    scored = [candidate.metrics for candidate in flat if candidate.metrics is not None]
    if scored:
        tensors |= {
            f"metrics.{name}": torch.stack([getattr(metrics, name) for metrics in scored])
            for name in _METRICS
        }
    return {f"candidates.{name}": tensor for name, tensor in tensors.items()}


def _list(values: list[Any], dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


def _candidates_from_tensors(tensors: dict[str, Tensor]) -> list[list[dict[str, Any]]]:
    def part(name: str) -> Tensor:
        return tensors[f"candidates.{name}"]

    all_metrics = _metrics_from_tensors("candidates.metrics.", tensors)
    relevance, n_units = part("relevance").tolist(), part("n_units").tolist()
    units = torch.split(part("units"), n_units) if n_units else ()
    weights = torch.split(part("weights"), n_units) if n_units else ()
    flat, n_scored = [], 0
    for number, has_metrics in enumerate(part("scored").tolist()):
        metrics = all_metrics[n_scored] if all_metrics is not None and has_metrics else None
        n_scored += has_metrics
        flat.append(
            {
                "relevance": None if relevance[number] < 0 else relevance[number],
                "units": units[number],
                "weights": weights[number],
                "metrics": metrics,
                "attributions": part("attributions")[number],
            }
        )
    rest = iter(flat)
    return [[next(rest) for _ in range(n)] for n in part("per_example").tolist()]
