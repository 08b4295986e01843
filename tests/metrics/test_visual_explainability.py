import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hmean

from captum_advise.metrics import AVXProtocol, VisualExplainability, visual_explainability
from captum_advise.metrics.visual_explainability import compare, highest_avx


def darkened(o, sensitivity=0.0, protocol=None, rank=0):
    """The metrics of a darker image, with confidence 0.6 in the whole image and o in it.

    ``rank`` classes have a higher confidence.
    """
    torch.manual_seed(1)
    images = torch.rand(1, 3, 20, 20)
    better = torch.full((rank,), (1 - o) / 10 + o)
    masked_confidences = torch.cat([torch.tensor([o]), better, torch.zeros(9 - rank)])[None]
    confidences = torch.tensor([[0.6] + [0.05] * 8 + [0.0]])
    return visual_explainability(
        images,
        0.7 * images,
        confidences,
        masked_confidences,
        torch.tensor([0]),
        torch.tensor([sensitivity]),
        protocol or AVXProtocol(),
    )


def test_avx_is_the_harmonic_mean():
    result = darkened(0.45)
    assert result.hit.item()
    assert result.average_drop.item() == pytest.approx(0.25)
    parts = [result.ssim.item(), result.fsim.item(), 1 - result.mse.item(), 0.75]
    assert result.avx.item() == pytest.approx(hmean(parts), rel=1e-5)


def test_penalty_on_a_miss():
    result = darkened(0.05, rank=6)
    assert not result.hit.item()
    factor = 1 - 0.55
    drop, error = result.average_drop.item() * factor, result.mse.item() * factor
    parts = [result.ssim.item() * factor, result.fsim.item() * factor, 1 - error, 1 - drop]
    assert result.avx.item() == pytest.approx(hmean(parts), rel=1e-5)
    assert darkened(0.05, sensitivity=0.55, rank=6).avx > 0
    assert darkened(0.05, sensitivity=-0.6, rank=6).avx == 0
    assert darkened(0.05, sensitivity=0.9, rank=6).avx == 0
    assert darkened(0.45, sensitivity=0.9).avx > 0


def test_reference_protocol():
    reference = AVXProtocol.reference()
    assert reference.masks(torch.tensor([0.2, 0.51])).tolist() == [0.0, 1.0]
    drop = darkened(0.05, protocol=reference, rank=6).average_drop
    assert drop < darkened(0.05, rank=6).average_drop
    assert drop.item() == pytest.approx((0.6 - 0.145) / 0.6)


def test_avx_is_zero_for_an_ssim_below_zero():
    """Negative numbers have no harmonic mean."""
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 32)
    confidences = torch.tensor([[1.0, 0.0]])
    result = visual_explainability(
        images, 1 - images, confidences, confidences, torch.tensor([0]), torch.zeros(1)
    )
    assert result.ssim < 0
    assert result.avx == 0


def test_results_can_be_joined_indexed_moved_and_converted():
    first, second = darkened(0.3), darkened(0.5)
    both = VisualExplainability.concatenate([first, second])
    assert both.avx.shape == (2,)
    assert both[1].avx == second.avx[0]
    assert both.to("meta").avx.is_meta
    assert both.to("cpu").to_dict()["hit"] == [True, True]
    assert both[0].to_dict()["hit"] is True


@given(st.floats(0.02, 0.98), st.floats(0, 0.3), st.floats(-1, 1))
def test_avx_grows_with_the_confidence(o, gain, sensitivity):
    more = min(1.0, o + gain)
    assert darkened(more, sensitivity).avx >= darkened(o, sensitivity).avx - 1e-6
    assert 0 <= darkened(o, sensitivity).avx <= 1


@given(
    *(st.floats(0, 1) for _ in range(3)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 9),
    st.booleans(),
)
def test_no_confidences_give_more_than_the_bound(ssim, fsim, mse, whole, masked, rank, reference):
    similarity = torch.tensor([[ssim], [fsim], [mse]])
    confidences = torch.tensor([[whole, *[0.0] * 9]])
    # So many classes are ahead of the target.
    masked_confidences = torch.tensor([[masked, *[1.0] * rank, *[0.0] * (9 - rank)]])
    protocol = AVXProtocol.reference() if reference else AVXProtocol()
    result = compare(
        *similarity,
        confidences,
        masked_confidences,
        torch.tensor([0]),
        torch.zeros(1),
        protocol,
    )
    assert result.avx <= highest_avx(*similarity) + 1e-6


@pytest.mark.parametrize("unknown", ["ssim", "fsim", "mse"])
def test_an_unknown_part_makes_avx_unknown_and_not_zero(unknown):
    parts = {"ssim": 0.9, "fsim": 0.8, "mse": 0.3}
    confidences, target = torch.tensor([[0.7, 0.3]]), torch.tensor([0])

    def avx(**values):
        similarity = (torch.tensor([values[name]]) for name in parts)
        return compare(
            *similarity, confidences, confidences, target, torch.zeros(1), AVXProtocol()
        ).avx

    assert avx(**parts).item() == pytest.approx(hmean([0.9, 0.8, 0.7, 1.0]))
    assert avx(**{**parts, unknown: torch.nan}).isnan()


def test_an_unknown_class_sensitivity_makes_the_avx_of_a_miss_unknown():
    assert darkened(0.05, sensitivity=torch.nan, rank=6).avx.isnan()
    assert darkened(0.45, sensitivity=torch.nan).avx > 0


@pytest.mark.parametrize("size", [(1, 40), (40, 1)])
def test_images_of_one_row_or_column_have_an_avx(size):
    images, confidences = torch.rand(2, 3, *size), torch.tensor([[0.7, 0.3]]).expand(2, 2)
    result = visual_explainability(
        images, 0.7 * images, confidences, confidences, torch.tensor([0, 1]), torch.zeros(2)
    )
    parts = zip(result.ssim.tolist(), result.fsim.tolist(), result.mse.tolist(), strict=True)
    expected = [hmean([ssim, fsim, 1 - mse, 1]) for ssim, fsim, mse in parts]
    assert result.avx.tolist() == pytest.approx(expected, rel=1e-5)
