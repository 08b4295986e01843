"""What SSIM and FSIM have in common."""

import pytest
import torch

from captum_advise.metrics import fsim, ssim

pytestmark = pytest.mark.parametrize("similarity", [ssim, fsim])


def test_they_are_batch_first(similarity):
    first, second = torch.rand(3, 3, 24, 20), torch.rand(3, 3, 24, 20)
    together = similarity(first, second)
    alone = torch.cat([similarity(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(similarity(first, first), torch.ones(3))


def test_small_and_grey_images(similarity):
    small = torch.rand(2, 1, 8, 9)
    torch.testing.assert_close(similarity(small, small), torch.ones(2))


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (torch.rand(1, 3, 16, 15), "one shape"),
        (torch.rand(1, 3, 16, 16) + 0.5, "lie in"),
        (torch.full((1, 3, 16, 16), float("nan")), "lie in"),
    ],
)
def test_bad_input(similarity, first, message):
    with pytest.raises(ValueError, match=message):
        similarity(first, torch.rand(1, 3, 16, 16))
