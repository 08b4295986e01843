"""Evidence from occlusion against regression by hand, and on losses that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence
from toy_networks import Apply, images, network

from captum_advise import GatedGradCam, PixelSpace
from captum_advise._core.occlusion_evidence import occlusion_evidence, occlusions
from captum_advise.metrics.insertion_deletion import blurred
from captum_advise.pixels import normalize_maps

SIZE = (56, 42)
EVEN = st.integers(2, 16).map(lambda pairs: 2 * pairs)


def region(top, left, height=14, width=12):
    cells = torch.zeros(1, 1, *SIZE)
    cells[..., top : top + height, left : left + width] = 1
    return cells


@given(n=EVEN, height=st.integers(5, 60), width=st.integers(5, 60))
def test_regions_come_in_pairs_that_hide_the_whole_image_once(n, height, width):
    hidden, is_blurred = occlusions(n, (height, width))
    assert hidden.shape == (n, 1, height, width)
    assert hidden.min() >= 0
    assert hidden.max() <= 1
    torch.testing.assert_close(hidden[::2] + hidden[1::2], torch.ones_like(hidden[::2]))
    assert torch.equal(is_blurred[::2], is_blurred[1::2])
    assert is_blurred.any()
    assert not is_blurred.all()
    share = (hidden > 0.5).float().mean((1, 2, 3))
    assert (share - 0.5).abs().max() <= 0.5 / 5


@given(seed=st.integers(0, 2**31), n=EVEN)
def test_regions_neither_depend_on_the_random_state_nor_change_it(seed, n):
    expected = occlusions(n, SIZE).hidden
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    assert torch.equal(occlusions(n, SIZE).hidden, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_regression_by_hand():
    regions = occlusions(12, SIZE)
    generator = torch.Generator().manual_seed(1)
    prior = torch.rand(2, 1, *SIZE, generator=generator, dtype=torch.float64)
    confidences = torch.rand(2, 12, generator=generator, dtype=torch.float64)
    hidden = F.adaptive_avg_pool2d(regions.hidden.double(), 14).flatten(1).numpy() / 196
    for fill in (regions.is_blurred.numpy(), ~regions.is_blurred.numpy()):
        hidden[fill] -= hidden[fill].mean(0)
    centres = (np.stack(np.mgrid[:14, :14], -1).reshape(-1, 2) + 0.5) / 14
    squares = ((centres[:, None] - centres[None]) ** 2).sum(2)
    kernel = np.exp(-squares / (2 * 0.1**2))
    kernel /= np.einsum("si,ij,sj->s", hidden, kernel, hidden).mean()
    for example in range(2):
        loss = -confidences[example].log().numpy()
        for fill in (regions.is_blurred.numpy(), ~regions.is_blurred.numpy()):
            loss[fill] = (loss[fill] - loss[fill].mean()) / loss[fill].std()
        mean = F.adaptive_avg_pool2d(prior[example], 14).flatten().numpy()
        predicted = hidden @ mean
        mean = mean * max(0, (predicted @ loss) / (predicted @ predicted))
        noisy = hidden @ kernel @ hidden.T + np.eye(12)
        posterior = mean + kernel @ hidden.T @ np.linalg.solve(noisy, loss - hidden @ mean)
        positive = torch.from_numpy(posterior.clip(0)).view(1, 1, 14, 14)
        larger = F.interpolate(positive, SIZE, mode="bicubic", antialias=True).clamp(min=0)
        expected = (larger - larger.min()) / (larger.max() - larger.min())
        evidence = occlusion_evidence(prior, confidences, regions)[example][None]
        torch.testing.assert_close(evidence, expected, rtol=1e-6, atol=1e-6)


@given(top=st.integers(0, 42), left=st.integers(0, 30))
def test_evidence_finds_what_the_prior_misses(top, left):
    regions = occlusions(64, SIZE)
    true = region(top, left)
    lost = (regions.hidden * true).sum((1, 2, 3)) / true.sum()
    wrong = 1 - true
    evidence = occlusion_evidence(wrong, (-3 * lost).exp()[None], regions)
    inside = (evidence * true).sum() / true.sum()
    outside = (evidence * wrong).sum() / wrong.sum()
    assert inside > 2 * outside


@given(factor=st.floats(1e-3, 1))
def test_only_differences_between_regions_count(factor):
    regions = occlusions(16, SIZE)
    prior, confidences = torch.rand(1, 1, *SIZE), torch.rand(1, 16) * 0.9 + 0.1
    expected = occlusion_evidence(prior, confidences, regions)
    scaled = torch.where(regions.is_blurred, factor * confidences, confidences)
    torch.testing.assert_close(
        occlusion_evidence(prior, scaled, regions), expected, rtol=1e-3, atol=1e-4
    )


def test_no_differences_give_no_evidence():
    evidence = occlusion_evidence(torch.rand(2, 1, *SIZE), torch.ones(2, 16), occlusions(16, SIZE))
    assert not evidence.any()


class Misleading(torch.nn.Module):
    """Only one quarter of an image counts, and the rest has higher gradients."""

    def __init__(self):
        super().__init__()
        self.finer, self.last = Apply(lambda x: x * 1), Apply(lambda x: x * 1)

    def forward(self, x):
        features = self.last(self.finer(x))
        quarter = features[..., :16, :16].mean((1, 2, 3))
        with_gradient = 4 * features.mean((1, 2, 3)) - 0.1 * quarter
        score = 4 * (with_gradient + (quarter - with_gradient).detach()) - 8
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_the_map_of_a_model_with_misleading_gradients():
    inputs = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.8
    # Some black pixels, so that stretching the prior does not set the quarter to zero.
    inputs[..., ::8, ::8] = 0
    net = Misleading()
    gated = GatedGradCam(net, [net.finer, net.last], pixel_space=PixelSpace.identity())
    quarter = torch.zeros(32, 32, dtype=torch.bool)
    quarter[:16, :16] = True
    before, after = gated.attribute(inputs, 0), gated.attribute(inputs, 0, n_occlusions=64)
    for image in range(2):
        assert before[image, 0, quarter].mean() < before[image, 0, ~quarter].mean()
        assert after[image, 0, quarter].mean() > after[image, 0, ~quarter].mean()


def model():
    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.finer = torch.nn.Conv2d(3, 8, 3, padding=1, stride=2)
            self.last = torch.nn.Conv2d(8, 12, 3, padding=1, stride=2)
            self.head = torch.nn.Linear(12, 5)
            self.head.weight.data += 0.2

        def forward(self, x):
            return self.head(self.last(self.finer(x).relu()).relu().mean((2, 3)) * 5)

    return network(Toy)


NET = model()
LAYERS = [NET.finer, NET.last]
INPUTS = images(4, height=20, width=26)


def test_the_correction_by_hand():
    space = PixelSpace((0.5,) * 3, (0.25,) * 3)
    inputs = space.from_pixels(torch.rand(2, 3, 20, 26, generator=torch.Generator().manual_seed(2)))
    hidden, is_blurred = occlusions(16, (20, 26))
    target, fills = torch.tensor([1, 3]), []
    for region, blur in zip(hidden, is_blurred, strict=True):
        fill = blurred(inputs) if blur else torch.full_like(inputs, -2.0)
        with torch.no_grad():
            fills.append(NET(region * fill + (1 - region) * inputs).softmax(1)[[0, 1], target])
    prior = normalize_maps(GatedGradCam(NET, LAYERS).attribute(inputs, target))
    evidence = occlusion_evidence(prior, torch.stack(fills, 1), occlusions(16, (20, 26)))
    maps = GatedGradCam(NET, LAYERS, pixel_space=space).attribute(inputs, target, n_occlusions=16)
    torch.testing.assert_close(maps, prior * (0.2 + 0.8 * evidence), rtol=1e-3, atol=1e-4)


def test_without_evidence_nothing_changes():
    maps = GatedGradCam(NET, LAYERS).attribute(INPUTS, 1)
    space = PixelSpace.identity()
    same = GatedGradCam(NET, LAYERS, pixel_space=space).attribute(INPUTS, 1, n_occlusions=0)
    assert torch.equal(maps, same)


@given(
    chosen=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    n_occlusions=EVEN,
    internal_batch_size=st.integers(1, 40),
)
def test_a_map_depends_neither_on_the_batch_nor_on_its_chunks(
    chosen, n_occlusions, internal_batch_size
):
    gated = GatedGradCam(NET, LAYERS)
    together = gated.attribute(INPUTS, 1, n_occlusions=n_occlusions)
    maps = gated.attribute(
        INPUTS[chosen], 1, n_occlusions=n_occlusions, internal_batch_size=internal_batch_size
    )
    torch.testing.assert_close(maps, together[chosen], rtol=1e-3, atol=1e-4)


@given(n_occlusions=EVEN)
def test_the_same_call_gives_the_same_bits(n_occlusions):
    gated = GatedGradCam(NET, LAYERS)
    first, second = (gated.attribute(INPUTS, 1, n_occlusions=n_occlusions) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize(("internal_batch_size", "most"), [(None, 4), (3, 3), (8, 8)])
def test_the_number_of_passes(internal_batch_size, most):
    rows = []

    def counted(x):
        rows.append(len(x))
        return NET(x)

    GatedGradCam(counted, LAYERS).attribute(
        INPUTS, 1, n_occlusions=16, internal_batch_size=internal_batch_size
    )
    assert sum(rows) == 4 + 4 * 16
    assert max(rows[1:]) == most


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-3), (torch.bfloat16, 0.4)])
def test_dtypes(dtype, tolerance):
    expected = GatedGradCam(NET, LAYERS).attribute(INPUTS, 1, n_occlusions=16)
    net = model().to(dtype)
    maps = GatedGradCam(net, [net.finer, net.last]).attribute(INPUTS.to(dtype), 1, n_occlusions=16)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(maps.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda():
    expected = GatedGradCam(NET, LAYERS).attribute(INPUTS, 1, n_occlusions=16)
    net = model().cuda()
    maps = GatedGradCam(net, [net.finer, net.last]).attribute(INPUTS.cuda(), 1, n_occlusions=16)
    assert maps.is_cuda
    torch.testing.assert_close(maps.cpu(), expected, rtol=1e-2, atol=1e-2)


def test_arguments_of_the_examples_and_of_black():
    shift = torch.arange(4.0)[:, None]
    gated = GatedGradCam(lambda x, bias, factor: NET(x) * factor + 0 * bias, LAYERS)
    maps = gated.attribute(INPUTS, 1, (shift, 1), n_occlusions=8)
    torch.testing.assert_close(maps, GatedGradCam(NET, LAYERS).attribute(INPUTS, 1, n_occlusions=8))
    lowest = INPUTS.amin((0, 1, 2, 3)).item()
    white = GatedGradCam(NET, LAYERS, pixel_space=PixelSpace((1 - lowest,) * 3, (1.0,) * 3))
    with pytest.warns(UserWarning, match="Under this pixel_space"):
        other = white.attribute(INPUTS + 5, 1, n_occlusions=8)
    assert other.isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_occlusions": 3}, ValueError, "n_occlusions must be 0, or an even number"),
        ({"n_occlusions": 2}, ValueError, "n_occlusions must be 0, or an even number"),
        ({"n_occlusions": -2}, ValueError, "n_occlusions must be at least 0"),
        ({"n_occlusions": 16.0}, TypeError, "n_occlusions must be an int"),
        ({"internal_batch_size": 0}, ValueError, "internal_batch_size must be at least 1"),
    ],
)
def test_arguments_that_do_not_suit(options, error, match):
    with pytest.raises(error, match=match) as raised:
        GatedGradCam(NET, LAYERS).attribute(INPUTS, 1, **options)
    one_sentence(raised)


@pytest.mark.filterwarnings("ignore:.* have no evidence for the target")
def test_images_of_one_pixel_hide_no_part():
    gated = GatedGradCam(NET, LAYERS)
    pixel = INPUTS[:, :, :1, :1]
    maps = gated.attribute(pixel, 1, n_occlusions=4)
    torch.testing.assert_close(maps > 0, gated.attribute(pixel, 1) > 0)


def test_models_and_inputs_that_do_not_suit():
    single = GatedGradCam(lambda x: NET(x)[:, :1], LAYERS)
    with pytest.raises(ValueError, match="n_occlusions needs class scores N x K") as raised:
        single.attribute(INPUTS, 0, n_occlusions=8)
    one_sentence(raised)
    two = GatedGradCam(lambda x, y: NET(x + y), LAYERS)
    with pytest.raises(ValueError, match="one input that holds images, and 2 do") as raised:
        two.attribute((INPUTS, INPUTS), 0, n_occlusions=8)
    one_sentence(raised)
    first = [True]

    def later_infinite(x):
        outputs = NET(x) if first else NET(x) * torch.nan
        first.clear()
        return outputs

    with pytest.raises(ValueError, match="occluded images are NaN") as raised:
        GatedGradCam(later_infinite, LAYERS).attribute(INPUTS, 0, n_occlusions=8)
    one_sentence(raised)
    with pytest.raises(TypeError, match="pixel_space must be") as raised:
        GatedGradCam(NET, LAYERS, pixel_space="imagenet")
    one_sentence(raised)
