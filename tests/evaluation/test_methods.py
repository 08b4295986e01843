from __future__ import annotations

import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerGradCam, Saliency
from method_names import OF_CONVOLUTIONS
from squares import SPACE

from captum_advise import LayerAdvise
from captum_advise.evaluation import (
    ClassMaps,
    Context,
    MetricSettings,
    get_methods,
    list_methods,
)
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.methods.captum_methods import rectangles
from captum_advise.evaluation.methods.interface import selecting_by_avx
from captum_advise.evaluation.methods.registry import as_method, parse_settings
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.passes import counted_passes

SAMPLES = "expected_gradients_samples"
CHEAP = {
    "integrated_gradients_steps": 4,
    SAMPLES: 10,
    "smooth_grad_samples": 10,
    "rise_masks": 30,
    "lime_samples": 30,
    "lime_grid": 4,
}
RANDOM = ("random", "lime", "kernel-shap", "smooth-grad-cam++", "smooth-grad", "expected-gradients")
CONTEXT = Context(SPACE)
CLASSES = torch.tensor([2, 5])


def maps_of(name, network, inputs, target=CLASSES, context=CONTEXT, settings=CHEAP):
    torch.manual_seed(3)
    result = get_methods([name], settings)[name](network, network[3], inputs, target, context)
    return result.maps if isinstance(result, ClassMaps) else result


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OF_CONVOLUTIONS)
def test_every_method_gives_one_map_per_image_and_leaves_the_model_unchanged(name, network, inputs):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    maps = maps_of(name, network, inputs)
    assert maps.shape[0] == 2
    assert maps.dim() == 4
    assert maps.isfinite().all()
    assert not maps.requires_grad
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module._backward_pre_hooks
        assert not module.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not inputs.requires_grad
    # Both together give what each gives alone: no method mixes images.
    if name not in RANDOM:
        alone = torch.cat(
            [maps_of(name, network, inputs[i : i + 1], CLASSES[i : i + 1]) for i in (0, 1)]
        )
        torch.testing.assert_close(alone, maps, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OF_CONVOLUTIONS)
def test_every_method_takes_networks_in_half_precision(name, dtype, network, inputs):
    with torch.no_grad():
        # Every unit speaks for every class, and for the first two more.
        network[7].weight.abs_()[:2] *= 40
    # Of few samples, those that activate other units would decide.
    options = {"target": torch.tensor([0, 1]), "settings": CHEAP | {SAMPLES: 100}}
    expected = maps_of(name, network, inputs, **options)
    maps = maps_of(name, network.to(dtype), inputs.to(dtype), **options)
    assert maps.shape == expected.shape
    both = torch.stack([maps.float().flatten(), expected.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.97 or not both.any()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OF_CONVOLUTIONS)
def test_batch_sizes_of_the_model_change_nothing(name, network, inputs):
    expected = maps_of(name, network, inputs)
    context = replace(CONTEXT, internal_batch_size=3)
    maps = maps_of(name, network, inputs, context=context)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sampled_gradients_of_a_linear_model(inputs):
    """Its gradient is the same everywhere: SmoothGrad gives it, expected gradients a difference."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs[0].numel(), 7))
    weights = linear[1].weight[CLASSES].view_as(inputs).detach()
    smooth, expected = (
        get_methods([name], CHEAP)[name](linear, linear[1], inputs, CLASSES, CONTEXT)
        for name in ("smooth-grad", "expected-gradients")
    )
    torch.testing.assert_close(smooth, weights.abs())
    # Divided by the weights, the image less the mean baseline, which has one colour.
    colours = inputs - expected / weights
    assert (colours.std((2, 3)) < 1e-3).all()


def test_torchcam_reads_the_layer_before_an_in_place_activation(network, inputs):
    activations = LayerActivation(network, network[3]).attribute(inputs).detach()
    values = activations.clone().requires_grad_()
    score = network[4:](values * 1).gather(1, CLASSES[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, values)
    layer_cam = (gradients.relu() * activations).sum(1, keepdim=True).relu()
    torch.testing.assert_close(maps_of("layer-cam", network, inputs), layer_cam)
    share = (gradients * activations).sum((2, 3)) / activations.sum((2, 3))
    xgrad = (share[..., None, None] * activations).sum(1, keepdim=True).relu()
    torch.testing.assert_close(maps_of("xgrad-cam", network, inputs), xgrad, atol=1e-5, rtol=1e-3)


def test_frozen_networks_can_be_explained(network, inputs):
    expected = maps_of("grad-cam++", network, inputs)
    network.requires_grad_(False)
    torch.testing.assert_close(maps_of("grad-cam++", network, inputs), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("grad-cam", 1),
        ("random", 0),
        ("gaussian", 0),
        ("grad-cam++", 1),
        ("hirescam", 1),
        ("layer-cam-multi", 1),
        ("refine-cam", 1),
        ("winsor-cam", 1),
        ("eigen-cam", 1),
        ("ablation-cam", 1 + 8),
        ("finer-cam", 1),
        ("shapley-cam", 1),
        ("rise", 30),
        ("kernel-shap", 30),
        ("guided-backpropagation", 1),
        ("integrated-gradients", 4),
        ("expected-gradients", 10),
        ("smooth-grad", 10),
        ("score-cam", 1 + 1 + 8),
        ("smooth-grad-cam++", 1 + 4),
        ("lime", 30),
        # A window of 3 moves by 1, so that 24 - 3 + 1 fit.
        ("occlusion", 1 + (24 - 3 + 1) ** 2),
    ],
)
def test_forward_passes_are_counted(name, passes, network, inputs):
    with counted_passes(network) as counted:
        maps_of(name, network, inputs[:1], CLASSES[:1])
    assert counted.count == passes
    assert not network._forward_pre_hooks


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["rise", "ablation-cam"])
def test_forward_passes_serve_the_runner_up_class_too(name, network, inputs):
    target, other = CLASSES[:1], torch.tensor([4])
    torch.manual_seed(3)
    class_maps = get_methods([name], CHEAP)[name](network, network[3], inputs[:1], target, CONTEXT)
    with counted_passes(network) as passes:
        maps = class_maps.of_class(other)
    assert passes.count == 0
    torch.testing.assert_close(maps, maps_of(name, network, inputs[:1], other))
    assert not torch.equal(maps, class_maps.maps)


def test_classes_of_captum_and_callables_are_methods(network, inputs):
    expected = LayerGradCam(network, network[3]).attribute(inputs, CLASSES)
    maps = as_method(LayerGradCam)(network, network[3], inputs, CLASSES, CONTEXT)
    torch.testing.assert_close(maps, expected)
    maps = as_method(Saliency)(network, network[3], inputs.requires_grad_(), CLASSES, CONTEXT)
    assert maps.shape == inputs.shape
    assert as_method(maps_of) is maps_of
    for wrong, shown in (("grad-cam", "str"), (torch.nn.ReLU, "the class ReLU")):
        with pytest.raises(TypeError, match=f"A method is a class of Captum.*got {shown}"):
            as_method(wrong)


def test_objects_that_hold_a_model_are_refused(network):
    from pytorch_grad_cam import GradCAM
    from torchcam.methods import LayerCAM

    with LayerCAM(network, "3") as extractor:
        for bound in (LayerGradCam(network, network[3]), GradCAM(network, [network[3]]), extractor):
            name = type(bound).__name__
            with pytest.raises(TypeError, match=f"object of {name} is bound .*: give the class"):
                as_method(bound)


def test_superpixels_are_equal_rectangles():
    numbers = rectangles(torch.zeros(1, 3, 24, 32), 8)[0, 0]
    assert numbers.shape == (24, 32)
    assert numbers.unique().tolist() == list(range(64))
    assert (torch.bincount(numbers.flatten()) == 12).all()
    assert rectangles(torch.zeros(1, 3, 5, 3), 8).unique().tolist() == list(range(15))


def test_names_are_checked(monkeypatch):
    assert list(get_methods(["random", "layer-advise"])) == ["random", "layer-advise"]
    with pytest.raises(ValueError, match=r"no method 'grad_cam' \(did you mean grad-cam"):
        get_methods(["grad_cam"])
    monkeypatch.setitem(sys.modules, "torchcam", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-advise\[peers\]"):
        get_methods(["layer-advise", "layer-cam"])
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-advise\[peers\]"):
        get_methods(["finer-cam"])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"captum-advise\[evaluation\]"):
        get_methods(["lime"])


def test_names_are_found_in_other_spellings():
    for wanted, meant in (
        ("GatedGradCam", "gated-grad-cam"),
        ("LayerAdvise", "layer-advise"),
        ("gradcam", "grad-cam"),
        ("lmie", "lime"),
    ):
        with pytest.raises(ValueError, match=rf"did you mean ({meant}|.* or {meant}\b)"):
            get_methods([wanted])
    with pytest.raises(ValueError, match="no method 'typo': the methods are gated-grad-cam, "):
        get_methods(["typo"])


def test_the_recommended_map_comes_first():
    assert list_methods()[:6] == (
        *("gated-grad-cam", "gated-grad-cam-occlusion", "layer-advise", "layer-advise-minmax"),
        *("layer-advise-reference", "grad-cam"),
    )


def test_settings_are_those_of_a_method_and_are_checked():
    methods = get_methods(["lime", "rise", "grad-cam"], {"lime_samples": 50})
    assert methods["lime"].settings == {"lime_samples": 50, "lime_grid": 8}
    assert methods["rise"].settings == {"rise_masks": 4000}
    assert get_methods(["lime"])["lime"].settings["lime_samples"] == 1000
    assert parse_settings(["rise_masks=7", " lime_grid = 3"]) == {"rise_masks": 7, "lime_grid": 3}
    with pytest.raises(ValueError, match="lime_samples must be at least 1, got 0"):
        get_methods(["lime"], {"lime_samples": 0})
    with pytest.raises(TypeError, match=r"lime_samples must be an int, got float"):
        get_methods(["lime"], {"lime_samples": 1.5})
    each_once = "the settings are (?!.*lime_grid.*lime_grid).*lime_grid"
    unknown = rf"no setting 'rise_mask' \(did you mean rise_masks\?\): {each_once}"
    with pytest.raises(ValueError, match=unknown):
        get_methods(["rise"], {"rise_mask": 3})
    for texts, sentence in (
        (["rise_masks"], "NAME=NUMBER, a whole one, such as rise_masks=4000, got 'rise_masks'"),
        (["rise_masks=many"], "a whole one, such as rise_masks=4000, got 'rise_masks=many'"),
        (["rise_masks=2", "rise_masks=3"], "The setting rise_masks is given twice"),
    ):
        with pytest.raises(ValueError, match=sentence):
            parse_settings(texts)


def test_methods_that_select_by_avx_are_known():
    methods = {
        **get_methods(list_methods()),
        "a class": as_method(LayerAdvise),
        "mine": as_method(maps_of),
    }
    assert selecting_by_avx(methods) == (
        *("layer-advise", "layer-advise-minmax", "layer-advise-reference", "a class"),
    )


def _random_states():
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy_state[1].tolist(),
        numpy_state[2],
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OF_CONVOLUTIONS)
def test_an_evaluation_leaves_the_caller_s_random_state(name, network, inputs):
    evaluator = ImageEvaluator(
        model=network,
        layer=network[3],
        methods=get_methods([name], CHEAP),
        context=CONTEXT,
        settings=MetricSettings(steps=1),
        seed=0,
    )
    before = _random_states()
    item, metrics = Item("image", inputs[:1], 2), get_metrics(["insertion", "avx"])
    values = evaluator.rows(item, [name], metrics)[name].values
    assert _random_states() == before
    random.random()
    np.random.rand()  # noqa: NPY002
    torch.rand(1)
    again = evaluator.rows(item, [name], metrics)[name].values
    # repr, because NaN differs from itself.
    assert repr({**values, "seconds": 0}) == repr({**again, "seconds": 0})


def test_a_method_may_not_know_the_map_of_another_class(network, inputs):
    def known(model, layer, images, target, context):
        return ClassMaps(images.mean(1, keepdim=True), None)

    evaluator = ImageEvaluator(
        model=network,
        layer=network[3],
        methods={"known": known},
        context=CONTEXT,
        settings=MetricSettings(steps=1),
        seed=0,
    )
    item, metrics = Item("image", inputs[:1], 2), get_metrics(["class_sensitivity", "ssim"])
    values = evaluator.rows(item, ["known"], metrics)["known"].values
    assert np.isnan(values["class_sensitivity"])
    assert np.isfinite(values["ssim"])
