"""The protocol's parts against the authors' FSIM program, other libraries and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hmean, pearsonr
from skimage.metrics import structural_similarity

from captum_advise.metrics import (
    Protocol,
    VisualExplainability,
    average_drop,
    class_sensitivity,
    fsim,
    hit,
    increase_in_confidence,
    mse,
    ssim,
    visual_explainability,
)

REFERENCE = np.load(Path(__file__).parents[1] / "golden" / "fsim_reference.npz")
unit = st.floats(0, 1, width=32)


def picture(name):
    return torch.from_numpy(REFERENCE[name]).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("number", range(6))
def test_fsim_golden(number):
    distorted, reference = picture(f"distorted_{number}"), picture(f"reference_{number}")
    assert abs(fsim(distorted, reference).item() - REFERENCE["fsimc"][number]) < 5e-4
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = [(p * luminance).sum(1, keepdim=True) for p in (distorted, reference)]
    assert abs(fsim(*grey).item() - REFERENCE["fsim"][number]) < 5e-4


@pytest.mark.parametrize("number", range(6))
def test_ssim_against_scikit_image(number):
    first, second = REFERENCE[f"distorted_{number}"], REFERENCE[f"reference_{number}"]
    # The same Gaussian window; scikit-image crops the border as piq's valid convolution does.
    expected = structural_similarity(
        first,
        second,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    ours = ssim(picture(f"distorted_{number}"), picture(f"reference_{number}")).item()
    assert abs(ours - expected) < 5e-3


def test_mse_by_numpy():
    first, second = torch.rand(3, 3, 5, 6), torch.rand(3, 3, 5, 6)
    expected = ((first.numpy() - second.numpy()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(mse(first, second).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("function", [ssim, fsim])
def test_similarity_is_batch_first(function):
    first, second = torch.rand(3, 3, 24, 20), torch.rand(3, 3, 24, 20)
    together = function(first, second)
    alone = torch.cat([function(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(function(first, first), torch.ones(3))


def test_small_and_grey_pictures():
    small = torch.rand(2, 1, 8, 9)
    torch.testing.assert_close(ssim(small, small), torch.ones(2))
    torch.testing.assert_close(fsim(small, small), torch.ones(2))


@pytest.mark.parametrize("function", [ssim, fsim])
@pytest.mark.parametrize(
    ("first", "message"),
    [
        (torch.rand(1, 3, 16, 15), "one shape"),
        (torch.rand(1, 3, 16, 16) + 0.5, "lie in"),
        (torch.full((1, 3, 16, 16), float("nan")), "lie in"),
    ],
)
def test_similarity_bad_input(function, first, message):
    with pytest.raises(ValueError, match=message):
        function(first, torch.rand(1, 3, 16, 16))


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=5))
def test_confidence_parts_by_hand(pairs):
    before, after = torch.tensor(pairs).T
    drops = average_drop(before, after)
    for (y, o), drop, grown in zip(
        pairs, drops, increase_in_confidence(before, after), strict=True
    ):
        assert drop == pytest.approx(max(0.0, y - o) / y if y > 0 else 0.0, abs=1e-6)
        assert bool(grown) == (o > y)


@given(st.lists(unit, min_size=7, max_size=7), st.integers(0, 6), st.integers(1, 7))
def test_hit_is_top_k(confidences, target, top):
    better = sum(c > confidences[target] for c in confidences)
    found = hit(torch.tensor([confidences]), torch.tensor([target]), top=top)
    assert found.tolist() == [better < top]


def test_hit_refuses_no_classes():
    with pytest.raises(ValueError, match="at least 1"):
        hit(torch.rand(1, 3), torch.tensor([0]), top=0)


def test_class_sensitivity_by_scipy():
    first, second = torch.rand(4, 1, 7, 7), torch.rand(4, 1, 7, 7)
    ours = class_sensitivity(first, second)
    for i in range(4):
        expected = pearsonr(first[i].flatten().numpy(), second[i].flatten().numpy()).statistic
        assert ours[i].item() == pytest.approx(expected, abs=1e-5)
    assert class_sensitivity(torch.ones(1, 4), torch.rand(1, 4)).item() == 0
    with pytest.raises(ValueError, match="same shape"):
        class_sensitivity(torch.ones(1, 4), torch.ones(1, 5))


def scored(o, sensitivity=0.0, protocol=None, rank=0):
    """A picture and a darker one, y = 0.6 for class 0, o for it in the explanation."""
    torch.manual_seed(1)
    pictures = torch.rand(1, 3, 20, 20)
    others = torch.full((rank,), (1 - o) / 10 + o)
    explained = torch.cat([torch.tensor([o]), others, torch.zeros(9 - rank)])[None]
    confidences = torch.tensor([[0.6] + [0.05] * 8 + [0.0]])
    return visual_explainability(
        pictures,
        0.7 * pictures,
        confidences,
        explained,
        torch.tensor([0]),
        torch.tensor([sensitivity]),
        protocol or Protocol(),
    )


def test_avx_is_the_harmonic_mean():
    result = scored(0.45)
    assert result.hit.item()
    assert result.average_drop.item() == pytest.approx(0.25)
    parts = [result.ssim.item(), result.fsim.item(), 1 - result.mse.item(), 0.75]
    assert result.avx.item() == pytest.approx(hmean(parts), rel=1e-5)


def test_penalty_on_a_miss():
    result = scored(0.05, rank=6)
    assert not result.hit.item()
    factor = 1 - 0.55
    drop, error = result.average_drop.item() * factor, result.mse.item() * factor
    parts = [result.ssim.item() * factor, result.fsim.item() * factor, 1 - error, 1 - drop]
    assert result.avx.item() == pytest.approx(hmean(parts), rel=1e-5)
    assert scored(0.05, sensitivity=0.55, rank=6).avx > 0
    assert scored(0.05, sensitivity=-0.6, rank=6).avx == 0
    assert scored(0.05, sensitivity=0.9, rank=6).avx == 0
    assert scored(0.45, sensitivity=0.9).avx > 0


def test_reference_protocol():
    reference = Protocol.reference()
    assert reference.masks(torch.tensor([0.2, 0.51])).tolist() == [0.0, 1.0]
    assert scored(0.05, protocol=reference, rank=6).average_drop < scored(0.05, rank=6).average_drop
    assert scored(0.05, protocol=reference, rank=6).average_drop.item() == pytest.approx(
        (0.6 - 0.145) / 0.6
    )


def test_nothing_kept_scores_zero():
    """An SSIM below zero has no harmonic mean."""
    torch.manual_seed(0)
    pictures = torch.rand(1, 3, 32, 32)
    confidences = torch.tensor([[1.0, 0.0]])
    result = visual_explainability(
        pictures, 1 - pictures, confidences, confidences, torch.tensor([0]), torch.zeros(1)
    )
    assert result.ssim < 0
    assert result.avx == 0


def test_result_container():
    one, two = scored(0.3), scored(0.5)
    both = VisualExplainability.concatenate([one, two])
    assert both.avx.shape == (2,)
    assert both[1].avx == two.avx[0]
    assert both.to("cpu").to_dict()["hit"] == [True, True]


@given(st.floats(0.02, 0.98), st.floats(0, 0.3), st.floats(-1, 1))
def test_avx_grows_with_the_confidence_kept(o, gain, sensitivity):
    more = min(1.0, o + gain)
    assert scored(more, sensitivity).avx >= scored(o, sensitivity).avx - 1e-6
    assert 0 <= scored(o, sensitivity).avx <= 1
