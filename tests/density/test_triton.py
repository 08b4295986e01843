"""The kernel of GPUs, where there is no GPU."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captum_advise import adaptive_kde, count_modes
from captum_advise.density import _engine, _stiffness_search, _working_grids

triton = pytest.importorskip("triton")
from captum_advise.density import _triton_engine, _triton_modes  # noqa: E402


def test_on_the_interpreter():
    """Against torch and the golden rows: see ``on_triton_interpreter.py``."""
    file = Path(__file__).with_name("on_triton_interpreter.py")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("capability", [80, 90])
def test_compiles(capability, tmp_path, monkeypatch):
    """To machine code of NVIDIA's GPUs, for which none is needed."""
    compiler = pytest.importorskip("triton.compiler")
    backends = pytest.importorskip("triton.backends.compiler")
    from captum_advise.density._triton_kernel import density_kernel
    from captum_advise.density._triton_modes import modes_kernel

    if version(triton) < (3, 3) or not hasattr(density_kernel, "params"):
        pytest.skip("Triton compiles for a GPU that is there, or interprets")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    target = backends.GPUTarget("cuda", capability, 32)

    def compiled(kernel, tiles, types, n_warps):
        types = dict.fromkeys(kernel.arg_names, "*fp64") | types | dict.fromkeys(tiles, "constexpr")
        source = compiler.ASTSource(fn=kernel, signature=types, constexprs=tiles)
        program = triton.compile(source, target=target, options={"num_warps": n_warps})
        assert program.asm["cubin"]
        return program

    integers = dict.fromkeys(("n_rows", "n_points"), "i32") | {"counts": "*i64"}
    compiled(modes_kernel, {"block": _triton_modes._BLOCK}, integers, 1)
    tiles = {"block": 64, "chunk": _triton_engine._CHUNK, "depth": _triton_engine._DEPTH}
    integers = dict.fromkeys(("bins", "lengths", "n_bins"), "*i32")
    integers |= {"n_windows": "i32", "n_distances": "i32"}
    program = compiled(density_kernel, tiles, integers, 4)
    # Literals would have been rounded to single precision.
    for name in ("GOLDEN", "BRACKET", "COST_ROUNDING"):
        number = struct.pack(">d", getattr(_stiffness_search, name)).hex().upper()
        assert f"0d{number}" in program.asm["ptx"]


def version(module):
    return tuple(int(part) for part in module.__version__.split(".")[:2])


class NoKernel:
    def __getitem__(self, grid):
        return lambda *arguments, **options: None


def test_nothing_is_asked_of_the_gpu(monkeypatch):
    """Tensors without data: to read a number, or a shape that depends on data, is an error."""
    monkeypatch.setattr(_triton_engine, "density_kernel", NoKernel())
    meta = torch.device("meta")
    engine = _triton_engine.estimate_in_triton, meta
    monkeypatch.setattr("captum_advise.density._adaptive_kde.engine_for", lambda *_: engine)
    grid = torch.linspace(0, 1, 49)
    estimate = adaptive_kde(torch.empty(5, 49, device=meta), grid, n_bandwidths=10)
    assert estimate.density.is_meta
    assert estimate.density.shape == estimate.bandwidth.shape == (5, 49)
    monkeypatch.setattr(_triton_modes, "modes_kernel", NoKernel())
    counter = _triton_modes.count_in_triton
    monkeypatch.setattr("captum_advise.density._modes.mode_counter_for", lambda *_: counter)
    assert count_modes(estimate.density).is_meta


@pytest.mark.parametrize("n_points", [2, 30, 256])
def test_working_grids_are_no_longer_than_the_grid(n_points):
    """Samples whose smallest gap is hardly more than a step, of grids that are hardly even."""
    generator = torch.Generator().manual_seed(n_points)
    grid = torch.linspace(0, 1, n_points, dtype=torch.float64)
    uneven = grid + (torch.rand(n_points, generator=generator) - 0.5) * 2e-4 / n_points
    for points in (grid, uneven):
        step = points.diff().min()
        factors = 1 + torch.tensor([0, 1e-15, 1e-9, 1e-4, 1e-3, 0.1], dtype=torch.float64)
        rows = points[0] + (step * factors)[:, None] * torch.tensor([0.0, 1.0])
        assert (_working_grids.working_lengths(rows, points) <= n_points).all()


@pytest.mark.parametrize("missing", ["triton", "captum_advise.density._triton_engine"])
def test_without_triton(monkeypatch, caplog, missing):
    for name in [name for name in sys.modules if "density._triton" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    caplog.set_level("DEBUG")
    _engine.compiled_for_gpu.cache_clear()
    engine, _ = _engine.engine_for(torch.device("cuda:7"), 49)
    assert engine.keywords["estimate"] is _engine.estimate_in_torch
    _engine.engine_for(torch.device("cuda:7"), 49)
    _engine.compiled_for_gpu.cache_clear()
    (record,) = caplog.records
    assert "torch estimates densities on cuda:7, not Triton" in record.message


def test_long_grids_on_a_gpu_stay_in_torch(caplog):
    caplog.set_level("DEBUG")
    engine, _ = _engine.engine_for(torch.device("cuda:7"), 257)
    assert engine.keywords["estimate"] is _engine.estimate_in_torch
    assert not caplog.records


def test_cpus_do_not_import_the_kernel():
    code = (
        "import sys, torch, captum_advise\n"
        "captum_advise.unit_relevance(torch.rand(1, 2, 3, 3))\n"
        "assert not any('density._triton' in name for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
