"""Objects and classes of other packages as methods."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from squares import squares_network

from captum_advise.evaluation import Context, MetricSettings, as_method
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.run.identity import Identity
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.pixels import normalize_maps

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
torchcam_methods = pytest.importorskip("torchcam.methods")
zennit = pytest.importorskip("zennit.attribution")
from zennit.composites import EpsilonGammaBox, EpsilonPlus  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CLASSES = torch.tensor([2, 5])


@pytest.fixture
def grad_cam(network, inputs):
    attribution = LayerGradCam(network, network[4])
    return attribution.attribute(inputs, CLASSES, relu_attributions=True).detach()


def maps_of(method, network, layer, inputs, target=CLASSES):
    return as_method(method)(network, layer, inputs, target, Context())


def untouched(network, grad=None):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(network.modules())
    assert not any(getattr(module, name) for module in modules for name in hooks)
    assert not any(module.training for module in modules)
    for parameter in network.parameters():
        assert parameter.grad is grad or torch.equal(parameter.grad, grad)
        assert parameter.requires_grad


def test_classes_of_pytorch_grad_cam(network, inputs, grad_cam):
    parameter = network[0].bias
    parameter.grad = torch.ones_like(parameter)  # which the package clears
    maps = maps_of(pytorch_grad_cam.GradCAM, network, network[4], inputs)
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    parameter.grad = None
    untouched(network)
    assert maps.shape == (2, 1, 24, 24)
    bilinear = torch.nn.functional.interpolate(normalize_maps(grad_cam), (24, 24), mode="bilinear")
    torch.testing.assert_close(maps, normalize_maps(bilinear), atol=1e-4, rtol=1e-3)
    # The in-place activation after the layer does not change what the package has seen.
    before = maps_of(pytorch_grad_cam.HiResCAM, network, network[3], inputs)
    after = maps_of(pytorch_grad_cam.HiResCAM, network, network[4], inputs)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)
    for name in ("EigenCAM", "FinerCAM", "ShapleyCAM", "AblationCAM", "KPCA_CAM"):
        method = getattr(pytorch_grad_cam, name)
        maps = maps_of(method, network, network[4], inputs)
        assert maps.shape == (2, 1, 24, 24), name
        assert maps.isfinite().all()
        untouched(network)


def test_an_error_leaves_no_hooks_of_pytorch_grad_cam(network, inputs):
    class Broken(pytorch_grad_cam.GradCAM):
        def get_cam_weights(self, *_):
            raise IndexError("broken")

    with pytest.raises(IndexError, match="broken"):
        maps_of(Broken, network, network[4], inputs)
    untouched(network)


def test_objects_of_pytorch_grad_cam(network, inputs):
    expected = maps_of(pytorch_grad_cam.GradCAM, network, network[4], inputs)
    cam = pytorch_grad_cam.GradCAM(network, [network[4]])
    method = as_method(cam)
    torch.testing.assert_close(method(network, network[0], inputs, CLASSES, Context()), expected)
    evaluator = ImageEvaluator(
        network, network[0], {"cam": method}, Context(), MetricSettings(steps=1), seed=0
    )
    wanted = {"cam": get_metrics(["sparseness"])}
    row = evaluator.rows(Item(0, "image", inputs[:1], 2), wanted)["cam"].values
    assert row["layer"] == "4"
    assert row["forward_passes"] == 1


def test_extractors_of_torchcam(network, inputs, grad_cam):
    maps = maps_of(torchcam_methods.GradCAM, network, network[4], inputs)
    torch.testing.assert_close(maps, grad_cam, atol=1e-6, rtol=1e-4)
    untouched(network)
    with torchcam_methods.GradCAM(network, network[4]) as cam:
        method = as_method(cam)
        maps = method(network, network[0], inputs, CLASSES, Context())
        torch.testing.assert_close(maps, grad_cam, atol=1e-6, rtol=1e-4)
        assert method.layers == ("4",)
    with torchcam_methods.LayerCAM(network, ["1", "4"]) as cam:
        assert maps_of(cam, network, network[0], inputs).shape == (2, 1, 24, 24)
    if hasattr(torchcam_methods, "FinerCAM"):  # from version 0.5 on; it wraps another extractor
        maps = maps_of(torchcam_methods.FinerCAM, network, network[4], inputs)
        with torchcam_methods.FinerCAM(network, network[4]) as cam:
            torch.testing.assert_close(maps_of(cam, network, network[0], inputs), maps)
    untouched(network)


def test_attributors_of_zennit(network, inputs):
    x = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).gather(1, CLASSES[:, None]).sum(), x)
    for method in (zennit.Gradient, zennit.Gradient(network), (zennit.Gradient, None)):
        torch.testing.assert_close(maps_of(method, network, network[4], inputs), gradient)
    composite = EpsilonPlus(epsilon=1e-9)
    relevance = maps_of((zennit.Gradient, composite), network, network[4], inputs)
    untouched(network)
    torch.testing.assert_close(
        maps_of(zennit.Gradient(network, composite), network, network[4], inputs), relevance
    )
    untouched(network)
    # Without biases, layer-wise relevance propagation distributes the class's share of one.
    for module in (network[0], network[3], network[7]):
        torch.nn.init.zeros_(module.bias)
    relevance = maps_of((zennit.Gradient, composite), network, network[4], inputs)
    torch.testing.assert_close(relevance.sum((1, 2, 3)), torch.ones(2), atol=1e-2, rtol=1e-2)
    assert not inputs.requires_grad


def test_settings_of_other_packages_objects_are_part_of_their_identity(inputs):
    network = squares_network()

    def digest(value):
        return Identity.of(value, network).digest

    def pair(high):
        return zennit.Gradient, EpsilonGammaBox(low=0.0, high=high)

    assert digest(pair(1.0)) == digest(pair(1.0))
    assert digest(pair(1.0)) != digest(pair(2.0))
    used = pair(1.0)
    maps_of(used, network, network[4], inputs)
    assert digest(used) == digest(pair(1.0))
    cams = [pytorch_grad_cam.GradCAM(network, [network[i]]) for i in (3, 4, 4)]
    assert digest(cams[1]) == digest(cams[2])
    assert digest(cams[0]) != digest(cams[1])
