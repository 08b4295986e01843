"""What estimates blocks of densities: compiled kernels on a CPU, torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from captum_advise.density._blocks import Block
from captum_advise.density._torch_engine import estimate_in_torch

# Elements of the largest temporary: so many that calls cost little, so few that memory is bounded.
_CPU_BLOCK = 1 << 22
_CUDA_BLOCK = 1 << 24
# The kernels hold one row at a time: blocks share the work among threads, and show progress.
_COMPILED_BLOCK = 1 << 26
# On more points torch takes minutes for each row: its time and memory grow with their square.
_MOST_POINTS = 128 * 128


@dataclass(frozen=True)
class Engine:
    """An implementation of :func:`captum_advise.density._torch_engine.estimate_in_torch`.

    Attributes:
        estimate: From a block to density and bandwidth (2, B, L).
        device: Where its tensors must be.
        block_size: As in :func:`captum_advise.density._blocks.blocks`.
    """

    estimate: Callable[[Block], Tensor]
    device: torch.device
    block_size: int


def engine_for(device: torch.device, n_points: int) -> Engine:
    """The engine for grids of so many points.

    Raises:
        ValueError: The grid is too long for torch, and the compiled kernels are missing.
    """
    cpu = torch.device("cpu")
    if device.type == "cpu" or n_points > _MOST_POINTS:
        estimate = compiled()
        if estimate is not None:
            return Engine(estimate, cpu, _COMPILED_BLOCK)
    if n_points > _MOST_POINTS:
        raise ValueError(
            f"Densities on {n_points} points, as of a layer with so many positions, need compiled "
            f"kernels above {_MOST_POINTS}: install captum-advise[fast], or name a deeper layer."
        )
    return Engine(estimate_in_torch, device, _CUDA_BLOCK if device.type == "cuda" else _CPU_BLOCK)


@cache
def compiled() -> Callable[[Block], Tensor] | None:
    """The compiled kernels; None where numba is missing or cannot keep what it compiles."""
    try:
        from captum_advise.density._numba_engine import estimate_compiled
    except (ImportError, RuntimeError):
        return None
    return estimate_compiled
