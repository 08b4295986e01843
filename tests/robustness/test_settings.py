"""Wrong settings"""

import warnings

import pytest
import torch
from captum.attr import LayerGradCam
from messages import said
from torch import nn
from toy_networks import Apply, Net, images, network

from captum_advise import GatedGradCam, LayerAdvise, PixelSpace
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.setting_warnings import suspicious_layout
from captum_advise.layouts import Tokens, channels_last


@pytest.mark.case(
    "`PixelSpace.identity()` for normalised inputs",
    "one warning: which pixels were seen, and what to pass",
)
@pytest.mark.parametrize("selection", ["avx", "average_drop"])
def test_pixels_out_of_range(selection):
    normalised = PixelSpace.imagenet().from_pixels(images())
    net = network()
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())
    (message,) = said(lambda: advise.attribute(normalised, unit_selection=selection))
    lowest, highest = normalised.min().item(), normalised.max().item()
    assert f"from {lowest:.2f} to {highest:.2f}" in message
    assert "PixelSpace" in message
    (message,) = said(lambda: advise.explain(normalised, unit_selection=selection))
    assert "from" in message


@pytest.mark.case("inputs from 0 to 255 under `PixelSpace.imagenet()`", "the same warning")
def test_bytes_as_inputs():
    net = network()
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.imagenet())
    (message,) = said(lambda: advise.attribute(images() * 255))
    assert "PixelSpace" in message


@pytest.mark.case("pixels slightly outside [0, 1], as bicubic enlargement makes them", "no warning")
def test_pixels_slightly_out_of_range():
    net = network()
    for space in (PixelSpace.identity(), None):
        advise = LayerAdvise(net, net.layer, pixel_space=space)
        assert said(lambda: advise.attribute(images() * 1.1 - 0.05)) == []  # noqa: B023
    # Without a pixel space, every range is right; a fixed group uses none.
    advise = LayerAdvise(net, net.layer)
    assert said(lambda: advise.attribute(images() * 255)) == []
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())
    assert said(lambda: advise.attribute(images() * 255, unit_selection=None)) == []


@pytest.mark.case(
    "model that ends in softmax, default `confidence`",
    "one warning: pass `confidence=torch.nn.Identity()`",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_as_logits(dtype):
    net = network()
    model = nn.Sequential(net, nn.Softmax(1)).to(dtype)
    advise = LayerAdvise(model, net.layer)
    for selection in ("avx", "average_drop"):
        (message,) = said(lambda: advise.explain(images().to(dtype), unit_selection=selection))  # noqa: B023
        assert "torch.nn.Identity()" in message
    right = LayerAdvise(model, net.layer, confidence=nn.Identity())
    assert said(lambda: right.explain(images().to(dtype))) == []
    assert said(lambda: LayerAdvise(model, net.layer).attribute(images().to(dtype), 1)) != []
    log_model = nn.Sequential(net, nn.LogSoftmax(1)).to(dtype)
    assert said(lambda: LayerAdvise(log_model, net.layer).explain(images().to(dtype))) == []


@pytest.mark.case(
    "model that ends in softmax, `GatedGradCam` with `n_occlusions`",
    "one warning: pass confidence=torch.nn.Identity()",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_as_scores_of_occluded_images(dtype):
    net = nn.Sequential(network(), nn.Softmax(1)).to(dtype)
    layers = (net[0].norm, net[0].layer)
    inputs = images().to(dtype)
    (message,) = said(lambda: GatedGradCam(net, layers).attribute(inputs, 1, n_occlusions=4))
    assert "confidence=torch.nn.Identity()" in message
    right = GatedGradCam(net, layers, confidence=nn.Identity())
    assert said(lambda: right.attribute(inputs, 1, n_occlusions=4)) == []
    assert said(lambda: GatedGradCam(net, layers).attribute(inputs, 1)) == []
    assert said(lambda: GatedGradCam(net[0], layers).attribute(inputs, 1, n_occlusions=4)) == []


class TokenNet(Net):
    """The explained module returns tokens, N x positions x C."""

    def __init__(self):
        super().__init__()
        self.tokens = Apply(lambda x: x.flatten(2).transpose(1, 2))

    def forward(self, x):
        return self.head(self.tokens(self.features(x)).relu().mean(1) * 5)


class ChannelsLastNet(Net):
    """The explained module returns N x H x W x C."""

    def __init__(self):
        super().__init__()
        self.last = Apply(lambda x: x.movedim(1, -1).repeat_interleave(20, -1))

    def forward(self, x):
        return self.head(self.last(self.features(x))[..., ::20].relu().mean((1, 2)) * 5)


@pytest.mark.case(
    "token layer without `reshape_transform`",
    "one warning that names `Tokens`; ValueError for a choice by AVX",
)
def test_tokens_without_transform():
    net = network(TokenNet)
    advise = LayerAdvise(net, net.tokens)
    for call in (
        lambda: advise.attribute(images(), unit_selection=None),
        lambda: advise.attribute(images(), unit_selection=list(range(20))),
        lambda: advise.unit_relevance(images()),
    ):
        (message,) = said(call)
        assert "Tokens" in message
        assert "(3, 144, 12)" in message
    with pytest.raises(ValueError, match="reshape_transform"):
        advise.attribute(images())
    right = LayerAdvise(net, net.tokens, reshape_transform=Tokens())
    assert said(lambda: right.attribute(images())) == []


@pytest.mark.case(
    "channels-last layer without `reshape_transform`", "one warning that names `channels_last`"
)
def test_channels_last_without_transform():
    net = network(ChannelsLastNet)
    advise = LayerAdvise(net, net.last)
    for call in (
        lambda: advise.attribute(images()),
        lambda: advise.explain(images()),
        lambda: advise.attribute(images(), unit_selection=None),
        lambda: advise.unit_relevance(images()),
    ):
        (message,) = said(call)
        assert "channels_last" in message
        assert "(3, 12, 12, 240)" in message
    right = LayerAdvise(net, net.last, reshape_transform=channels_last)
    assert said(lambda: right.attribute(images())) == []


@pytest.mark.parametrize("inputs", [(1, 0, 0, 0), (1, 3, 0, 0), (1, 3, 0, 5)])
def test_empty_images_have_no_layout(inputs):
    empty = torch.zeros(inputs)
    net = nn.Identity()
    two = LayerCall(net, (net, net), (empty,), reshape_transforms=(None, None))
    assert suspicious_layout(two, (empty, torch.zeros(1, 4, 0, 0))) is None
    one = LayerCall(net, (net,), (images(1),))
    assert suspicious_layout(one, (torch.zeros(1, 4, 0, 2),)) is None


@pytest.mark.parametrize("selection", ["avx", "average_drop"])
def test_images_without_pixels_are_refused(selection):
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.LazyLinear(3)).eval()
    net(torch.zeros(1, 3, 0, 0))
    with pytest.raises(ValueError, match=r"\(1, 3, 0, 0\)"):
        LayerAdvise(net, net[0]).attribute(torch.zeros(1, 3, 0, 0), unit_selection=selection)


@pytest.mark.case("layers in the usual layout, inputs of any shape", "no such warning")
@pytest.mark.parametrize("size", [(24, 24), (16, 96), (96, 16)])
def test_usual_layouts(size):
    net = network()
    inputs = images(height=size[0], width=size[1])
    assert said(lambda: LayerAdvise(net, net.layer).attribute(inputs)) == []
    signals = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    signals(torch.rand(1, 2, 30))
    advise = LayerAdvise(signals, signals[0])
    assert said(lambda: advise.attribute(torch.rand(2, 2, 30), unit_selection="average_drop")) == []


@pytest.mark.case(
    "relevance that no unit of an example has",
    "a map of zeros, and one warning: which relevances there are",
)
@pytest.mark.parametrize("selection", [99, [98, 99]])
def test_relevance_that_no_unit_has(selection):
    net = network()
    advise = LayerAdvise(net, net.layer)
    relevance = advise.unit_relevance(images())
    for method in (advise.attribute, advise.explain):
        (message,) = said(lambda: method(images(), unit_selection=selection))  # noqa: B023
        assert message.startswith("3 of 3 examples have no unit with relevance ")
        assert f"{relevance.min()} to {relevance.max()}" in message
    assert not advise.attribute(images(), unit_selection=0).isnan().any()


@pytest.mark.case("`create_graph=True`", "the selected units' graph, as with `LayerGradCam`")
@pytest.mark.parametrize("selection", ["avx", "average_drop", 1, [0, 1]])
def test_graph_of_the_selected_units(selection):
    net = network().double()
    inputs = images().double().requires_grad_()
    advise = LayerAdvise(net, net.layer)
    kwargs = {"create_graph": True}
    attributions = advise.attribute(inputs, 2, unit_selection=selection, grad_kwargs=kwargs)
    (gradient,) = torch.autograd.grad(attributions.square().sum(), inputs)
    selected = advise.explain(inputs, 2, unit_selection=selection).selected_units
    grad_cam = LayerGradCam(net, net.layer).attribute(
        inputs, 2, attr_dim_summation=False, grad_kwargs=kwargs
    )
    by_hand = (grad_cam * selected[..., None, None]).sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(by_hand.square().sum(), inputs)
    assert gradient.any()
    torch.testing.assert_close(gradient, expected)
    explanation = advise.explain(inputs, 2, unit_selection=selection, grad_kwargs=kwargs)
    assert not explanation.attributions.requires_grad


@pytest.mark.case(
    "`forward_func` that returns (N,)", "works with `confidence`; else ValueError that names it"
)
def test_one_number_per_example():
    net = network(classes=1)
    one = LayerAdvise(lambda x: net(x)[:, 0], net.layer, confidence=torch.sigmoid)
    column = LayerAdvise(net, net.layer, confidence=torch.sigmoid)
    for selection in ("avx", "average_drop", 1, None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = one.explain(images(), unit_selection=selection)
            expected = column.explain(images(), unit_selection=selection)
        assert torch.equal(found.attributions, expected.attributions)
        assert torch.equal(found.metrics.average_drop, expected.metrics.average_drop)
        assert found.target is None
    with pytest.raises(ValueError, match="`confidence`"):
        LayerAdvise(lambda x: net(x)[:, 0], net.layer).attribute(images())


@pytest.mark.case(
    "`explain(unit_selection=None)`", "computes no relevance, so it takes layers of any size"
)
def test_all_units_need_no_relevance(monkeypatch):
    net = network()
    monkeypatch.setattr("captum_advise.layer_advise.unit_densities", None)
    explanation = LayerAdvise(net, net.layer).explain(images(), unit_selection=None)
    assert explanation.unit_relevance is None
    assert explanation.selected_relevances() == []
    assert explanation.describe_selection() == "all units selected"
    assert "None" not in repr(explanation)
    large = torch.rand(1, 3, 300, 300)
    assert LayerAdvise(net, net.layer).explain(large, unit_selection=None).selected_units.all()
