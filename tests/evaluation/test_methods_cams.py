"""Class activation maps by name, against Captum, other packages and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerFeatureAblation, LayerGradCam
from method_names import OF_CONVOLUTIONS
from torch import nn

from captum_advise import zoo
from captum_advise.evaluation import (
    ClassMaps,
    Context,
    MetricSettings,
    get_methods,
)
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.methods.registry import as_method
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.pixels import normalize_maps

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CLASSES = torch.tensor([2, 5])


@pytest.fixture
def after(network):
    """The layer after its activation function."""
    return network[4]


def maps_of(name, network, layer, inputs, layers=()):
    result = get_methods([name])[name](network, layer, inputs, CLASSES, Context(layers=layers))
    return result.maps if isinstance(result, ClassMaps) else result


def activations_and_gradients(network, inputs, first=5, score=None):
    activations = network[:first](inputs).detach().requires_grad_()
    outputs = network[first:](activations)
    score = outputs.gather(1, CLASSES[:, None]) if score is None else score(outputs)
    (gradients,) = torch.autograd.grad(score.sum(), activations, create_graph=True)
    return activations, gradients


def test_grad_cam_plus_plus_is_equation_19(network, after, inputs):
    from pytorch_grad_cam import GradCAMPlusPlus

    a, g = activations_and_gradients(network, inputs)
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3)
    weights = torch.where(g > 0, alpha * g, 0).sum((2, 3), keepdim=True)
    expected = (weights * a).sum(1, keepdim=True).relu().detach()
    maps = maps_of("grad-cam++", network, after, inputs)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-7)
    # The package adds 1e-6 to a denominator of squared gradients, which here are large.
    with torch.no_grad():
        network[7].weight *= 1000
    maps = maps_of("grad-cam++", network, after, inputs)
    peer = as_method(_small(GradCAMPlusPlus))
    peers = peer(network, after, inputs, CLASSES, Context())
    torch.testing.assert_close(normalize_maps(maps), peers, atol=1e-3, rtol=1e-3)


def _small(cam_class):
    """A class of pytorch-grad-cam whose maps have the size of the layer."""
    return type("Small", (cam_class,), {"get_target_width_height": lambda *_: None})


def test_hirescam_is_pytorch_grad_cam_s(network, after, inputs):
    from pytorch_grad_cam import HiResCAM

    peer = as_method(_small(HiResCAM))
    peers = peer(network, after, inputs, CLASSES, Context())
    maps = maps_of("hirescam", network, after, inputs).sum(1, keepdim=True).relu()
    torch.testing.assert_close(normalize_maps(maps), peers, atol=1e-5, rtol=1e-4)


def test_hirescam_xgrad_cam_and_grad_cam_are_one_before_global_pooling(inputs):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))
    ).eval()
    grad_cam = LayerGradCam(network, network[1]).attribute(inputs, CLASSES, relu_attributions=True)
    for name in ("hirescam", "xgrad-cam", "grad-cam"):
        maps = maps_of(name, network, network[1], inputs).sum(1, keepdim=True).relu()
        torch.testing.assert_close(maps, grad_cam.detach(), atol=1e-5, rtol=1e-4, msg=name)


def test_eigen_cam_is_the_projection_on_the_first_principal_component(network, after, inputs):
    maps = maps_of("eigen-cam", network, after, inputs)
    for image, m in zip(network[:5](inputs).detach().double(), maps, strict=True):
        units = image.flatten(1)
        _, vectors = torch.linalg.eigh(units @ units.T)
        projection = vectors[:, -1] @ units
        projection *= projection.sum().sign()
        torch.testing.assert_close(m.flatten().double(), projection, atol=1e-4, rtol=1e-4)
        assert (m >= -1e-5).all()  # of activations from zero up, by Perron and Frobenius


def test_ablation_cam_is_captum_s_ablation_of_units(network, after, inputs):
    maps = maps_of("ablation-cam", network, after, inputs)
    for i in range(2):
        lost = LayerFeatureAblation(network, after).attribute(
            inputs[i : i + 1], target=int(CLASSES[i]), layer_mask=torch.arange(8).view(1, 8, 1, 1)
        )
        expected = (lost * network[:5](inputs[i : i + 1])).sum(1, keepdim=True).relu()
        torch.testing.assert_close(maps[i : i + 1], expected.detach(), atol=1e-5, rtol=1e-4)


def test_finer_cam_is_grad_cam_of_the_difference_to_the_closest_classes(network, after, inputs):
    def difference(outputs):
        scores = outputs.gather(1, CLASSES[:, None])
        # The first is the class itself.
        closest = (outputs - scores).abs().argsort(1)[:, 1:4]
        weights = outputs.softmax(1).gather(1, closest)
        gains = scores - outputs.gather(1, closest)
        return (weights * gains).sum(1) / weights.sum(1)

    a, g = activations_and_gradients(network, inputs, score=difference)
    expected = (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).relu().detach()
    maps = maps_of("finer-cam", network, after, inputs)
    torch.testing.assert_close(maps, normalize_maps(expected), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_shapley_cam_is_its_formula(frozen, network, after, inputs):
    def residual_softmax(outputs):
        return (outputs + outputs.log_softmax(1)).gather(1, CLASSES[:, None])

    network.requires_grad_(not frozen)
    a, g = activations_and_gradients(network, inputs, score=residual_softmax)
    (hessian_times_a,) = torch.autograd.grad(g, a, a.detach())
    weights = (g - hessian_times_a / 2).mean((2, 3), keepdim=True)
    expected = (weights * a).sum(1, keepdim=True).relu().detach()
    maps = maps_of("shapley-cam", network, after, inputs)
    torch.testing.assert_close(maps, normalize_maps(expected), atol=1e-4, rtol=1e-3)


def test_layer_cam_of_several_layers_is_fused_as_in_its_paper(network, after, inputs):
    maps = maps_of("layer-cam-multi", network, after, inputs, layers=(network[1], after))
    scaled = []
    for first in (2, 5):
        a, g = activations_and_gradients(network, inputs, first=first)
        one = (g.relu() * a).sum(1, keepdim=True).relu().detach()
        # Equation 9 with gamma = 2, after the map is stretched to [0, 1].
        scaled.append(torch.tanh(2 * normalize_maps(one)))
    larger = nn.functional.interpolate(scaled[1], (24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps, torch.maximum(scaled[0], larger), atol=1e-4, rtol=1e-3)


def test_refine_cam_is_pytorch_grad_cam_s(network, after, inputs):
    refine = pytest.importorskip("pytorch_grad_cam.refine_cam").RefineCAM
    with torch.no_grad():  # the package adds a constant to small denominators
        network[7].weight *= 1000
    peer = refine(network, [network[1], after])(inputs, [_target(c) for c in CLASSES.tolist()])
    maps = maps_of("refine-cam", network, after, inputs, layers=(network[1], after))
    expected = torch.from_numpy(peer)[:, None]
    torch.testing.assert_close(normalize_maps(maps), expected, atol=2e-3, rtol=1e-2)


def _target(label):
    return lambda output: output[label]


@pytest.mark.parametrize("percentile", [1, 50, 90, 100])
def test_winsor_cam_is_its_weighted_sum(percentile, network, inputs):
    layers = (network[1], network[2], network[4])
    with torch.no_grad():  # so that layers count
        network[7].weight += 0.1
    method = get_methods(["winsor-cam"], {"winsor_percentile": percentile})["winsor-cam"]
    maps = method(network, layers[-1], inputs, CLASSES, Context(layers=layers))
    for i in range(2):
        importance, stretched = [], []
        for first in (2, 3, 5):
            a, g = activations_and_gradients(network, inputs, first=first)
            weights = g[i].detach().mean((1, 2))
            importance.append(max(0.0, float(weights.mean())))
            grad_cam = torch.einsum("c,chw->hw", weights, a[i].detach()).clamp(min=0)
            large = nn.functional.interpolate(grad_cam[None, None], (24, 24), mode="bilinear")[0]
            stretched.append((large - large.min()) / (large.max() - large.min()).clamp(min=1e-30))
        positive = [value for value in importance if value > 0]
        assert positive
        cut = [min(v, float(np.percentile(positive, percentile))) for v in importance]
        low, high = min(c for c, v in zip(cut, importance, strict=True) if v > 0), max(cut)
        weights = [
            0.0 if v <= 0 else 1.0 if high == low else 0.1 + 0.9 * (c - low) / (high - low)
            for c, v in zip(cut, importance, strict=True)
        ]
        expected = sum(w * m for w, m in zip(weights, stretched, strict=True))
        torch.testing.assert_close(maps[i], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_every_method_gives_a_map_of_a_real_network():
    network = zoo.load("efficientnet-lite0")
    inputs = network.transform(zoo.example_image())[None]
    settings = {"rise_masks": 100, "lime_samples": 100}
    context = Context(network.pixel_space)
    evaluator = ImageEvaluator(
        network.model,
        network.layer,
        get_methods(OF_CONVOLUTIONS, settings),
        context,
        MetricSettings(steps=2),
        seed=0,
    )
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in network.model.modules()]
    item = Item("image", inputs, 282)
    scorer = evaluator._scorer(item)
    for name in OF_CONVOLUTIONS:
        maps = evaluator._explained(name, item, scorer, needs_runner_up=False).maps
        explains_layer = evaluator._layers[name, inputs.shape].name == "bn2" or name == "random"
        side = 7 if explains_layer and name != "guided-grad-cam" else 224
        assert maps.shape[2:] == (112 if name == "layer-cam-multi" else side,) * 2, name
        assert (maps.amax() > 0) == True, name  # noqa: E712
    assert hooks == [
        len(m._forward_hooks) + len(m._backward_hooks) for m in network.model.modules()
    ]
