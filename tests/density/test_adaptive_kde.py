"""The density estimate against the authors' program, a second library and its invariants."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptivekde import ssvkernel
from hypothesis import given
from hypothesis import strategies as st

from captum_advise import adaptive_kde, count_modes
from captum_advise.density import _local_costs

GOLDEN_KDE = np.load(Path(__file__).parents[1] / "golden" / "kde_reference.npz")
CASES = sorted({name.split("__")[0] for name in GOLDEN_KDE})

# Every golden row that differs by more than rounding, and why.
DIFFERENT_DENSITY = {
    ("Z100_M10", 11): "last comparisons of the search are between costs equal to rounding",
    ("Z100_M10", 31): "last comparisons of the search are between costs equal to rounding",
    ("Z196_M10", 7): "last comparisons of the search are between costs equal to rounding",
}
DIFFERENT_MODES = {
    ("Z36_M10", 6): "the density is constant at its top; 1e-16 decides whether it dips",
    ("Z49_M10", 36): "the density is symmetric about its flat top; 2e-16 decides whether it dips",
}


def golden(case, device="cpu"):
    def field(name):
        return GOLDEN_KDE[f"{case}__{name}"]

    estimate = adaptive_kde(
        torch.from_numpy(field("samples")).to(device),
        torch.from_numpy(field("grid")).to(device),
        n_bandwidths=int(field("n_bandwidths")),
    )
    return estimate, field


@pytest.mark.parametrize("case", CASES)
def test_golden(case, engine):
    estimate, field = golden(case)
    density = estimate.density.numpy()
    undefined = np.isnan(field("density")).any(1)
    assert np.array_equal(np.isnan(density).all(1), undefined)
    assert np.array_equal(np.isnan(density).any(1), undefined)

    error = np.abs(density - field("density")).max(1)
    scale = np.fmax(1, field("density").max(1))
    different = {(case, int(row)) for row in np.flatnonzero(error > 1e-8 * scale)}
    assert different <= set(DIFFERENT_DENSITY)
    assert not (error > 1e-4 * scale).any()

    modes = count_modes(estimate.density, min_prominence=0).numpy()
    wrong = {(case, int(row)) for row in np.flatnonzero(modes != field("modes"))}
    assert wrong <= set(DIFFERENT_MODES)

    narrow = error <= 1e-8 * scale
    np.testing.assert_allclose(
        estimate.bandwidth.numpy()[narrow], field("bandwidth")[narrow], rtol=1e-6
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES)
def test_golden_on_a_gpu(case):
    estimate, field = golden(case, "cuda")
    assert estimate.density.is_cuda
    density = estimate.density.cpu().numpy()
    error = np.abs(density - field("density")).max(1)
    different = {(case, int(row)) for row in np.flatnonzero(error > 1e-8 * field("density").max(1))}
    assert different <= set(DIFFERENT_DENSITY)


def test_golden_shares():
    rows = sum(len(GOLDEN_KDE[f"{case}__samples"]) for case in CASES)
    assert len(DIFFERENT_DENSITY) <= 0.05 * rows
    assert len(DIFFERENT_MODES) <= 0.01 * rows


@pytest.mark.parametrize("case", CASES)
def test_golden_mode_counts(case):
    modes = count_modes(torch.from_numpy(GOLDEN_KDE[f"{case}__density"]), min_prominence=0)
    assert modes.tolist() == GOLDEN_KDE[f"{case}__modes"].tolist()


def test_golden_mode_counts_by_prominence():
    """Most literal counts stand when modes must be prominent; none grows."""
    same = rows = 0
    for case in CASES:
        literal = torch.from_numpy(GOLDEN_KDE[f"{case}__modes"]).long()
        prominent = count_modes(torch.from_numpy(GOLDEN_KDE[f"{case}__density"]))
        assert (prominent <= literal).all()
        same += int((prominent == literal).sum())
        rows += len(literal)
    assert same >= 0.99 * rows


@pytest.mark.parametrize("n_bandwidths", [10, 40])
def test_second_library(n_bandwidths):
    """Rows whose samples fill the grid from end to end and leave the last bin empty.

    There ssvkernel's conventions agree: it takes the span from the samples and closes the last
    bin. Its golden-section search may run one step more.
    """
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 80)
    inner = np.clip(
        np.concatenate([rng.normal(0.3, 0.06, (6, 60)), rng.normal(0.7, 0.1, (6, 60))], 1),
        0.01,
        0.98,
    )
    samples = np.concatenate([np.zeros((6, 1)), inner, np.ones((6, 1))], 1)
    ours = adaptive_kde(
        torch.from_numpy(samples), torch.from_numpy(grid), n_bandwidths=n_bandwidths
    ).density.numpy()
    for row, mine in zip(samples, ours, strict=True):
        # Its last bin holds the sample at one, which ours leaves out.
        theirs = ssvkernel(
            np.append(row[:-1], 1 + 1e-12), grid, M=n_bandwidths, nbs=1, WinFunc="Gauss"
        )[0]
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3 * theirs.max())


def test_analytic_single_bin():
    """All samples in one bin: the density is that bin's Gaussian at the bandwidth returned."""
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    estimate = adaptive_kde(torch.full((1, 30), 0.5), grid, n_bandwidths=10)
    width = estimate.bandwidth[0]
    gauss = torch.exp(-0.5 * ((grid - 0.5) / width) ** 2) / width
    torch.testing.assert_close(estimate.density[0], gauss / gauss.sum() / 0.01)


def test_leading_shapes_and_dtypes():
    samples = torch.rand(2, 3, 40)
    grid = torch.linspace(0, 1, 50)
    estimate = adaptive_kde(samples, grid)
    assert estimate.density.shape == estimate.bandwidth.shape == (2, 3, 50)
    assert estimate.density.dtype == torch.float64
    flat = adaptive_kde(samples.view(6, 40), grid)
    assert torch.equal(estimate.density.view(6, 50), flat.density)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        rounded = samples.to(dtype)
        expected = adaptive_kde(rounded.double(), grid)
        torch.testing.assert_close(adaptive_kde(rounded, grid), expected, equal_nan=True)
    single = adaptive_kde(samples[0, 0], grid)
    torch.testing.assert_close(single.density, estimate.density[0, 0], rtol=1e-9, atol=1e-9)
    assert adaptive_kde(torch.empty(0, 40), grid).density.shape == (0, 50)
    assert adaptive_kde(torch.empty(2, 0), grid).density.isnan().all()


def test_equal_histograms_are_estimated_once_and_alike():
    samples = torch.rand(6, 40)
    samples[4], samples[5] = samples[1].flip(0), samples[2]
    estimate = adaptive_kde(samples, torch.linspace(0, 1, 30))
    assert torch.equal(estimate.density[4], estimate.density[1])
    assert torch.equal(estimate.bandwidth[5], estimate.bandwidth[2])
    assert not torch.equal(estimate.density[0], estimate.density[1])


def test_non_contiguous():
    samples = torch.rand(40, 5).T
    grid = torch.linspace(0, 1, 30)
    expected = adaptive_kde(samples.contiguous(), grid)
    assert torch.equal(adaptive_kde(samples, grid).density, expected.density)


def test_long_grids_convolve_the_same(monkeypatch, torch_engine):
    """The FFT path of long grids and the matrix path agree."""
    samples = torch.rand(5, 90)
    grid = torch.linspace(0, 1, 90)
    matrix = adaptive_kde(samples, grid, n_bandwidths=10)
    monkeypatch.setattr("captum_advise.density._local_costs._MAX_MATRIX_POINTS", 10)
    fft = adaptive_kde(samples, grid, n_bandwidths=10)
    torch.testing.assert_close(matrix.density, fft.density, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("low", "high", "points"), [(0, 1, 18_000), (100, 101, 200)])
def test_grids_in_single_precision(low, high, points):
    samples = low + (high - low) * torch.rand(40, dtype=torch.float64).square()
    estimate, expected = (
        adaptive_kde(samples, torch.linspace(low, high, points, dtype=dtype), n_bandwidths=4)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(estimate, expected, rtol=1e-9, atol=1e-9)
    uneven = torch.linspace(low, high, 200).square()
    with pytest.raises(ValueError, match="equally spaced"):
        adaptive_kde(samples, uneven - 2e-3 * uneven.flip(0))


@pytest.mark.parametrize(("length", "width"), [(4, 3.1), (6, 5.0), (49, 12.5)])
def test_smoothing_kernels(length, width):
    """Against the circular convolution by FFT that the method describes, in double precision."""
    circle = 2 ** math.ceil(math.log2(length + 3 * width))
    transfer = np.exp(-0.5 * (2 * np.pi * np.fft.fftfreq(circle) * width) ** 2)
    expected = np.fft.ifft(transfer).real[:length]
    windows = torch.tensor([[width]], dtype=torch.float64)
    kernel = _local_costs.smoothing_kernels([length], windows)[0, 0]
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "limit", ["_engine._CPU_BLOCK", "_balloon._CPU_KERNELS", "_local_costs._SMOOTHING_BLOCK"]
)
def test_sizes_of_blocks_change_nothing(monkeypatch, torch_engine, limit):
    """Rows with grids of many lengths, in blocks that hold one row or all."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(40, 30, generator=generator)
    samples[10:, 5:] = torch.nan  # few samples: short working grids
    grid = torch.linspace(0, 1, 30)
    together = adaptive_kde(samples, grid, n_bandwidths=10)
    monkeypatch.setattr(f"captum_advise.density.{limit}", 1)
    apart = adaptive_kde(samples, grid, n_bandwidths=10)
    torch.testing.assert_close(apart, together, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_long_grids(engine):
    """On 4096 points, samples in one place and in two."""
    steps = 1e-6 * torch.arange(4096, dtype=torch.float64)
    one = 0.5 + steps / 4
    two = torch.where(torch.arange(4096) % 2 == 0, 0.25, 0.75) + steps / 4
    grid = torch.linspace(0, 1, 4096, dtype=torch.float64)
    density = adaptive_kde(torch.stack([one, two]), grid, n_bandwidths=10)[0]
    assert count_modes(density).tolist() == [1, 2]
    torch.testing.assert_close(density.sum(1) / 4095, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("positions", [49, 169, 256, 257, 900])
def test_engines_agree(monkeypatch, positions):
    """The kernels do what torch does. Above 256 points they work in scale space."""
    generator = torch.Generator().manual_seed(positions)
    n = positions // 2
    samples = torch.cat(
        [
            torch.rand(6, positions, generator=generator).pow(3),
            # In a part of the grid: at its start, its end and in its middle.
            torch.rand(6, positions, generator=generator)[:, :, None]
            .mul(0.3)
            .add(torch.tensor([0, 0.7, 0.4]))
            .transpose(1, 2)
            .flatten(0, 1),
            torch.cat(
                [
                    0.2 + 0.03 * torch.randn(6, n, generator=generator),
                    0.8 + 0.01 * torch.randn(6, positions - n, generator=generator),
                ],
                1,
            ),
        ]
    )
    samples[5:7, n:] = torch.nan
    grid = torch.linspace(0, 1, positions, dtype=torch.float64)
    compiled = adaptive_kde(samples, grid, n_bandwidths=10)
    monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)
    reference = adaptive_kde(samples, grid, n_bandwidths=10)
    peak = reference.density.amax(-1, keepdim=True)
    torch.testing.assert_close(compiled.density / peak, reference.density / peak)
    # Farther from the samples the bandwidth hangs on rounding.
    near = reference.density > 1e-6 * peak
    torch.testing.assert_close(compiled.bandwidth[near], reference.bandwidth[near])


def test_time_grows_about_linearly():
    """Dense activations on 16 times as many points: at most 40 times as long, 256 for squares."""
    from time import process_time

    def seconds(positions):
        samples = torch.rand(1, positions, generator=torch.Generator().manual_seed(0))
        grid = torch.linspace(0, 1, positions, dtype=torch.float64)
        start = process_time()
        adaptive_kde(samples, grid, n_bandwidths=10)
        return process_time() - start

    seconds(784)
    assert seconds(112 * 112) < 40 * min(seconds(784) for _ in range(3))


def test_long_grids_need_the_kernels(monkeypatch):
    grid = torch.linspace(0, 1, 128 * 128 + 1)
    assert adaptive_kde(torch.tensor([0.2, 0.4]), grid, n_bandwidths=10).density.isfinite().all()
    monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)
    with pytest.raises(ValueError, match=r"captum-advise\[fast\]"):
        adaptive_kde(torch.tensor([0.2, 0.4]), grid, n_bandwidths=10)


def test_undefined_rows():
    nan, inf = math.nan, math.inf
    rows = torch.tensor([[nan] * 4, [-inf, inf, 2, -1], [0.5, 3, 3, 3], [0.1, 0.1, 0.2, nan]])
    estimate = adaptive_kde(rows, torch.linspace(0, 1, 20))
    assert estimate.density.isnan().all(1).tolist() == [True, True, True, False]
    assert count_modes(estimate.density)[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("samples", "grid", "options", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0.0]), {}, ValueError, "two points"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0, 3.0]), {}, ValueError, "equally spaced"),
        (torch.zeros(2, 3), torch.tensor([1.0, 0.0]), {}, ValueError, "increasing"),
        (torch.zeros(2, 3), torch.tensor([0.0, math.nan]), {}, ValueError, "increasing"),
        (torch.tensor(1.0), torch.linspace(0, 1, 9), {}, ValueError, "dimension"),
        (np.zeros((2, 3)), torch.linspace(0, 1, 9), {}, TypeError, "samples"),
        (torch.zeros(2, 3) * 1j, torch.linspace(0, 1, 9), {}, TypeError, "samples"),
        (torch.zeros(2, 3), torch.linspace(0, 1, 9), {"n_bandwidths": 1}, ValueError, "least 2"),
    ],
)
def test_bad_input(samples, grid, options, error, message):
    with pytest.raises(error, match=message):
        adaptive_kde(samples, grid, **options)


rows_of_samples = st.lists(
    st.lists(st.floats(-0.5, 1.5, width=32), min_size=12, max_size=12), min_size=1, max_size=6
)


@given(rows_of_samples)
def test_densities_integrate_to_one(rows):
    samples = torch.tensor(rows)
    grid = torch.linspace(0, 1, 40, dtype=torch.float64)
    estimate = adaptive_kde(samples, grid, n_bandwidths=10)
    defined = ~estimate.density.isnan().any(1)
    assert (estimate.density[defined] >= 0).all()
    assert (estimate.bandwidth[defined] > 0).all()
    # Rows on the user's own grid integrate exactly; interpolation changes the sum of the others.
    gaps = torch.where((samples < 0) | (samples > 1), torch.nan, samples.double())
    gaps = gaps.sort(1).values.diff(dim=1)
    gaps = torch.where(gaps > 0, gaps, torch.inf).amin(1)
    own = defined & ((gaps <= 1 / 39) | gaps.isinf())
    torch.testing.assert_close(
        estimate.density[own].sum(1) / 39, torch.ones(int(own.sum()), dtype=torch.float64)
    )


@given(rows_of_samples, st.randoms(use_true_random=False), st.sampled_from([30, 300]))
def test_rows_are_independent(rows, random, n_points):
    """Bit for bit: of other rows, of the order of samples, of the number of threads."""
    samples = torch.tensor(rows)
    grid = torch.linspace(0, 1, n_points, dtype=torch.float64)
    together = adaptive_kde(samples, grid, n_bandwidths=8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        for row, *estimate in zip(samples, *together, strict=True):
            shuffled = row[torch.tensor(random.sample(range(12), 12))]
            alone = adaptive_kde(shuffled, grid, n_bandwidths=8)
            torch.testing.assert_close(list(alone), estimate, rtol=0, atol=0, equal_nan=True)
    finally:
        torch.set_num_threads(threads)


@given(rows_of_samples)
def test_rows_are_independent_in_torch(rows):
    samples = torch.tensor(rows)
    grid = torch.linspace(0, 1, 30, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)
        together = adaptive_kde(samples, grid, n_bandwidths=8).density
        for row, density in zip(samples, together, strict=True):
            alone = adaptive_kde(row, grid, n_bandwidths=8).density
            # Padding and blocks change the order of sums; a tie of costs may then fall the other
            # way.
            torch.testing.assert_close(alone, density, rtol=1e-3, atol=1e-3, equal_nan=True)


@given(rows_of_samples, st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_the_axis_of_a_bandwidth_ratio(rows, scale):
    """Undefined rows do not depend on the unit of the axis."""
    samples = torch.tensor(rows, dtype=torch.float64)
    grid = torch.linspace(0, 1, 30, dtype=torch.float64)
    here = adaptive_kde(samples, grid, n_bandwidths=8).density.isnan()
    there = adaptive_kde(samples * scale, grid * scale, n_bandwidths=8).density.isnan()
    assert torch.equal(here, there)


def test_powers_of_two_are_exact_to_rounding():
    kernels = pytest.importorskip("captum_advise.density._numba_kernels")
    exponents = -np.concatenate([np.linspace(0, 3, 3001), np.linspace(3, 1000, 3001)[:-1]])
    expected = np.exp2(exponents.astype(np.longdouble))
    powers = np.append(exponents, [-1000.0, -5000.0])
    kernels._powers_of_two(powers)
    assert powers[-2:].tolist() == [0.0, 0.0]
    # A few roundings of 1e-16; without the last term of the series it is 9e-15.
    assert np.abs(powers[:-2] / expected - 1).max() < 1e-15
