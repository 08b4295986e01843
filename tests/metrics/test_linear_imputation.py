from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, diags, lil_matrix
from scipy.sparse.linalg import spsolve
from toy_networks import images

from captum_advise.metrics._linear_imputation import impute


def exact(image, known):
    """The linear system of one image (C, H, W), equation by equation."""
    _, height, width = image.shape
    missing = [tuple(pixel) for pixel in np.argwhere(~known.numpy())]
    number = {pixel: i for i, pixel in enumerate(missing)}
    system = lil_matrix((len(missing), len(missing)))
    right_side = np.zeros((len(missing), len(image)))
    for row, (y, x) in enumerate(missing):
        for dy, dx in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)):
            there = (y + dy, x + dx)
            if not (0 <= there[0] < height and 0 <= there[1] < width):
                continue
            weight = 1 / 6 if dy * dx == 0 else 1 / 12
            system[row, row] += weight
            if there in number:
                system[row, number[there]] -= weight
            else:
                right_side[row] += weight * image[:, there[0], there[1]].numpy()
    solution = spsolve(system.tocsc(), right_side).reshape(len(missing), len(image))
    result = image.clone()
    for row, (y, x) in enumerate(missing):
        result[:, y, x] = torch.from_numpy(solution[row])
    return result


def masks(height, width, share, smooth):
    """Known pixels: a share of those of least importance, of a smooth map or of noise."""
    generator = torch.Generator().manual_seed(1)
    size = (4, 5) if smooth else (height, width)
    importance = torch.rand(1, 1, *size, generator=generator)
    importance = torch.nn.functional.interpolate(importance, (height, width), mode="bicubic")
    return importance <= importance.quantile(1 - share)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("smooth", [True, False])
def test_a_sparse_solver_gives_the_same(share, smooth):
    (image,) = images(1, height=61, width=50)
    known = masks(61, 50, share, smooth)
    expected = exact(image, known[0, 0])
    imputed = impute(image[None], known)[0]
    assert torch.equal(imputed[:, known[0, 0]], image[:, known[0, 0]])
    difference = (imputed - expected).abs()
    assert difference.max() < 0.02
    assert difference.mean() < 0.001


def test_small_images_are_solved_exactly():
    batch = images(4, channels=2, height=9, width=13).double()
    known = torch.rand(4, 1, 9, 13) > 0.7
    expected = torch.stack(
        [exact(image, mask[0]) for image, mask in zip(batch, known, strict=True)]
    )
    torch.testing.assert_close(impute(batch, known), expected, atol=1e-9, rtol=0)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 3),
    st.floats(0.0, 1.0),
    st.floats(-3, 3),
    st.integers(0, 99),
)
def test_imputed_values_stay_between_known_ones_and_follow_affine_maps(
    height, width, channels, share, offset, seed
):
    generator = torch.Generator().manual_seed(seed)
    # In single precision a system with one known pixel loses four digits.
    batch = torch.rand(3, channels, height, width, generator=generator, dtype=torch.float64)
    known = torch.rand(3, 1, height, width, generator=generator) < share
    known[:, :, height // 2, width // 3] = True
    imputed = impute(batch, known)
    assert torch.isfinite(imputed).all()
    shown = torch.where(known, batch, torch.nan).flatten(2)
    low = shown.nan_to_num(torch.inf).amin(2)[..., None, None]
    high = shown.nan_to_num(-torch.inf).amax(2)[..., None, None]
    assert ((imputed >= low - 0.03) & (imputed <= high + 0.03)).all()
    torch.testing.assert_close(
        impute(batch * 2 + offset, known), imputed * 2 + offset, atol=1e-3, rtol=1e-4
    )
    for i in range(3):
        alone = impute(batch[i : i + 1], known[i : i + 1])
        torch.testing.assert_close(alone, imputed[i : i + 1], atol=1e-4, rtol=1e-4)


def exact_in_one_go(images, known):
    """As ``exact``, for images (C, H, W) of one mask (H, W), with slices instead of loops."""
    _, height, width = images.shape
    number = np.arange(height * width).reshape(height, width)
    neighbours = csr_matrix((height * width, height * width))
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = number[: height - dy, max(0, -dx) : width - max(0, dx)].ravel()
        there = number[dy:, max(0, dx) : width - max(0, -dx)].ravel()
        weight = np.full(len(here), 1 / 12 if dy * dx else 1 / 6)
        pairs = csr_matrix((weight, (here, there)), shape=neighbours.shape)
        neighbours = neighbours + pairs + pairs.T
    system = diags(np.asarray(neighbours.sum(1)).ravel()) - neighbours
    missing = ~known.numpy().ravel()
    values = images.double().flatten(1).numpy().T.copy()
    right_side = neighbours[missing][:, ~missing] @ values[~missing]
    values[missing] = spsolve(system[missing][:, missing].tocsc(), right_side)
    return torch.from_numpy(values.T.reshape(images.shape))


def test_both_ways_to_the_exact_solution_agree():
    image, known = images(1, height=13, width=11)[0].double(), masks(13, 11, 0.7, False)[0, 0]
    torch.testing.assert_close(exact_in_one_go(image, known), exact(image, known))


@pytest.mark.parametrize("size", range(20, 71))
def test_a_sparse_solver_gives_the_same_for_every_size(size):
    """Odd sizes were off by up to 7%: corrections of coarse grids were stretched, not doubled."""
    image = torch.cat([images(1, height=size, width=size)[0], torch.rand(1, size, size)])
    for share, smooth in ((0.9, False), (0.95, False), (0.5, True), (0.9, True)):
        known = masks(size, size, share, smooth)
        expected = exact_in_one_go(image, known[0, 0])
        difference = (impute(image[None], known)[0] - expected).abs()
        assert difference.max() < 0.02
        assert difference.mean() < 0.001
