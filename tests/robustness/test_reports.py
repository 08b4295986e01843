"""What users of other packages reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toy_networks import Apply, Net, images, network

from captum_advise import GatedGradCam, LayerAdvise, PixelSpace, metrics, visualization

SPACE = PixelSpace.identity()


@pytest.mark.case("other extractors on the same layer: pytorch-grad-cam, torch-cam", "no effect")
def test_hooks_of_other_packages():
    grad_cam, torch_cam = pytest.importorskip("pytorch_grad_cam"), pytest.importorskip("torchcam")
    net = network()
    advise = LayerAdvise(net, net.layer, pixel_space=SPACE)
    expected = advise.attribute(images(), 1)
    with grad_cam.GradCAM(net, [net.layer]) as cam:
        assert advise.attribute(images(), 1).equal(expected)
        cam(images(), None)
        assert advise.attribute(images(), 1).equal(expected)
    extractor = torch_cam.methods.GradCAM(net, net.layer)
    assert advise.attribute(images(), 1).equal(expected)
    net(images())  # its hooks still work
    assert extractor.hook_a[0] is not None
    extractor.remove_hooks()


@pytest.mark.case("layer that returns a tuple with None", "ValueError: name a module inside it")
def test_a_layer_that_returns_none_beside_its_tensor():
    class Pair(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.inner = layer

        def forward(self, x):
            return self.inner(x), None

    net = network()
    net.layer = nn.Sequential(Pair(net.layer), Apply(lambda pair: pair[0]))
    with pytest.raises(ValueError, match="name a module inside it that returns a tensor"):
        LayerAdvise(net, net.layer[0]).attribute(images(), 1)
    plain = network()
    expected = LayerAdvise(plain, plain.layer).attribute(images(), 1)
    assert LayerAdvise(net, net.layer[0].inner).attribute(images(), 1).equal(expected)


@pytest.mark.case("autocast inside `forward_func`", "what autocast around `attribute` gives")
def test_autocast_inside_the_function():
    net = network()

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    inside = LayerAdvise(forward, net.layer, pixel_space=SPACE).explain(images(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        around = LayerAdvise(net, net.layer, pixel_space=SPACE).explain(images(), 1)
    torch.testing.assert_close(inside.metrics.avx, around.metrics.avx, atol=0.02, rtol=0)
    gated = GatedGradCam(forward, [net.stem, net.layer], pixel_space=SPACE)
    assert gated.attribute(images(), 1, n_occlusions=4).isfinite().all()


@pytest.mark.case("maps and images in half precision, drawn", "as those in single precision")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_figures_in_half_precision(dtype):
    _, ax = visualization.overlay(images()[0].to(dtype), torch.rand(4, 4).to(dtype))
    assert len(ax.images) > 0
    if dtype == torch.float16:
        array = images()[0].permute(1, 2, 0).numpy().astype(np.float16)
        visualization.overlay(array, np.eye(4, dtype=np.float16))


@pytest.mark.case("several models in one function", "each member's layer gets its own map")
def test_ensembles():
    one, other = network(), network(seed=5)

    def mean(x):
        return (one(x) + other(x)) / 2

    for member in (one, other):
        found = LayerAdvise(mean, member.layer).attribute(images(), 1, unit_selection=None)
        alone = LayerAdvise(member, member.layer).attribute(images(), 1, unit_selection=None)
        torch.testing.assert_close(found, alone / 2)


@pytest.mark.case("model that returns images, as for denoising", "a target names channel and pixel")
def test_outputs_that_are_images():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2)).eval()
    advise = LayerAdvise(net, net[0], pixel_space=SPACE)
    with pytest.raises(ValueError, match="must name one of them per example, by 3 indices"):
        advise.attribute(images())
    found = advise.attribute(images(), (1, 6, 8), unit_selection=None)
    # The pixel depends on one position of the layer.
    assert (found != 0).flatten(1).any(1).all()
    by_hand = LayerAdvise(lambda x: net(x)[:, 1, 6, 8], net[0])
    torch.testing.assert_close(found, by_hand.attribute(images(), unit_selection=None))


def ran_with_seed(function, *arguments, **options):
    torch.manual_seed(0)
    return function(*arguments, **options)


TARGET = torch.tensor([1, 2, 1])
OF_MODELS = {
    "insertion": metrics.insertion_auc,
    "deletion": lambda *a: metrics.deletion_auc(*a, pixel_space=SPACE),
    "mu_fidelity": lambda *a: metrics.mu_fidelity(*a, pixel_space=SPACE),
    "road": lambda *a: metrics.road(*a, noise=0.0).value,
}


@pytest.mark.case("metrics of maps at another scale", "the same values")
@pytest.mark.parametrize("name", OF_MODELS)
def test_metrics_do_not_depend_on_the_scale_of_maps(name):
    net, maps = network(), torch.rand(3, 1, 24, 24)
    expected = ran_with_seed(OF_MODELS[name], net, images(), maps, TARGET)
    found = ran_with_seed(OF_MODELS[name], net, images(), maps * 64, TARGET)
    torch.testing.assert_close(found, expected)


@pytest.mark.case("metrics of one image", "finite; that of the first row of a batch")
@pytest.mark.parametrize("name", OF_MODELS)
def test_metrics_of_one_image(name):
    net, maps = network(), torch.rand(3, 1, 24, 24)
    expected = ran_with_seed(OF_MODELS[name], net, images(), maps, TARGET)[:1]
    found = ran_with_seed(OF_MODELS[name], net, images()[:1], maps[:1], TARGET[:1])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.case("rows and columns exchanged in images that are not square", "the same metrics")
def test_metrics_of_transposed_images():
    net, inputs, maps = network(), images(height=32, width=20), torch.rand(3, 1, 32, 20)
    transposed = Apply(lambda x: net(x.mT)).eval()
    for name in ("insertion", "deletion", "road"):
        expected = OF_MODELS[name](net, inputs, maps, TARGET)
        found = OF_MODELS[name](transposed, inputs.mT, maps.mT, TARGET)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    regions = torch.zeros(3, 1, 32, 20, dtype=torch.bool)
    regions[..., 20:30, 3:9] = True
    for metric in (metrics.pointing_game, metrics.energy_pointing_game, metrics.top_pixels):
        torch.testing.assert_close(metric(maps, regions), metric(maps.mT, regions.mT))
    others = inputs.flip(0)
    for metric in (metrics.ssim, metrics.fsim, metrics.mse):
        found, expected = metric(inputs.mT, others.mT), metric(inputs, others)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.case("second call with other images", "the maps of these images")
def test_maps_are_updated():
    net = Net().eval()
    advise = LayerAdvise(net, net.layer, pixel_space=SPACE)
    first, second = images()[:1], images()[1:2]
    advise.attribute(first, 1)
    assert advise.attribute(second, 1).equal(
        LayerAdvise(net, net.layer, pixel_space=SPACE).attribute(second, 1)
    )
