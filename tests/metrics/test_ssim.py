from skimage.metrics import structural_similarity

from captum_advise.metrics import ssim


def test_scikit_image_gives_the_same(golden, as_batch):
    distorted, reference, *_ = golden
    # The same Gaussian window; scikit-image crops the border as piq's valid convolution does.
    expected = structural_similarity(
        distorted,
        reference,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert abs(ssim(as_batch(distorted), as_batch(reference)).item() - expected) < 5e-3
