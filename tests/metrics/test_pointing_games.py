from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence

from captum_advise.metrics import energy_pointing_game, pointing_game, top_pixels

SEEDS = st.integers(0, 99)
INCREASING = st.sampled_from([torch.sqrt, torch.square, torch.exp, lambda m: 3 * m])


def random_maps(seed, n_maps=1, size=12):
    generator = torch.Generator().manual_seed(seed)
    # Coarse values, so that there are ties.
    return torch.rand(2, n_maps, size, size, generator=generator, dtype=torch.float64).round(
        decimals=1
    )


def random_masks(seed, size=12):
    generator = torch.Generator().manual_seed(seed + 1)
    masks = torch.rand(2, 1, size, size, generator=generator) > 0.6
    masks[:, :, 0, 0] = True
    return masks


def cell_masks(cells, side=2, size=12):
    """The cells (N,) of mosaics of side x side cells."""
    masks = torch.zeros(len(cells), 1, size, size, dtype=torch.bool)
    edge = size // side
    for mask, cell in zip(masks, cells, strict=True):
        row, column = divmod(int(cell), side)
        mask[0, row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = True
    return masks


def rectangle(left, top, right, bottom, size):
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("point", "tolerance", "hit"),
    [((3, 8), 5, 1), ((3, 9), 5, 0), ((7, 7), 5, 0), ((7, 7), 6, 1), ((0, 3), 3, 1)],
)
def test_the_tolerance_is_a_distance(point, tolerance, hit):
    """To the pixel (3, 3); (7, 7) is 5.66 pixels away."""
    maps = torch.zeros(1, 1, 12, 12)
    maps[0, 0, point[0], point[1]] = 1
    region = rectangle(3, 3, 4, 4, 12)
    assert pointing_game(maps, region, tolerance=tolerance).item() == hit


def test_tied_maxima_count_in_equal_parts():
    maps = torch.zeros(1, 1, 4, 4)
    maps[..., 0, :] = 1
    assert pointing_game(maps, rectangle(0, 0, 1, 4, 4), tolerance=0).item() == 0.25


def test_grid_by_hand():
    """The highest four of sixteen are 9, 8 and two of the four 5s, one of which is in the cell."""
    maps = torch.tensor([[9.0, 5, 8, 5], [1, 0, 5, 5], [0, 0, 0, 0], [0, 0, 0, -7]])[None, None]
    assert energy_pointing_game(maps, cell_masks([0], size=4)).item() == pytest.approx(15 / 38)
    by_cell = [top_pixels(maps, cell_masks([cell], size=4)).item() for cell in range(4)]
    assert by_cell == pytest.approx([1.5 / 4, 2.5 / 4, 0, 0])


@given(SEEDS, st.sampled_from([2, 3, 4]))
def test_cells_share_a_map(seed, side):
    maps = random_maps(seed)
    for function in (energy_pointing_game, top_pixels):
        values = torch.stack(
            [function(maps, cell_masks([cell, cell], side)) for cell in range(side**2)]
        )
        assert ((values >= 0) & (values <= 1)).all()
        torch.testing.assert_close(values.sum(0), torch.ones_like(values[0]), check_dtype=False)


@given(SEEDS, INCREASING)
def test_ranks_alone_count_for_the_maximum_and_the_highest_pixels(seed, transform):
    maps, masks = random_maps(seed, 2), random_masks(seed)
    changed = transform(maps)
    assert torch.equal(pointing_game(maps, masks), pointing_game(changed, masks))
    assert torch.equal(top_pixels(maps, masks), top_pixels(changed, masks))


@given(SEEDS)
def test_batches_can_be_permuted_and_maps_split(seed):
    maps, masks = random_maps(seed, 3), random_masks(seed)
    for function in (partial(pointing_game, tolerance=1), energy_pointing_game, top_pixels):
        together = function(maps, masks)
        assert together.shape == (2, 3)
        assert torch.equal(function(maps.flip(0), masks.flip(0)).flip(0), together)
        assert torch.equal(function(maps[:, [1]], masks), together[:, 1])
        # Scaling a map changes nothing.
        torch.testing.assert_close(function(4 * maps, masks), together)


def test_sharpening_raises_the_mass_and_not_the_highest_pixels():
    maps = torch.rand(1, 1, 8, 8)
    maps[..., :4, :4] += 0.3
    cell = cell_masks([0], size=8)
    assert energy_pointing_game(maps**3, cell) > energy_pointing_game(maps, cell)
    assert top_pixels(maps**3, cell) == top_pixels(maps, cell)


def test_maps_without_mass():
    maps = torch.zeros(1, 1, 4, 4)
    assert energy_pointing_game(maps - 1, rectangle(0, 0, 2, 2, 4)).item() == 0
    cell = cell_masks([2], size=4)
    assert (energy_pointing_game(maps, cell).item(), top_pixels(maps, cell).item()) == (0, 0.25)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda m: pointing_game(m, torch.zeros(1, 3)), "need regions that are masks"),
        (lambda m: pointing_game(m, torch.ones(1, 1, 3, 3, dtype=torch.bool)), "need regions"),
        (lambda m: pointing_game(m, torch.ones(2, 4)), "need regions"),
        (lambda m: pointing_game(m[0], torch.ones(1, 4)), r"maps must be \(N, M, H, W\)"),
        (lambda m: energy_pointing_game(m, rectangle(0, 0, 0, 0, 8)), "holds no pixel"),
        (lambda m: top_pixels(m, torch.zeros(1, 1, 8, 8, dtype=torch.bool)), "holds no pixel"),
        (lambda m: pointing_game(m, m > 0, tolerance=-1), "tolerance must be at least"),
    ],
)
def test_arguments_are_checked(call, what):
    with pytest.raises((TypeError, ValueError), match=what) as error:
        call(torch.rand(1, 1, 8, 8))
    one_sentence(error)
