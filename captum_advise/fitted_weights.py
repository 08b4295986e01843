"""Weights of units, fitted so that the map's mass foretells what the network misses.

Parts of the picture are hidden; the confidence lost is regressed on the mass that the groups' maps
have there. docs/choosing-units.md tells where this comes from and what it is worth.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_advise.map_scoring import MapScorer

_N_SETS = 128
# Pull of all weights towards each other, so that the fit does not follow noise.
_RIDGE = 0.01
# Confidences below have no logarithm to speak of.
_LEAST_CONFIDENCE = 1e-30

_Values: TypeAlias = npt.NDArray[np.float64]


def fitted_weights(
    scorer: MapScorer, relevance: Tensor, contributions: Tensor, helpful: Tensor
) -> Tensor:
    """Three weightings of units for each example.

    Units with the same relevance score share a weight in one of them; in the other two, those that
    are ``helpful`` and those that are not have one each. Two are fitted to the confidence lost,
    one to its logarithm.

    Args:
        scorer: Of the examples.
        relevance: int64 (N, C).
        contributions: (N, C, h, w), the maps that the weights are for.
        helpful: bool (N, C), whether a unit's mean gradient is positive.

    Returns:
        (3, N, C) from zero up; all ones, which is Grad-CAM, where the fit says nothing.
    """
    hidden = hidden_cells(*contributions.shape[-2:])
    left = scorer.confidence_without(hidden).clamp(min=_LEAST_CONFIDENCE).cpu().double()
    whole = scorer.confidence_in_target().clamp(min=_LEAST_CONFIDENCE).cpu().double()[:, None]
    lost, lost_in_logarithms = whole - left, whole.log() - left.log()
    weights = []
    for example, (scores, helps, units) in enumerate(
        zip(relevance.cpu(), helpful.cpu(), contributions.detach().cpu(), strict=True)
    ):
        by_score: Tensor = torch.unique(scores, return_inverse=True)[1]
        by_sign = 2 * by_score + helps.long()
        both = lost_in_logarithms[example], lost[example]
        weights.append(
            torch.cat(
                [
                    _of_groups(by_sign, units, hidden, both),
                    _of_groups(by_score, units, hidden, both[1:]),
                ]
            )
        )
    return torch.stack(weights, 1).to(relevance.device)


def hidden_cells(height: int, width: int) -> Tensor:
    """Random sets of cells, bool (S, height, width), of all sizes and always the same."""
    n_cells = height * width
    shares = (torch.arange(_N_SETS) + 0.5) / _N_SETS
    sizes = (shares * (n_cells - 2) + 1).round()
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(_N_SETS, n_cells, generator=generator).argsort(1).argsort(1)
    return (places < sizes[:, None]).view(_N_SETS, height, width)


def _of_groups(group: Tensor, units: Tensor, hidden: Tensor, losses: tuple[Tensor, ...]) -> Tensor:
    """Weights (F, C) of units (C, h, w) that go by their group (C,), one fit for each loss."""
    maps = units.new_zeros(int(group.max()) + 1, *units.shape[1:], dtype=torch.float64)
    maps.index_add_(0, group, units.double())
    mass = hidden.flatten(1).double() @ maps.flatten(1).T
    size = hidden.flatten(1).double().mean(1)
    fits = [_fit(mass.numpy(), lost.numpy(), size.numpy()) for lost in losses]
    return torch.stack([torch.from_numpy(weights).float()[group] for weights in fits])


def _fit(mass: _Values, lost: _Values, size: _Values) -> _Values:
    """Weights (K,) from zero up by which ``mass`` (S, K) comes nearest to ``lost`` (S,)."""
    # When used: it takes a while to import.
    from scipy.optimize import nnls

    mass, lost = mass.copy(), lost.copy()
    rounding = 1e-20 * float(np.square(mass).sum())
    for filling in (slice(0, None, 2), slice(1, None, 2)):
        mass[filling] = _without_size(mass[filling], size[filling])
        rest = _without_size(lost[filling], size[filling])
        lost[filling] = rest / max(float(np.linalg.norm(rest)), 1e-12)
    n_groups = mass.shape[1]
    grad_cam = mass.sum(1)
    power, agreement = float(grad_cam @ grad_cam), float(grad_cam @ lost)
    if not (power > rounding and agreement > 0):
        return np.ones(n_groups)
    ridge = np.sqrt(_RIDGE * power / n_groups)
    weights, _ = nnls(
        np.vstack([mass, ridge * np.eye(n_groups)]),
        np.concatenate([lost * (power / agreement), np.full(n_groups, ridge)]),
    )
    return np.asarray(weights)


def _without_size(values: _Values, size: _Values) -> _Values:
    """What a cubic in the size leaves: larger sets have more mass and loss, whatever the map."""
    basis, _ = np.linalg.qr(np.stack([size**power for power in range(4)], 1))
    return np.asarray(values - basis @ (basis.T @ values))
