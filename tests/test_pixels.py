"""Pixel spaces, masks and upsampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import Normalize

from captum_advise import PixelSpace
from captum_advise.pixels import masked_images, normalize_maps, upsample_maps, value_range

finite = st.floats(-1e3, 1e3, width=32)


def keys_bicubic(row, size):
    """Keys' cubic convolution with a = -0.5, one dimension, in plain NumPy."""

    def weight(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    result = []
    for k in range(size):
        centre = (k + 0.5) * len(row) / size - 0.5
        taps = range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3)
        inside = [i for i in taps if 0 <= i < len(row)]
        weights = np.array([weight(centre - i) for i in inside])
        result.append(float(weights @ row[inside] / weights.sum()))
    return np.array(result)


def test_upsampling_is_bicubic_with_a_half():
    rng = np.random.default_rng(0)
    maps = rng.random((5, 4))
    columns = np.stack([keys_bicubic(column, 20) for column in maps.T], 1)
    expected = np.stack([keys_bicubic(row, 16) for row in columns])
    ours = upsample_maps(torch.from_numpy(maps)[None, None], (20, 16))[0, 0].numpy()
    np.testing.assert_allclose(ours, expected.clip(0, 1), atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((2, 1, 5), (9,)), ((2, 1, 3, 4, 2), (6, 8, 4))])
def test_other_ranks_keep_constants(shape, size):
    assert torch.allclose(upsample_maps(torch.full(shape, 0.3), size), torch.tensor(0.3))


def test_upsampling_refuses_mismatched_ranks():
    with pytest.raises(ValueError, match="spatial dimensions"):
        upsample_maps(torch.zeros(1, 1, 4, 4), (8,))


def test_pixel_space_is_the_inverse_of_normalize():
    images = torch.rand(2, 3, 4, 5)
    space = PixelSpace.imagenet()
    inputs = Normalize(space.mean, space.std)(images)
    torch.testing.assert_close(space.from_pixels(images), inputs)
    torch.testing.assert_close(space.to_pixels(inputs), images)
    assert torch.equal(PixelSpace.identity().to_pixels(images), images)


@given(
    st.lists(finite, min_size=3, max_size=3), st.lists(st.floats(0.01, 100), min_size=3, max_size=3)
)
def test_pixel_space_round_trip(mean, std):
    pixels = torch.linspace(0, 1, 12, dtype=torch.float64).view(1, 3, 2, 2)
    space = PixelSpace(tuple(mean), tuple(std))
    torch.testing.assert_close(
        space.to_pixels(space.from_pixels(pixels)), pixels, atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((), (), "one mean"), ((0.5,), (0.5, 0.5), "one mean"), ((0.5,), (0.0,), "positive")],
)
def test_bad_pixel_space(mean, std, message):
    with pytest.raises(ValueError, match=message):
        PixelSpace(mean, std)


def test_pixel_space_refuses_other_channels():
    with pytest.raises(ValueError, match="3 channels"):
        PixelSpace.imagenet().to_pixels(torch.zeros(1, 1, 4, 4))


@given(st.lists(finite, min_size=4, max_size=4), st.sampled_from([0.125, 4.0, 1024.0]))
def test_normalized_maps_span_the_unit_range(values, scale):
    maps = torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)
    normal = normalize_maps(maps)
    if len(set(values)) > 1:
        assert normal.min() == 0
        assert normal.max() == 1
        assert torch.equal(normalize_maps(maps * scale), normal)
    else:
        assert torch.equal(normal, torch.full_like(normal, float(values[0] > 0)))


def test_stretch_and_masking():
    inputs = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    lowest, highest = value_range(inputs)
    assert lowest.tolist() == [[1.0], [5.0]]
    assert highest.tolist() == [[3.0], [5.0]]
    images, masks = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    masked = masked_images(images, masks, torch.tensor(0.25))
    torch.testing.assert_close(masked, masks * images + (1 - masks) * 0.25)
    assert torch.equal(
        masked_images(images, torch.zeros(2, 1, 4, 4), images[:1]),
        images[:1].expand(2, -1, -1, -1),
    )


def test_pixel_space_takes_any_sequence_of_numbers():
    expected = PixelSpace((0.5, 0.25), (1.0, 2.0))
    assert PixelSpace([0.5, 0.25], torch.tensor([1.0, 2.0])) == expected
    assert hash(PixelSpace([0.5, 0.25], [1, 2])) == hash(expected)


@pytest.mark.parametrize(
    ("mean", "std", "error"),
    [
        (torch.tensor([]), (1.0,), ValueError),
        (torch.tensor([]), None, TypeError),
        (torch.zeros(2, 2), (1.0, 1.0), TypeError),
        (("black",), (1.0,), TypeError),
        (0.5, 1.0, TypeError),
        ((0.5,), (1j,), TypeError),
    ],
)
def test_pixel_space_of_what_are_no_numbers(mean, std, error):
    with pytest.raises(error, match="PixelSpace"):
        PixelSpace(mean, std)
