"""LayerAdvise: its arguments, its results, and that it leaves the model unchanged."""

import copy
import warnings

import numpy as np
import pytest
import torch
import toy_networks
from captum.attr import LayerAttribution, LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from toy_networks import Apply, Net, network

from captum_advise import AVXProtocol, LayerAdvise, PixelSpace, unit_relevance


@pytest.fixture
def net():
    return network()


@pytest.fixture
def images():
    return toy_networks.images(5)


class Shifted(Net):
    """A second argument is added to the logits."""

    def forward(self, x, shift):
        return super().forward(x) + shift


def advise(net, **options):
    return LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity(), **options)


def test_batch_equals_singles(net, images):
    for selection in ("avx", "average_drop", 1, [1, 2], None):
        together = advise(net).explain(images, unit_selection=selection)
        for i in range(len(images)):
            alone = advise(net).explain(images[i : i + 1], unit_selection=selection)
            torch.testing.assert_close(together.attributions[i], alone.attributions[0])
            assert together.selected[i] == alone.selected[0]
            if selection is not None:
                assert torch.equal(together.unit_relevance[i], alone.unit_relevance[0])
            torch.testing.assert_close(together.metrics.avx[i], alone.metrics.avx[0])


def test_internal_batch_size_changes_nothing(net, images):
    expected = advise(net).explain(images)
    for size in (1, 3, 100):
        found = advise(net).explain(images, internal_batch_size=size)
        assert torch.equal(found.selected, expected.selected)
        torch.testing.assert_close(found.metrics.avx, expected.metrics.avx)


def test_attribute_is_what_explain_says(net, images):
    for selection in ("avx", "average_drop", 2, {0, 1}, None):
        explanation = advise(net).explain(images, unit_selection=selection)
        attributions = advise(net).attribute(images, unit_selection=selection)
        assert torch.equal(attributions, explanation.attributions)
        selected = explanation.selected_units
        contributions = advise(net).attribute(images, unit_selection=None, attr_dim_summation=False)
        expected = (contributions * selected[..., None, None]).sum(1, keepdim=True)
        torch.testing.assert_close(attributions, expected)
        summed = advise(net).attribute(images, unit_selection=selection, attr_dim_summation=False)
        assert summed.shape == (5, 12, 12, 12)
        torch.testing.assert_close(summed.sum(1, keepdim=True), attributions)
        rectified = advise(net).attribute(images, unit_selection=selection, relu_attributions=True)
        assert torch.equal(rectified, attributions.relu())


@pytest.mark.parametrize("selection", ["avx", "average_drop", 2, (0, 1), None])
def test_explanation_without_metrics(net, images, selection):
    passes = []
    net.register_forward_hook(lambda _m, _i, out: passes.append(len(out)))
    attributions = advise(net).attribute(images, unit_selection=selection)
    expected_passes = sum(passes)
    passes.clear()
    explanation = advise(net).explain(images, unit_selection=selection, with_metrics=False)
    assert sum(passes) == expected_passes
    assert torch.equal(explanation.attributions, attributions)
    whole = advise(net).explain(images, unit_selection=selection)
    assert explanation.metrics is None
    for name in ("selected_units", "selected", "target", "confidence", "fallback"):
        assert torch.equal(getattr(explanation, name), getattr(whole, name)), name
    for candidates, expected in zip(explanation.candidates, whole.candidates, strict=True):
        for candidate, other in zip(candidates, expected, strict=True):
            assert candidate.metrics is None
            assert torch.equal(candidate.units, other.units)
            assert torch.equal(candidate.attributions, other.attributions)


def test_unit_relevance(net, images):
    stored = {}
    handle = net.layer.register_forward_hook(lambda _m, _i, out: stored.update(a=out.clone()))
    with torch.no_grad():
        net(images)
    handle.remove()
    assert torch.equal(advise(net).unit_relevance(images), unit_relevance(stored["a"]))
    for options in ({"min_prominence": 0}, {"activation_range": "minmax"}):
        subject = LayerAdvise(net, net.layer, **options)
        assert torch.equal(subject.unit_relevance(images), unit_relevance(stored["a"], **options))
        explained = subject.explain(images, unit_selection=0)
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
    for selection in ("avx", 1, None):
        assert torch.equal(
            advise(net).attribute(images, unit_selection=selection),
            advise(net).attribute(images, target=predicted, unit_selection=selection),
        )


@pytest.mark.filterwarnings("ignore:.* no group")
def test_segmentation_outputs(images):
    class Segmenter(Net):
        def forward(self, x):
            return self.head(self.act(self.features(x)).movedim(1, -1)).movedim(-1, 1)

    net = network(Segmenter)
    explanation = advise(net).explain(images, target=(3, 5, 6))
    assert explanation.target.tolist() == [[3, 5, 6]] * 5
    torch.testing.assert_close(explanation.confidence, net(images).softmax(1)[:, 3, 5, 6])
    with pytest.raises(ValueError, match="3 indices"):
        advise(net).explain(images, target=3)
    with pytest.raises(ValueError, match="must name one"):
        advise(net).attribute(images)


def test_single_logit(images):
    net = network(classes=1, seed=5)
    with pytest.raises(ValueError, match=r"torch\.sigmoid"):
        advise(net).attribute(images)
    explanation = advise(net, confidence=torch.sigmoid).explain(images)
    torch.testing.assert_close(explanation.confidence, torch.sigmoid(net(images))[:, 0])
    assert explanation.metrics.class_sensitivity.tolist() == [0.0] * 5
    assert advise(net).explain(images, unit_selection=None).metrics is None


def test_protocol_and_baselines_matter(net, images):
    default = advise(net).explain(images)
    reference = advise(net, protocol=AVXProtocol.reference()).explain(images)
    grey = advise(net).explain(images, baselines=0.5)
    tensor = advise(net).explain(images, baselines=torch.full((1, 3, 24, 24), 0.5))
    each = advise(net).explain(images, baselines=torch.full_like(images, 0.5))
    assert not torch.equal(default.metrics.avx, reference.metrics.avx)
    assert not torch.equal(default.metrics.avx, grey.metrics.avx)
    torch.testing.assert_close(grey.metrics.avx, tensor.metrics.avx)
    torch.testing.assert_close(grey.metrics.avx, each.metrics.avx)
    with pytest.raises(ValueError, match="Baseline"):
        advise(net).explain(images, baselines=torch.zeros(2, 3, 24, 24))


def test_pixel_space_none_is_the_example_stretched(net, images):
    """An affine change of the input that the network undoes changes nothing without a space."""

    stretched = (images - images.amin((1, 2, 3), keepdim=True)) / (
        images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    )
    first = LayerAdvise(net, net.layer).explain(stretched)
    undo = nn.Sequential(Apply(lambda x: (x + 3) / 4), net)
    with pytest.warns(UserWarning, match="without pixel_space"):
        second = LayerAdvise(undo, net.layer).explain(stretched * 4 - 3)
    torch.testing.assert_close(first.metrics.avx, second.metrics.avx, rtol=1e-4, atol=1e-4)
    assert torch.equal(first.selected, second.selected)


@pytest.mark.parametrize("selection", ["avx", "average_drop"])
def test_arguments_that_belong_to_examples(selection, images):
    net = network(Shifted)
    shift = torch.randn(5, 7)
    options = {"unit_selection": selection}
    together = advise(net).explain(images, additional_forward_args=shift, **options)
    for i in range(5):
        alone = advise(net).explain(
            images[i : i + 1], additional_forward_args=shift[i : i + 1], **options
        )
        torch.testing.assert_close(together.metrics.avx[i], alone.metrics.avx[0])
        assert together.target[i] == alone.target[0]


@pytest.mark.parametrize("dims", [1, 3])
def test_confidence_takes_other_ranks(dims):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    net = nn.Sequential(conv(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    inputs = torch.randn(3, 2, *(10,) * dims)
    net(inputs)
    attributions = LayerAdvise(net, net[0]).attribute(inputs, unit_selection="average_drop")
    assert attributions.shape == (3, 1, *(8,) * dims)
    explanation = LayerAdvise(net, net[0]).explain(inputs, unit_selection="average_drop")
    assert explanation.metrics.avx.isnan().all()
    assert explanation.metrics.average_drop.isfinite().all()
    with pytest.raises(ValueError, match="compares images"):
        LayerAdvise(net, net[0]).attribute(inputs)


def test_inputs_without_a_channel(images):
    class Spectrogram(Net):
        def forward(self, x):
            return super().forward(x[:, None])

    net = network(Spectrogram, channels=1)
    explanation = LayerAdvise(net, net.layer).explain(images[:, 0], unit_selection="average_drop")
    assert explanation.attributions.shape == (5, 1, 12, 12)


def test_second_input_is_passed_on(images):
    net = network(Shifted)
    explanation = advise(net).explain((images, torch.randn(5, 7)))
    assert explanation.metrics.avx.isfinite().all()


def test_dense_layers_have_no_map(net, images):
    dense = LayerAdvise(net, net.head)
    assert dense.attribute(images, unit_selection=0).shape == (5, 1)
    with pytest.raises(ValueError, match="spatial dimensions"):
        dense.attribute(images, unit_selection="average_drop")
    assert dense.explain(images, unit_selection=None).metrics is None


def test_fallback_warns_and_keeps_all_units(net, images):
    with torch.no_grad():
        net.head.weight.zero_()
    with pytest.warns(UserWarning, match="5 of 5 examples have no group"):
        explanation = advise(net).explain(images)
    assert explanation.fallback.all()
    assert explanation.selected.tolist() == [-1] * 5
    assert explanation.selected_units.all()
    assert [c.relevance for c in explanation.candidates[0]] == [None]


def test_relevance_that_no_unit_has(net, images):
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
    net.stem.weight.grad = None if frozen else torch.ones_like(net.stem.weight)
    before = state(net)
    subject = LayerAdvise(net, net.stem if to_input else net.layer)
    for selection in ("average_drop", 1, None):
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
        LayerAdvise(failing, net.layer).attribute(images)
    assert_same_state(before, state(net))


def test_grad_mode_of_the_caller(net, images):
    expected = advise(net).attribute(images)
    with torch.no_grad():
        assert torch.equal(advise(net).attribute(images), expected)
        assert torch.is_grad_enabled() is False
    explanation = advise(net).explain(images)
    assert not explanation.attributions.requires_grad
    assert not explanation.metrics.avx.requires_grad


def test_empty_batch(net):
    empty = torch.zeros(0, 3, 24, 24)
    assert advise(net).unit_relevance(empty).shape == (0, 12)
    for selection in ("avx", 1, None):
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
    assert explanation.metrics.avx.isfinite().all()


def test_interpolates_like_captum(net, images):
    attributions = advise(net).attribute(images)
    assert LayerAttribution.interpolate(attributions, (24, 24), "bicubic").shape == (5, 1, 24, 24)


@given(st.integers(0, 10_000), st.sampled_from([(0.0, 1.0), "minmax"]))
def test_groups_partition_grad_cam(seed, activation_range):
    """Summed over all relevances, the groups' maps are Grad-CAM's."""
    generator = torch.Generator().manual_seed(seed)
    net = network(seed=seed)
    images = torch.rand(2, 3, 16, 16, generator=generator)
    subject = LayerAdvise(net, net.layer, activation_range=activation_range)
    relevance = subject.unit_relevance(images)
    parts = [subject.attribute(images, 1, unit_selection=q) for q in relevance.unique().tolist()]
    whole = LayerGradCam(net, net.layer).attribute(images, 1)
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-6)


def test_many_selections_do_not_warn(net, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise(net).attribute(images, unit_selection=np.array([1, 2]).tolist())
    assert copy.deepcopy(advise(net)).attribute(images).shape == (5, 1, 12, 12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation_range": "max"}, ValueError, "activation_range"),
        ({"activation_range": (1.0, 0.0)}, ValueError, "the lower one first"),
        ({"activation_range": (0.0, float("inf"))}, ValueError, "finite"),
        ({"activation_range": 3}, ValueError, "activation_range"),
        ({"min_prominence": 1.0}, ValueError, "min_prominence"),
        ({"protocol": "paper"}, TypeError, "AVXProtocol"),
    ],
)
def test_bad_arguments_of_the_constructor(net, options, error, message):
    with pytest.raises(error, match=message):
        advise(net, **options)
