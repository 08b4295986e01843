"""Captum's wrappers and metrics around LayerAdvise"""

import pytest
import torch
from captum.attr import LayerGradCam, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from toy_networks import ConvNet, Net, images, network

from captum_advise import LayerAdvise, PixelSpace

# A small random network has classes without evidence.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units")

OPTIONS = {"nt_type": "smoothgrad", "nt_samples": 6, "stdevs": 0.02, "target": 3}


@pytest.fixture
def net():
    return network(Net)


@pytest.fixture
def advise(net):
    return LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())


@pytest.mark.parametrize("batch", [None, 2])
def test_noise_tunnel_equals_grad_cams_for_all_units(net, advise, batch):
    maps = []
    for method, options in ((LayerGradCam(net, net.layer), {}), (advise, {"unit_selection": None})):
        torch.manual_seed(1)
        tunnel = NoiseTunnel(method)
        maps.append(tunnel.attribute(images(2), nt_samples_batch_size=batch, **OPTIONS, **options))
    torch.testing.assert_close(maps[1], maps[0])


def test_noise_tunnel_is_the_mean_of_noisy_copies(advise):
    torch.manual_seed(1)
    smooth = NoiseTunnel(advise).attribute(images(2), **OPTIONS)
    torch.manual_seed(1)
    # Captum repeats each image, and draws the noise of all copies at once.
    noisy = images(2).repeat_interleave(6, 0)
    noisy = torch.normal(noisy, 0.02)
    expected = advise.attribute(noisy, target=3).view(2, 6, 1, 12, 12).mean(1)
    torch.testing.assert_close(smooth, expected)


def test_examples(run):
    assert run("Captum's `NoiseTunnel`")["smooth"].shape == (2, 1, 12, 12)
    names = run("Captum's metrics")
    for values in (names["infidelities"], names["sensitivities"]):
        assert values.shape == (2,)
        assert (values >= 0).all()


def test_metrics_equal_those_of_grad_cam_for_all_units(net, advise):
    grad_cam = LayerGradCam(net, net.layer)

    def perturb(inputs):
        noise = 0.05 * torch.randn_like(inputs)
        return noise, inputs - noise

    def measured(attribute):
        def tupled(inputs, target):
            return (attribute(inputs, target),)

        maps = attribute(images(2), 3)
        maps = torch.nn.functional.interpolate(maps, (24, 24)).expand(-1, 3, -1, -1)
        torch.manual_seed(1)
        return (
            infidelity(net, perturb, images(2), maps, target=3),
            sensitivity_max(tupled, images(2), n_perturb_samples=3, target=3),
        )

    ours = measured(lambda inputs, target: advise.attribute(inputs, target, unit_selection=None))
    for our, their in zip(ours, measured(grad_cam.attribute), strict=True):
        torch.testing.assert_close(our, their)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("selection", ["average_drop", None])
def test_signals_and_volumes(dims, selection):
    net = network(ConvNet, dims)
    inputs = torch.rand(2, 3, *[9] * dims)
    advise = LayerAdvise(net, net.convolution)
    attributions = advise.attribute(inputs, 1, unit_selection=selection)
    grad_cam = LayerGradCam(net, net.convolution).attribute(inputs, 1)
    assert attributions.shape == grad_cam.shape
    if selection is None:
        assert attributions.equal(grad_cam)
    with pytest.raises(ValueError, match='use "average_drop"'):
        advise.attribute(inputs, 1)


def test_exported_programs_are_refused(net):
    program = torch.export.export(net, (images(2),))
    module = program.module()
    for model, layer in ((program, net.layer), (module, net.layer), (module, module.layer)):
        with pytest.raises(TypeError, match=r"before torch\.export\.$"):
            LayerAdvise(model, layer)


def test_traced_graphs_are_explained(net, advise):
    # A graph of torch.fx calls the layers, unlike an exported one.
    graph = torch.fx.symbolic_trace(net)
    expected = advise.attribute(images(2), 3, unit_selection=1)
    attributions = LayerAdvise(graph, graph.layer).attribute(images(2), 3, unit_selection=1)
    assert attributions.equal(expected)


def test_compiled(run, monkeypatch):
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile(model, backend="eager"))
    names = run("Compiled and exported models", torch=torch)
    expected = LayerAdvise(names["net"], names["net"].layer).attribute(images(2), target=3)
    torch.testing.assert_close(names["attributions"], expected)
