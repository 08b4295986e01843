import piq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_advise.metrics import fsim
from captum_advise.metrics.fsim import fsim_features, fsim_of_features


def test_the_authors_program_gives_the_same(golden, as_batch):
    *images, expected, expected_with_colour = golden
    distorted, reference = map(as_batch, images)
    assert abs(fsim(distorted, reference).item() - expected_with_colour) < 5e-4
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = [(image * luminance).sum(1, keepdim=True) for image in (distorted, reference)]
    assert abs(fsim(*grey).item() - expected) < 5e-4


@given(
    st.tuples(st.integers(2, 70), st.integers(2, 70)) | st.just((300, 520)),
    st.sampled_from([1, 3]),
    st.integers(0, 100),
)
def test_piq_gives_the_same(size, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, channels, 6, 6, generator=generator, dtype=torch.float64)
    images = nn.functional.interpolate(coarse, size, mode="bilinear")
    others = images * torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    expected = piq.fsim(images, others, reduction="none", chromatic=channels == 3)
    torch.testing.assert_close(fsim(images, others), expected, rtol=0, atol=1e-12, equal_nan=True)
    single = fsim(images.float(), others.float())
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-3, equal_nan=True)


def test_features_are_computed_once_for_many_comparisons():
    images, others = torch.rand(2, 3, 40, 30), torch.rand(5, 3, 40, 30)
    which = torch.tensor([0, 1, 1, 0, 1])
    together = fsim_of_features(fsim_features(others), fsim_features(images)[which])
    torch.testing.assert_close(together, fsim(others, images[which]))


def test_black_and_constant_images():
    black, grey = torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.5)
    for pair in ((black, grey), (grey, grey), (black, torch.rand(1, 3, 32, 32))):
        expected = piq.fsim(*pair, reduction="none")
        torch.testing.assert_close(fsim(*pair), expected, rtol=0, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("size", [(1, 16), (1, 7), (16, 1), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_row_or_column(size, channels):
    # Piq and the authors' program divide zero by zero.
    images, others = torch.rand(2, 3, channels, *size)
    torch.testing.assert_close(fsim(images, images), torch.ones(3))
    value = fsim(images, others)
    torch.testing.assert_close(value, fsim(others, images))
    # A single grey pixel has neither gradient nor colour.
    is_same = (*size, channels) == (1, 1, 1)
    assert ((value > 0) & ((value == 1) if is_same else (value < 1))).all()


def test_constant_rows_differ_at_the_border_alone():
    """No filter passes a constant, and Scharr's sees the zeros around the image."""
    images, others = (torch.full((1, 1, 1, 8), grey, dtype=torch.float64) for grey in (0.2, 0.6))
    at_border, at_others = (10 * 255 * grey / 16 for grey in (0.2, 0.6))
    similarity = (2 * at_border * at_others + 160) / (at_border**2 + at_others**2 + 160)
    assert fsim(images, others).item() == pytest.approx((6 + 2 * similarity) / 8)
