"""Explanations with chosen numbers, made without a network."""

from __future__ import annotations

import dataclasses

import torch

from captum_advise.explanation import Candidate, Explanation, Setup
from captum_advise.metrics import VisualExplainability
from captum_advise.pixels import PixelSpace


def metrics(avx: float) -> VisualExplainability:
    """Of one image: everything but the AVX is 0.5, and the class is hit."""
    parts = {field.name: torch.tensor([0.5]) for field in dataclasses.fields(VisualExplainability)}
    parts |= {"avx": torch.tensor([avx]), "hit": torch.tensor([True])}
    return VisualExplainability(**parts)


def candidate(relevance, units, avx=None) -> Candidate:
    return Candidate(
        relevance,
        torch.arange(units),
        metrics(avx)[0] if avx is not None else None,
        torch.rand(1, 7, 7),
    )


def explanation(**maps: torch.Tensor) -> Explanation:
    """30 units of relevance 0 to 3; those of relevance 0 have no map; relevance 2 is selected.

    The image is a ramp of 224 x 224. Maps of other methods come first, ``_`` for ``-``.
    """
    relevance = torch.tensor([[0] * 3 + [1] * 20 + [2] * 6 + [3]])
    attributions = torch.arange(49.0).reshape(1, 1, 7, 7) - 10
    ramp = torch.linspace(0, 1, 224 * 224).reshape(1, 1, 224, 224)
    return Explanation(
        maps={
            **{name.replace("_", "-"): values for name, values in maps.items()},
            "layer-advise": attributions,
            "grad-cam": attributions.flip(-1),
        },
        map_metrics={"layer-advise": metrics(0.71), "grad-cam": metrics(0.55)},
        attributions=attributions,
        target=torch.tensor([285]),
        confidence=torch.tensor([0.42]),
        confidences=None,
        images=torch.cat([ramp, ramp.flip(-1), ramp.mT], 1),
        unit_relevance=relevance,
        selected=torch.tensor([2]),
        selected_units=relevance == 2,
        fallback=torch.tensor([False]),
        unexplained=torch.tensor([False]),
        metrics=metrics(0.71),
        candidates=((candidate(1, 20, 0.6), candidate(2, 6, 0.71), candidate(3, 1, 0.0)),),
    )


def two_examples() -> Explanation:
    """The same example twice; the second one selects relevance 1 and has another map."""
    one = explanation()
    both = {
        name: torch.cat([getattr(one, name)] * 2)
        for name in ("target", "unit_relevance", "fallback", "unexplained", "images")
    }
    relevance = both["unit_relevance"]
    attributions = torch.cat([one.attributions, -one.attributions])
    own = VisualExplainability.concatenate([metrics(0.3), metrics(0.8)])
    return dataclasses.replace(
        one,
        **both,
        maps={"layer-advise": attributions, "grad-cam": attributions},
        map_metrics={"layer-advise": own},
        attributions=attributions,
        selected_units=torch.stack([relevance[0] == 2, relevance[1] == 1]),
        confidence=torch.tensor([0.1, 0.9]),
        selected=torch.tensor([2, 1]),
        metrics=own,
        candidates=one.candidates * 2,
    )


def setup_with(class_names: list[str]) -> Setup:
    """Of a network with these classes."""
    return Setup(
        model="net",
        weights="random",
        layer="layer",
        layout="N x C x H x W",
        gated_layers=(),
        input_size=(224, 224),
        transform="the caller",
        pixel_space=PixelSpace.identity(),
        class_names=tuple(class_names),
        device="cpu",
    )
