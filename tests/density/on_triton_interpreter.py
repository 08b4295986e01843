"""The kernel of GPUs against torch, in Triton's interpreter on the CPU.

``test_triton.py`` runs this file in a process of its own, because Triton reads TRITON_INTERPRET
when it is imported. A row takes about a second.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_advise import count_modes
from captum_advise.density import _engine, _triton_engine, _triton_modes
from captum_advise.density._torch_engine import count_in_torch

GOLDEN_KDE = np.load(Path(__file__).parents[1] / "golden" / "kde_reference.npz")
CPU = torch.device("cpu")

# Outside of a row's grid the interpreter divides zero by zero, as a GPU does without a word.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")


@pytest.fixture(autouse=True, scope="module")
def large_tiles():
    """The interpreter takes as long for a large tile as for a small one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_triton_engine, "_CHUNK", 64)
        monkeypatch.setattr(_triton_engine, "_DEPTH", 32)
        yield


def assert_agrees(samples, grid, n_bandwidths):
    """Densities within 1e-9 of the row's maximum, and equal relevances. Returns the density."""
    samples, grid = torch.as_tensor(samples).double(), torch.as_tensor(grid).double()
    arguments = samples, grid, float(grid[-1] - grid[0]), n_bandwidths
    found, _ = _triton_engine.estimate_in_triton(*arguments)
    expected, _ = _engine.estimate_in_blocks(*arguments, _engine.estimate_in_torch, 1 << 22)
    assert torch.equal(found.isnan(), expected.isnan())
    assert ((found - expected).abs() <= 1e-9 * expected.amax(1, keepdim=True))[
        ~expected.isnan()
    ].all()
    assert torch.equal(count_modes(found), count_modes(expected))
    return found


def kinds(case):
    """The last row of each kind: those of most kinds differ from case to case."""
    return {str(kind): row for row, kind in enumerate(GOLDEN_KDE[f"{case}__kind"])}


@pytest.mark.parametrize(
    ("case", "only"),
    [
        ("Z49_M10", None),
        # More bandwidths than are handled at once, and longer grids.
        ("Z64_M25", ["bimodal", "sparse"]),
        ("Z120_M10", ["ties", "four-modes"]),
        ("Z196_M10", ["relu-normal", "sparse"]),
    ],
)
def test_golden(case, only):
    rows = [row for kind, row in kinds(case).items() if only is None or kind in only]
    assert len(rows) == len(only or set(GOLDEN_KDE[f"{case}__kind"]))
    samples, grid, n_bandwidths, density = (
        GOLDEN_KDE[f"{case}__{name}"] for name in ("samples", "grid", "n_bandwidths", "density")
    )
    found = assert_agrees(samples[rows], grid, int(n_bandwidths)).numpy() / np.ptp(grid)
    scale = np.fmax(1, density[rows].max(1, keepdims=True))
    np.testing.assert_allclose(found / scale, density[rows] / scale, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_points", [2, 3, 5, 16, 17])
def test_short_grids(n_points):
    generator = torch.Generator().manual_seed(n_points)
    samples = torch.rand(2, n_points, generator=generator)
    assert_agrees(samples, torch.linspace(0, 1, n_points), 10)


rows_of_samples = st.lists(
    st.lists(st.floats(-0.25, 1.25, width=32), min_size=8, max_size=8), min_size=1, max_size=2
)


@given(rows_of_samples, st.sampled_from([7, 20]))
@settings(max_examples=8)
def test_any_samples(rows, n_points):
    assert_agrees(torch.tensor(rows), torch.linspace(0, 1, n_points, dtype=torch.float64), 4)


def test_rows_are_independent_and_duplicates_are_estimated_once(monkeypatch):
    """Bit for bit, with one launch for all rows or one for sixteen; NaN between them."""
    samples = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples[1] = math.nan
    many = samples.repeat(7, 1)
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)
    one = _triton_engine.estimate_in_triton(samples, grid, 1.0, 4)
    launches = []
    kernel = _triton_engine.density_kernel

    class Counted:
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                launches.append((grid, int((arguments[2] > 0).sum())))
                return kernel[grid](*arguments, **options)

            return launch

    monkeypatch.setattr(_triton_engine, "density_kernel", Counted())
    monkeypatch.setattr(_triton_engine, "_SCRATCH", 1)
    found = _triton_engine.estimate_in_triton(many, grid, 1.0, 4)
    assert launches == [((16,), 2), ((5,), 0)]
    torch.testing.assert_close(found, one.repeat(1, 7, 1), rtol=0, atol=0, equal_nan=True)
    empty = _triton_engine.estimate_in_triton(samples[:0], grid, 1.0, 4)
    assert empty.shape == (2, 0, 9)


rows_of_heights = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(-2, 4), min_size=n, max_size=n), min_size=1, max_size=9)
)


@given(rows_of_heights, st.sampled_from([0, 1e-6, 0.3, 0.9]))
@settings(max_examples=25)
def test_modes(rows, min_prominence):
    rows = torch.tensor([*rows, [math.nan] * len(rows[0])], dtype=torch.float64)
    least = min_prominence * rows.amax(1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_triton_modes, "_BLOCK", 4)
        found = _triton_modes.count_in_triton(rows, least)
    assert torch.equal(found, count_in_torch(rows, least))


def test_check_before_the_first_use(monkeypatch, caplog):
    caplog.set_level("DEBUG")
    kernels = _triton_engine.estimate_in_triton, _triton_modes.count_in_triton
    assert _engine.compiled_for_gpu.__wrapped__(CPU, 12) == kernels
    assert not caplog.records
    # A device on which the kernel's result is wrong.
    monkeypatch.setattr(_engine, "estimate_in_torch", lambda block: 1.001 * block.counts[None])
    assert _engine.compiled_for_gpu.__wrapped__(CPU, 12) is None
    assert len(caplog.records) == 1
    assert "torch estimates densities on cpu, not Triton" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(_triton_modes, "count_in_triton", lambda rows, least: 0 * least.long())
    assert _engine.compiled_for_gpu.__wrapped__(CPU, 12) is None
