"""What estimates densities and counts modes: kernels on a CPU and on a GPU, torch elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from captum_advise.density._blocks import Block, estimate_in_blocks
from captum_advise.density._torch_engine import count_in_torch, estimate_in_torch

_logger = logging.getLogger(__name__)
# Elements of the largest temporary: so many that calls cost little, so few that memory is bounded.
_CPU_BLOCK = 1 << 22
_CUDA_BLOCK = 1 << 24
# The kernels hold one row at a time: blocks share the work among threads.
_COMPILED_BLOCK = 1 << 26
# On more points torch takes minutes for each row: its time and memory grow with their square.
_MOST_POINTS = 128 * 128
# A program of the GPU keeps a row in its registers.
_MOST_POINTS_ON_GPU = 256

# From rows (R, n), grid (L,), its length and the number of bandwidths to density and bandwidth
# (2, R, L), as estimate_in_blocks.
Engine: TypeAlias = Callable[[Tensor, Tensor, float, int], Tensor]
# From rows (R, L) and the least prominence (R,) of a mode to numbers of modes (R,).
ModeCounter: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def engine_for(device: torch.device, n_points: int) -> tuple[Engine, torch.device]:
    """The engine for grids of so many points, and where its tensors must be.

    Raises:
        ValueError: The grid is too long for torch, and the compiled kernels are missing.
    """
    if device.type == "cpu" or n_points > _MOST_POINTS:
        kernels = compiled()
        if kernels is not None:
            engine = partial(estimate_in_blocks, estimate=kernels[0], block_size=_COMPILED_BLOCK)
            return engine, torch.device("cpu")
    if n_points > _MOST_POINTS:
        raise ValueError(
            f"Densities on {n_points} points, as of a layer with so many positions, need compiled "
            f"kernels above {_MOST_POINTS}: install captum-advise[fast], or name a deeper layer."
        )
    if device.type == "cuda" and n_points <= _MOST_POINTS_ON_GPU:
        on_gpu = compiled_for_gpu(device, n_points)
        if on_gpu is not None:
            return on_gpu[0], device
    size = _CUDA_BLOCK if device.type == "cuda" else _CPU_BLOCK
    return partial(estimate_in_blocks, estimate=estimate_in_torch, block_size=size), device


def mode_counter_for(device: torch.device, n_points: int) -> ModeCounter:
    """What counts the modes of rows of so many points on a device."""
    if device.type == "cpu" and (kernels := compiled()) is not None:
        return kernels[1]
    if device.type == "cuda":
        # The check is that of densities on as many points; the kernel itself has no longest row.
        checked = min(max(n_points, 2), _MOST_POINTS_ON_GPU)
        if (on_gpu := compiled_for_gpu(device, checked)) is not None:
            return on_gpu[1]
    return count_in_torch


@cache
def compiled() -> tuple[Callable[[Block], Tensor], ModeCounter] | None:
    """The compiled kernels; None where numba is missing or cannot keep what it compiles."""
    try:
        from captum_advise.density._numba_engine import count_compiled, estimate_compiled
    except (ImportError, RuntimeError):
        return None
    return estimate_compiled, count_compiled


def must_compile() -> bool:
    """Whether numba is there, and has not kept compiled kernels on disk yet."""
    if compiled() is None:
        return False
    from captum_advise.density._numba_kernels import estimate_rows

    return not any(Path(str(estimate_rows.stats.cache_path)).glob("*estimate_rows*.nbi"))


@cache
def compiled_for_gpu(device: torch.device, n_points: int) -> tuple[Engine, ModeCounter] | None:
    """Kernels of a GPU; None where they cannot be compiled, or do not give what torch gives."""
    try:
        from captum_advise.density._triton_engine import estimate_in_triton
        from captum_advise.density._triton_modes import count_in_triton

        # What is missing, too old or wrong shows here: Triton, a C compiler, support of the GPU.
        rows = torch.tensor([[0.2, 0.3, 0.301, 0.9]], dtype=torch.float64, device=device)
        grid = torch.linspace(0, 1, n_points, dtype=torch.float64, device=device)
        found = estimate_in_triton(rows, grid, 1.0, 10)
        expected = estimate_in_blocks(rows, grid, 1.0, 10, estimate_in_torch, _CUDA_BLOCK)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        least = 1e-6 * found[0].amax(-1)
        torch.testing.assert_close(
            count_in_triton(found[0], least), count_in_torch(found[0], least)
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        _logger.debug("torch estimates densities on %s, not Triton: %s", device, reason)
        return None
    return estimate_in_triton, count_in_triton
