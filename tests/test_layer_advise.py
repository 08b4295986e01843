"""LayerAdvise: its choice, its explanation, and that it leaves everything as it was."""

import copy
import warnings

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from torch import nn

from captum_advise import LayerAdvise, PixelSpace, Protocol, unit_relevance
from captum_advise.fitted_weights import hidden_cells
from captum_advise.metrics import (
    blurred,
    class_sensitivity,
    deletion_auc,
    insertion_auc,
    visual_explainability,
)
from captum_advise.pixels import explanation_pictures, normalize_maps, upsample_maps


class SmallNet(nn.Module):
    """Two convolutions and a head; the ReLU after the second works in place, as in torchvision."""

    def __init__(self, classes=7, inputs=3):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(inputs, 6, 3, padding=1, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(12, classes)

    def forward(self, x, shift=None):
        out = self.head(self.features(x).mean((2, 3)) * 5)
        return out if shift is None else out + shift


@pytest.fixture
def net():
    torch.manual_seed(3)
    return SmallNet().eval()


@pytest.fixture
def images():
    torch.manual_seed(4)
    coarse = torch.rand(5, 3, 6, 6)
    return nn.functional.interpolate(coarse, (24, 24), mode="bicubic", antialias=True).clamp(0, 1)


def layer(net):
    return net.features[3]


def advise(net, **options):
    return LayerAdvise(net, layer(net), pixel_space=PixelSpace.identity(), **options)


def groups_of(relevance, mine, helps):
    return {q: relevance == q for q in relevance.unique().tolist()}


def by_hand(net, image, target, sets=groups_of):
    """Candidates of one image with AVX, straight from the definition, without Captum."""
    stored = {}
    handle = layer(net).register_forward_hook(lambda _m, _i, out: stored.update(a=out.clone()))
    net(image)
    handle.remove()
    activations = stored["a"].detach().requires_grad_()
    scores = net.head(activations.relu().mean((2, 3)) * 5)
    confidences = scores.detach().softmax(1)
    runner_up = confidences.scatter(1, torch.tensor([[target]]), -1).argmax(1)

    def mean_gradient(c):
        (grad,) = torch.autograd.grad(scores[0, c], activations, retain_graph=True)
        return grad.mean((2, 3), keepdim=True)

    mine, other = (mean_gradient(c) * activations.detach() for c in (target, int(runner_up)))
    relevance = unit_relevance(activations)
    result = {}
    for q, kept in sets(relevance, mine, mean_gradient(target)[..., 0, 0] > 0).items():
        units = kept[..., None, None]
        signed = (mine * units).sum(1, keepdim=True)
        evidence, rival = signed.relu(), (other * units).sum(1, keepdim=True).relu()
        if evidence.max() == 0:
            continue
        mask = upsample_maps(normalize_maps(evidence), (24, 24))
        shown = explanation_pictures(image, mask, torch.zeros(()))
        result[q] = (
            signed,
            visual_explainability(
                image,
                shown,
                confidences,
                net(shown).detach().softmax(1),
                torch.tensor([target]),
                class_sensitivity(evidence, rival),
            ),
        )
    return result


def test_explainability_by_hand(net, images):
    for image in images:
        target = int(net(image[None]).argmax())
        candidates = by_hand(net, image[None], target)
        explanation = advise(net).explain(image[None])
        assert explanation.target.tolist() == [target]
        assert [c.relevance for c in explanation.candidates[0]] == list(candidates)
        for found in explanation.candidates[0]:
            expected = candidates[found.relevance][1]
            torch.testing.assert_close(found.scores.avx, expected.avx[0])
            torch.testing.assert_close(
                found.scores.class_sensitivity, expected.class_sensitivity[0]
            )
            assert explanation.unit_relevance[0, found.units].unique().item() == found.relevance
        best = max(candidates, key=lambda q: candidates[q][1].avx.item())
        assert explanation.selected.item() == best
        torch.testing.assert_close(explanation.attributions, candidates[best][0])
        torch.testing.assert_close(explanation.scores.avx, candidates[best][1].avx)
        smallest = min(candidates, key=lambda q: candidates[q][1].average_drop.item())
        confident = advise(net).explain(image[None], unit_selection="confidence")
        assert confident.selected.item() == smallest


def fitted_by_hand(net, image, target):
    """What "faithfulness" compares: weights from another solver, set by set."""

    def confidence(picture):
        return net(picture).softmax(1)[0, target].item()

    def residual(values, sizes):
        return values - np.polyval(np.polyfit(sizes, values, 3), sizes)

    def fit(groups, mine, losses, hidden):
        maps = np.stack([mine[0, units].sum(0).numpy() for units in groups])
        sizes = hidden.mean((1, 2))
        mass = np.array([[one[cells].sum() for one in maps] for cells in hidden])
        for odd in (0, 1):
            for column in mass.T:
                column[odd::2] = residual(column[odd::2], sizes[odd::2])
            rest = residual(losses[odd::2], sizes[odd::2])
            losses[odd::2] = rest / np.linalg.norm(rest)
        grad_cam = mass.sum(1)
        scale = grad_cam @ losses / (grad_cam @ grad_cam)
        if scale <= 0:
            return np.ones(len(groups))
        ridge = np.sqrt(0.01 * (grad_cam @ grad_cam) / len(groups)) * np.eye(len(groups))
        return lsq_linear(
            np.concatenate([mass, ridge]),
            np.concatenate([losses / scale, ridge.sum(1)]),
            (0, np.inf),
            tol=1e-14,
        ).x

    def candidates(relevance, mine, helps):
        hidden = hidden_cells(*mine.shape[-2:]).numpy()
        blur, left = blurred(image), []
        for place, cells in enumerate(hidden):
            # 24 x 24 pixels, 12 x 12 cells.
            pixels = torch.from_numpy(np.kron(cells, np.ones((2, 2)))) > 0
            filling = blur if place % 2 == 0 else torch.zeros_like(image)
            left.append(confidence(torch.where(pixels, filling, image)))
        losses = confidence(image) - np.array(left)
        logarithms = np.log(confidence(image)) - np.log(left)
        scores = relevance.unique().tolist()
        plain = [(relevance == q)[0] for q in scores]
        signed = [units & sign for units in plain for sign in (helps[0], ~helps[0])]
        found = {"all": torch.ones_like(relevance, dtype=torch.float32)}
        fits = {
            "signed, logarithm": (signed, logarithms),
            "signed": (signed, losses),
            "plain": (plain, losses),
        }
        for part in (1, 0.5, 0.25):
            for name, (groups, values) in fits.items():
                weights = fit(groups, mine, values.copy(), hidden)
                total = sum(w * units.float() for w, units in zip(weights, groups, strict=True))
                found[name, part] = 1 - part + part * total[None].float()
        return found

    return candidates


def test_faithfulness_by_hand(images):
    won = []
    for place, image in enumerate([*images, *images.flip(3), *images.flip(2)]):
        torch.manual_seed(place)
        net = SmallNet().eval()
        target = int(net(image[None]).argmax(1))
        sets = fitted_by_hand(net, image[None], target)
        candidates = by_hand(net, image[None], target, sets)
        black = torch.zeros(1, 3, 1, 1)
        measured = {}
        for name, (signed, scores) in candidates.items():
            mask = upsample_maps(normalize_maps(signed.relu()), (24, 24))
            classes = torch.tensor([target])
            inserted = insertion_auc(net, image[None], mask, classes, steps=8)
            deleted = deletion_auc(net, image[None], mask, classes, baselines=black, steps=8)
            measured[name] = torch.stack([scores.avx, inserted, -deleted])[:, 0].detach()
        gains = {name: values - measured["all"] for name, values in measured.items()}
        best = max(gain[1:].sum() for gain in gains.values() if (gain > -5e-6).all())
        explanation = advise(net).explain(image[None], unit_selection="faithfulness")
        # By name, as rounding may decide between two that are equally good.
        found = explanation.attributions
        kept = min(candidates, key=lambda name: (candidates[name][0] - found).abs().sum())
        torch.testing.assert_close(found, candidates[kept][0].detach(), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(
            explanation.scores.avx, candidates[kept][1].avx.detach(), rtol=1e-3, atol=1e-4
        )
        assert gains[kept].min() > -2e-5
        assert gains[kept][1:].sum() > best - 2e-5
        assert explanation.selected.item() == -1
        won.append(kept)
    assert len(set(won)) > 2
    assert "all" in won


def test_faithfulness_falls_back_on_all_units(net, images):
    with torch.no_grad():
        net.head.weight.zero_()
    with pytest.warns(UserWarning, match="5 of 5 examples have no group"):
        explanation = advise(net).explain(images, unit_selection="faithfulness")
    assert explanation.fallback.all()
    assert explanation.selected_units.all()


def test_batch_equals_singles(net, images):
    for selection in ("explainability", "confidence", "faithfulness", 1, [1, 2], None):
        together = advise(net).explain(images, unit_selection=selection)
        for i in range(len(images)):
            alone = advise(net).explain(images[i : i + 1], unit_selection=selection)
            torch.testing.assert_close(together.attributions[i], alone.attributions[0])
            assert together.selected[i] == alone.selected[0]
            assert torch.equal(together.unit_relevance[i], alone.unit_relevance[0])
            torch.testing.assert_close(together.scores.avx[i], alone.scores.avx[0])


def test_internal_batch_size_changes_nothing(net, images):
    expected = advise(net).explain(images)
    for size in (1, 3, 100):
        found = advise(net).explain(images, internal_batch_size=size)
        assert torch.equal(found.selected, expected.selected)
        torch.testing.assert_close(found.scores.avx, expected.scores.avx)


def test_attribute_is_what_explain_says(net, images):
    for selection in ("explainability", "confidence", "faithfulness", 2, {0, 1}, None):
        explanation = advise(net).explain(images, unit_selection=selection)
        attributions = advise(net).attribute(images, unit_selection=selection)
        assert torch.equal(attributions, explanation.attributions)
        weights = explanation.unit_weights
        contributions = advise(net).attribute(images, unit_selection=None, attr_dim_summation=False)
        expected = (contributions * weights[..., None, None]).sum(1, keepdim=True)
        torch.testing.assert_close(attributions, expected)
        summed = advise(net).attribute(images, unit_selection=selection, attr_dim_summation=False)
        assert summed.shape == (5, 12, 12, 12)
        torch.testing.assert_close(summed.sum(1, keepdim=True), attributions)
        rectified = advise(net).attribute(images, unit_selection=selection, relu_attributions=True)
        assert torch.equal(rectified, attributions.relu())


def test_unit_relevance(net, images):
    stored = {}
    handle = layer(net).register_forward_hook(lambda _m, _i, out: stored.update(a=out.clone()))
    with torch.no_grad():
        net(images)
    handle.remove()
    assert torch.equal(advise(net).unit_relevance(images), unit_relevance(stored["a"]))
    for options in ({"n_bandwidths": 20}, {"activation_range": "minmax"}):
        assert torch.equal(
            advise(net).unit_relevance(images, **options), unit_relevance(stored["a"], **options)
        )
        explained = advise(net).explain(images, unit_selection=None, **options)
        assert torch.equal(explained.unit_relevance, unit_relevance(stored["a"], **options))


@pytest.mark.parametrize(
    "target",
    [2, torch.tensor(2), torch.tensor([2]), torch.tensor([2] * 5), [2] * 5, (2,), [(2,)] * 5, -5],
)
def test_target_forms(net, images, target):
    expected = advise(net).explain(images, target=torch.full((5,), 2))
    found = advise(net).explain(images, target=target)
    assert found.target.tolist() == [2] * 5
    assert torch.equal(found.attributions, expected.attributions)
    torch.testing.assert_close(found.confidence, net(images).softmax(1)[:, 2])


def test_target_per_example(net, images):
    targets = torch.tensor([0, 6, 3, 1, 2])
    together = advise(net).attribute(images, target=targets)
    for i, target in enumerate(targets.tolist()):
        alone = advise(net).attribute(images[i : i + 1], target=target)
        torch.testing.assert_close(together[i], alone[0])


def test_predicted_class_is_the_default(net, images):
    predicted = net(images).argmax(1)
    for selection in ("explainability", 1, None):
        assert torch.equal(
            advise(net).attribute(images, unit_selection=selection),
            advise(net).attribute(images, target=predicted, unit_selection=selection),
        )


@pytest.mark.filterwarnings("ignore:.* no group")
def test_segmentation_outputs(images):
    class Segmenter(SmallNet):
        def forward(self, x):
            return self.head(self.features(x).movedim(1, -1)).movedim(-1, 1)

    net = Segmenter().eval()
    explanation = advise(net).explain(images, target=(3, 5, 6))
    assert explanation.target.tolist() == [[3, 5, 6]] * 5
    torch.testing.assert_close(explanation.confidence, net(images).softmax(1)[:, 3, 5, 6])
    with pytest.raises(ValueError, match="3 indices"):
        advise(net).explain(images, target=3)
    with pytest.raises(ValueError, match="must name one"):
        advise(net).attribute(images)


def test_single_logit(images):
    net = SmallNet(classes=1).eval()
    with pytest.raises(ValueError, match=r"torch\.sigmoid"):
        advise(net).attribute(images)
    explanation = advise(net, confidence=torch.sigmoid).explain(images)
    torch.testing.assert_close(explanation.confidence, torch.sigmoid(net(images))[:, 0])
    assert explanation.scores.class_sensitivity.tolist() == [0.0] * 5
    assert advise(net).explain(images, unit_selection=None).scores is None


def test_protocol_and_baselines_matter(net, images):
    default = advise(net).explain(images)
    reference = advise(net).explain(images, protocol=Protocol.reference())
    grey = advise(net).explain(images, baselines=0.5)
    tensor = advise(net).explain(images, baselines=torch.full((1, 3, 24, 24), 0.5))
    each = advise(net).explain(images, baselines=torch.full_like(images, 0.5))
    assert not torch.equal(default.scores.avx, reference.scores.avx)
    assert not torch.equal(default.scores.avx, grey.scores.avx)
    torch.testing.assert_close(grey.scores.avx, tensor.scores.avx)
    torch.testing.assert_close(grey.scores.avx, each.scores.avx)
    with pytest.raises(ValueError, match="Baseline"):
        advise(net).explain(images, baselines=torch.zeros(2, 3, 24, 24))


def test_pixel_space_none_is_the_example_stretched(net, images):
    """An affine change of the input that the network undoes changes nothing without a space."""

    class Undo(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner((x + 3) / 4)

    stretched = (images - images.amin((1, 2, 3), keepdim=True)) / (
        images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    )
    first = LayerAdvise(net, layer(net)).explain(stretched)
    second = LayerAdvise(Undo(net), layer(net)).explain(stretched * 4 - 3)
    torch.testing.assert_close(first.scores.avx, second.scores.avx, rtol=1e-4, atol=1e-4)
    assert torch.equal(first.selected, second.selected)


@pytest.mark.parametrize("selection", ["explainability", "faithfulness"])
def test_arguments_that_belong_to_examples(selection, net, images):
    shift = torch.randn(5, 7)
    options = {"unit_selection": selection}
    together = advise(net).explain(images, additional_forward_args=shift, **options)
    for i in range(5):
        alone = advise(net).explain(
            images[i : i + 1], additional_forward_args=shift[i : i + 1], **options
        )
        torch.testing.assert_close(together.scores.avx[i], alone.scores.avx[0])
        assert together.target[i] == alone.target[0]


@pytest.mark.parametrize("dims", [1, 3])
def test_confidence_takes_other_ranks(dims):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    net = nn.Sequential(conv(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    inputs = torch.randn(3, 2, *(10,) * dims)
    net(inputs)
    attributions = LayerAdvise(net, net[0]).attribute(inputs, unit_selection="confidence")
    assert attributions.shape == (3, 1, *(8,) * dims)
    explanation = LayerAdvise(net, net[0]).explain(inputs, unit_selection="confidence")
    assert explanation.scores.avx.isnan().all()
    assert explanation.scores.average_drop.isfinite().all()
    with pytest.raises(ValueError, match="compares pictures"):
        LayerAdvise(net, net[0]).attribute(inputs)


def test_inputs_without_a_channel(images):
    class Spectrogram(SmallNet):
        def forward(self, x):
            return super().forward(x[:, None])

    net = Spectrogram(inputs=1).eval()
    explanation = LayerAdvise(net, layer(net)).explain(images[:, 0], unit_selection="confidence")
    assert explanation.attributions.shape == (5, 1, 12, 12)


def test_second_input_is_passed_on(images):
    class Two(SmallNet):
        def forward(self, x, extra):
            return super().forward(x) + extra

    net = Two().eval()
    explanation = advise(net).explain((images, torch.randn(5, 7)))
    assert explanation.scores.avx.isfinite().all()


def test_dense_layers_have_no_map(net, images):
    dense = LayerAdvise(net, net.head)
    assert dense.attribute(images, unit_selection=0).shape == (5, 1)
    with pytest.raises(ValueError, match="spatial dimensions"):
        dense.attribute(images, unit_selection="confidence")
    assert dense.explain(images, unit_selection=None).scores is None


def test_fallback_warns_and_keeps_all_units(net, images):
    with torch.no_grad():
        net.head.weight.zero_()
    with pytest.warns(UserWarning, match="5 of 5 examples have no group"):
        explanation = advise(net).explain(images)
    assert explanation.fallback.all()
    assert explanation.selected.tolist() == [-1] * 5
    assert explanation.selected_units.all()
    assert [c.relevance for c in explanation.candidates[0]] == [None]


def test_scores_that_no_unit_has(net, images):
    assert not advise(net).attribute(images, unit_selection=99).any()
    explanation = advise(net).explain(images, unit_selection=99)
    assert not explanation.selected_units.any()
    assert explanation.selected.tolist() == [99] * 5


def state(net):
    return {
        "parameters": {k: v.clone() for k, v in net.state_dict().items()},
        "training": [m.training for m in net.modules()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in net.modules()
        ],
    }


def assert_same_state(before, after):
    assert before["training"] == after["training"]
    assert before["requires_grad"] == after["requires_grad"]
    assert before["hooks"] == after["hooks"]
    for name, value in before["parameters"].items():
        assert torch.equal(value, after["parameters"][name])
    for one, other in zip(before["grad"], after["grad"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("to_input", [False, True])
def test_nothing_is_left_behind(net, images, frozen, to_input):
    net.requires_grad_(not frozen)
    net.features[0].weight.grad = None if frozen else torch.ones_like(net.features[0].weight)
    before = state(net)
    subject = LayerAdvise(net, net.features[0 if to_input else 3])
    for selection in ("confidence", 1, None):
        subject.attribute(images, unit_selection=selection, attribute_to_layer_input=to_input)
    subject.unit_relevance(images, attribute_to_layer_input=to_input)
    assert_same_state(before, state(net))
    assert not images.requires_grad
    assert images.grad is None


def test_nothing_is_left_behind_after_an_exception(net, images):
    calls = []

    def failing(x):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("second pass")
        return net(x)

    before = state(net)
    with pytest.raises(RuntimeError, match="second pass"):
        LayerAdvise(failing, layer(net)).attribute(images)
    assert_same_state(before, state(net))


def test_grad_mode_of_the_caller(net, images):
    expected = advise(net).attribute(images)
    with torch.no_grad():
        assert torch.equal(advise(net).attribute(images), expected)
        assert torch.is_grad_enabled() is False
    explanation = advise(net).explain(images)
    assert not explanation.attributions.requires_grad
    assert not explanation.scores.avx.requires_grad


def test_empty_batch(net):
    empty = torch.zeros(0, 3, 24, 24)
    assert advise(net).unit_relevance(empty).shape == (0, 12)
    for selection in ("explainability", 1, None):
        with pytest.raises(ValueError, match="no example"):
            advise(net).attribute(empty, unit_selection=selection)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unit_selection": "best"}, ValueError, "unit_selection"),
        ({"unit_selection": -1}, ValueError, "unit_selection"),
        ({"unit_selection": []}, ValueError, "unit_selection"),
        ({"unit_selection": True}, ValueError, "unit_selection"),
        ({"unit_selection": 1.5}, ValueError, "unit_selection"),
        ({"activation_range": "max"}, ValueError, "activation_range"),
        ({"n_bandwidths": 1}, ValueError, "n_bandwidths"),
        ({"internal_batch_size": 0}, ValueError, "internal_batch_size"),
        ({"target": 7}, ValueError, "out of range"),
        ({"target": (1, 2)}, ValueError, "must name one"),
        ({"target": [1, 2]}, ValueError, "5 examples but 2 targets"),
        ({"target": 1.5}, TypeError, "target"),
        ({"target": torch.tensor([0.5])}, ValueError, "target tensor"),
        ({"target": ["cat"] * 5}, TypeError, "ints"),
    ],
)
def test_bad_arguments(net, images, options, error, message):
    with pytest.raises(error, match=message):
        advise(net).attribute(images, **options)
    with pytest.raises(error, match=message):
        advise(net).explain(images, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(net, images, dtype):
    explanation = advise(net.to(dtype)).explain(images.to(dtype))
    assert explanation.attributions.dtype == dtype
    assert explanation.scores.avx.isfinite().all()


def test_interpolates_like_captum(net, images):
    attributions = advise(net).attribute(images)
    assert LayerAttribution.interpolate(attributions, (24, 24), "bicubic").shape == (5, 1, 24, 24)


@given(st.integers(0, 10_000), st.sampled_from(["unit", "minmax"]))
def test_groups_partition_grad_cam(seed, activation_range):
    """Summed over all relevance scores, the groups' maps are Grad-CAM's."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = SmallNet().eval()
    images = torch.rand(2, 3, 16, 16, generator=generator)
    subject = LayerAdvise(net, layer(net))
    scores = subject.unit_relevance(images, activation_range=activation_range)
    parts = [
        subject.attribute(images, 1, unit_selection=q, activation_range=activation_range)
        for q in scores.unique().tolist()
    ]
    whole = LayerGradCam(net, layer(net)).attribute(images, 1)
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-6)


def test_many_selections_do_not_warn(net, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise(net).attribute(images, unit_selection=np.array([1, 2]).tolist())
    assert copy.deepcopy(advise(net)).attribute(images).shape == (5, 1, 12, 12)
