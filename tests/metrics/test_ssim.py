import piq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from captum_advise.metrics import ssim


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([1, 3]),
    st.integers(0, 100),
)
def test_piq_gives_the_same(size, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, channels, *size, generator=generator, dtype=torch.float64)
    others = images * torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    side = min(11, *size)
    window = side if side % 2 else side - 1
    expected = piq.ssim(images, others, window, reduction="none", downsample=False)
    torch.testing.assert_close(ssim(images, others), expected, rtol=0, atol=1e-10)
    single = ssim(images.float(), others.float())
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-3)


def test_scikit_image_gives_the_same():
    image, other = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    expected = structural_similarity(
        *(tensor.numpy() for tensor in (image, other)),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1][:, 5:-5, 5:-5].mean()
    assert ssim(image[None], other[None]).item() == pytest.approx(expected)
