"""Classes of other packages as methods."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam

from captum_advise.evaluation import Context
from captum_advise.evaluation.methods.registry import as_method
from captum_advise.pixels import normalize_maps

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
torchcam_methods = pytest.importorskip("torchcam.methods")

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


def test_extractors_of_torchcam(network, inputs, grad_cam):
    maps = maps_of(torchcam_methods.GradCAM, network, network[4], inputs)
    torch.testing.assert_close(maps, grad_cam, atol=1e-6, rtol=1e-4)
    untouched(network)
    if hasattr(torchcam_methods, "FinerCAM"):  # from version 0.5 on; it wraps another extractor
        maps = maps_of(torchcam_methods.FinerCAM, network, network[4], inputs)
        with torchcam_methods.FinerCAM(network, network[4]) as cam:
            (peer,) = cam(CLASSES.tolist(), network(inputs), normalized=False)
        torch.testing.assert_close(maps[:, 0], peer.detach())
    untouched(network)
