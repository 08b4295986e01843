"""Modes of rows, one point of all rows after another."""

from __future__ import annotations

import torch
from torch import Tensor


def count_in_torch(rows: Tensor, threshold: Tensor) -> Tensor:
    """How many maxima of each row (R, L) have a prominence of at least a threshold (R,), int64.

    From left to right a row is a chain of hills: up by the threshold or more from the lowest point
    so far, and down by the threshold or more from the highest. The prominent maxima are the highest
    points of each hill, of which there may be several. Under a threshold of zero or less, every
    maximum is a hill.
    """
    points = rows.T.contiguous()
    # On a hill the lowest point is minus infinity, and elsewhere the highest one is.
    before, lowest = points[0], points[0]
    highest = torch.full_like(threshold, -torch.inf)
    counts = torch.zeros_like(threshold, dtype=torch.int64)
    tops = torch.zeros_like(counts)
    for point in points[1:]:
        rises = (point - lowest >= threshold) & (point > lowest)
        # A flat top counts once.
        again = (point == highest) & (before < highest)
        tops = torch.where(point > highest, 1, tops + again)
        highest = torch.where(rises, torch.maximum(highest, point), highest)
        falls = (highest - point >= threshold) & (point < highest)
        counts += tops * falls
        lowest = torch.where(rises, -torch.inf, torch.minimum(lowest, point))
        lowest = torch.where(falls, point, lowest)
        highest = highest.masked_fill(falls, -torch.inf)
        before = point
    return counts
