"""Modes of a row in each thread of a GPU (Triton)."""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows of a program: few, so that there are many programs.
_BLOCK = 32


def count_in_triton(rows: Tensor, threshold: Tensor) -> Tensor:
    """As :func:`captum_advise.density._torch_engine.count_in_torch`, without a wait for the GPU."""
    counts = torch.empty_like(threshold, dtype=torch.int64)
    # Threads side by side read numbers side by side.
    points = rows.T.contiguous()
    with torch.cuda.device_of(rows):
        modes_kernel[(triton.cdiv(len(rows), _BLOCK),)](
            points, threshold, counts, len(rows), len(points), block=_BLOCK, num_warps=1
        )
    return counts


@triton.jit(do_not_specialize=["n_rows", "n_points"])
def modes_kernel(points, thresholds, counts, n_rows, n_points, block: tl.constexpr):
    """The steps of the reference on ``points`` (L, R)."""
    row = tl.program_id(0) * block + tl.arange(0, block)
    inside = row < n_rows
    points += row
    threshold = tl.load(thresholds + row, mask=inside, other=0.0)
    before = tl.load(points, mask=inside, other=0.0)
    nothing = tl.full((block,), float("-inf"), tl.float64)
    lowest, highest = before, nothing
    tops = tl.full((block,), 0, tl.int64)
    found = tl.full((block,), 0, tl.int64)
    for _ in range(1, n_points):
        points += n_rows
        point = tl.load(points, mask=inside, other=0.0)
        rises = (point - lowest >= threshold) & (point > lowest)
        again = (point == highest) & (before < highest)
        tops = tl.where(point > highest, 1, tops + again.to(tl.int64))
        highest = tl.where(rises, tl.maximum(highest, point), highest)
        falls = (highest - point >= threshold) & (point < highest)
        found += tl.where(falls, tops, 0)
        lowest = tl.where(rises, nothing, tl.minimum(lowest, point))
        lowest = tl.where(falls, point, lowest)
        highest = tl.where(falls, nothing, highest)
        before = point
    tl.store(counts + row, found, mask=inside)
