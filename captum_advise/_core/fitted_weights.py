"""Weights of units, fitted to the confidence lost when parts of the image are hidden.

The confidence lost is regressed on the mass that the groups' maps have in the hidden parts. The
studies of unit selection in the documentation describe the origin and the value of the method.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_N_SETS = 128
# Pulls all weights towards each other, so that the fit does not follow noise.
_RIDGE = 0.01
# Keeps logarithms finite.
_LEAST_CONFIDENCE = 1e-30

_Values: TypeAlias = npt.NDArray[np.float64]


def hidden_cells(height: int, width: int) -> Tensor:
    """Random sets of cells to hide, bool (S, height, width), of all sizes, always the same."""
    n_cells = height * width
    shares = (torch.arange(_N_SETS) + 0.5) / _N_SETS
    sizes = (shares * (n_cells - 2) + 1).round()
    generator = torch.Generator().manual_seed(0)
    ranks = torch.rand(_N_SETS, n_cells, generator=generator).argsort(1).argsort(1)
    return (ranks < sizes[:, None]).view(_N_SETS, height, width)


def fitted_weights(
    confidence: Tensor,
    confidence_without: Tensor,
    relevance: Tensor,
    contributions: Tensor,
    positive_gradient: Tensor,
) -> Tensor:
    """Fit three weightings of units for each example.

    In the first two weightings, units share a weight if they have the same relevance and the same
    sign of the mean gradient. In the third, units of the same relevance share a weight. The first
    is fitted to the loss of log-confidence, the others to the loss of confidence.

    Args:
        confidence: (N,) in the target.
        confidence_without: (N, S) the same without the cells of :func:`hidden_cells`.
        relevance: int64 (N, C).
        contributions: (N, C, h, w), the maps to be weighted.
        positive_gradient: bool (N, C), whether a unit's mean gradient is positive.

    Returns:
        (3, N, C) from zero up. All ones, which is Grad-CAM, where the fit finds no relation.
    """
    hidden = hidden_cells(*contributions.shape[-2:])
    after = confidence_without.clamp(min=_LEAST_CONFIDENCE).cpu().double()
    before = confidence.clamp(min=_LEAST_CONFIDENCE).cpu().double()[:, None]
    losses, log_losses = before - after, before.log() - after.log()
    weights = []
    for modes, is_positive, units, loss, log_loss in zip(
        relevance.cpu(),
        positive_gradient.cpu(),
        contributions.detach().cpu(),
        losses,
        log_losses,
        strict=True,
    ):
        by_relevance: Tensor = torch.unique(modes, return_inverse=True)[1]
        by_sign = 2 * by_relevance + is_positive.long()
        fits = [
            _fit_groups(by_sign, units, hidden, log_loss),
            _fit_groups(by_sign, units, hidden, loss),
            _fit_groups(by_relevance, units, hidden, loss),
        ]
        weights.append(torch.stack(fits))
    return torch.stack(weights, 1).to(relevance.device)


def _fit_groups(group: Tensor, units: Tensor, hidden: Tensor, loss: Tensor) -> Tensor:
    """Weights (C,) of units (C, h, w) that are equal within each group (C,)."""
    maps = units.new_zeros(int(group.max()) + 1, *units.shape[1:], dtype=torch.float64)
    maps.index_add_(0, group, units.double())
    mass = hidden.flatten(1).double() @ maps.flatten(1).T
    size = hidden.flatten(1).double().mean(1)
    weights = _fit(mass.numpy(), loss.numpy(), size.numpy())
    return torch.from_numpy(weights).float()[group]


def _fit(mass: _Values, loss: _Values, size: _Values) -> _Values:
    """Weights (K,) from zero up for which ``mass`` (S, K) best predicts ``loss`` (S,)."""
    # Imported here because it takes a while.
    from scipy.optimize import nnls

    mass, loss = mass.copy(), loss.copy()
    rounding = 1e-20 * float(np.square(mass).sum())
    # Blurred and blackened sets alternate; each kind gets a size effect and a scale of its own.
    for fill in (slice(0, None, 2), slice(1, None, 2)):
        mass[fill] = _without_size(mass[fill], size[fill])
        residual = _without_size(loss[fill], size[fill])
        loss[fill] = residual / max(float(np.linalg.norm(residual)), 1e-12)
    n_groups = mass.shape[1]
    grad_cam = mass.sum(1)
    power, agreement = float(grad_cam @ grad_cam), float(grad_cam @ loss)
    if not (power > rounding and agreement > 0):
        return np.ones(n_groups)
    ridge = np.sqrt(_RIDGE * power / n_groups)
    weights, _ = nnls(
        np.vstack([mass, ridge * np.eye(n_groups)]),
        np.concatenate([loss * (power / agreement), np.full(n_groups, ridge)]),
    )
    return np.asarray(weights)


def _without_size(values: _Values, size: _Values) -> _Values:
    """Residuals of a cubic in the size: larger sets have more mass and loss, whatever the map."""
    basis, _ = np.linalg.qr(np.stack([size**power for power in range(4)], 1))
    return np.asarray(values - basis @ (basis.T @ values))
