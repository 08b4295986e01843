"""Blocks of rows through the compiled kernels, on as many threads as torch uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from captum_advise.density._blocks import Block
from captum_advise.density._kernels import estimate_rows

# Fewer points are not worth a thread.
_POINTS_PER_THREAD = 1 << 13


def estimate_compiled(block: Block) -> tuple[Tensor, Tensor]:
    """As :func:`captum_advise.density._estimate.estimate_block`, on a CPU."""
    n_rows, longest = block.counts.shape
    density = torch.zeros(n_rows, longest, dtype=torch.float64)
    bandwidth = torch.zeros_like(density)
    arrays = [
        tensor.contiguous().numpy()
        for tensor in (block.counts, block.lengths, block.windows, block.segment)
    ]
    n_parts = min(torch.get_num_threads(), -(-n_rows * longest // _POINTS_PER_THREAD), n_rows)
    ends = [n_rows * part // n_parts for part in range(n_parts + 1)]

    def run(part: int) -> None:
        rows = ends[part], ends[part + 1]
        estimate_rows(*arrays, *rows, density.numpy(), bandwidth.numpy())  # type: ignore[call-arg]

    if n_parts == 1:
        run(0)
    else:
        with ThreadPoolExecutor(n_parts) as pool:
            list(pool.map(run, range(n_parts)))
    return density, bandwidth
