"""Explanations with chosen numbers, made without a network."""

from __future__ import annotations

import dataclasses

import torch

from captum_advise.explanation import Candidate, Explanation
from captum_advise.metrics import VisualExplainability


def metrics(avx: float) -> VisualExplainability:
    """Of one image: everything but the AVX is 0.5, and the class is hit."""
    parts = {field.name: torch.tensor([0.5]) for field in dataclasses.fields(VisualExplainability)}
    parts |= {"avx": torch.tensor([avx]), "hit": torch.tensor([True])}
    return VisualExplainability(**parts)


def candidate(relevance, units, avx=None) -> Candidate:
    return Candidate(
        relevance,
        torch.arange(units),
        torch.ones(units),
        metrics(avx)[0] if avx is not None else None,
        torch.rand(1, 7, 7),
    )


def explanation() -> Explanation:
    """30 units of relevance 0 to 3; those of relevance 0 have no map; relevance 2 is selected."""
    relevance = torch.tensor([[0] * 3 + [1] * 20 + [2] * 6 + [3]])
    return Explanation(
        attributions=torch.arange(49.0).reshape(1, 1, 7, 7) - 10,
        target=torch.tensor([285]),
        confidence=torch.tensor([0.42]),
        unit_relevance=relevance,
        selected=torch.tensor([2]),
        unit_weights=(relevance == 2).float(),
        fallback=torch.tensor([False]),
        metrics=metrics(0.71),
        candidates=((candidate(1, 20, 0.6), candidate(2, 6, 0.71), candidate(3, 1, 0.0)),),
    )


def grad_cam() -> Explanation:
    """The same with all units."""
    return dataclasses.replace(
        explanation(),
        selected=torch.tensor([-1]),
        unit_weights=torch.ones(1, 30),
        metrics=metrics(0.55),
    )


def two_examples() -> Explanation:
    """The same example twice; the second one selects relevance 1 and has another map."""
    one = explanation()
    both = {
        name: torch.cat([getattr(one, name)] * 2)
        for name in ("target", "unit_relevance", "fallback")
    }
    relevance = both["unit_relevance"]
    return dataclasses.replace(
        one,
        **both,
        attributions=torch.cat([one.attributions, -one.attributions]),
        unit_weights=torch.stack([relevance[0] == 2, relevance[1] == 1]).float(),
        confidence=torch.tensor([0.1, 0.9]),
        selected=torch.tensor([2, 1]),
        metrics=VisualExplainability.concatenate([metrics(0.3), metrics(0.8)]),
        candidates=one.candidates * 2,
    )
