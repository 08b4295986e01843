"""The layers that a network of the zoo gives to GatedGradCam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_advise import GatedGradCam, zoo
from captum_advise.zoo.layer_probe import probe
from captum_advise.zoo.registry import find_entry


def names_of(network):
    names = {module: name for name, module in network.model.named_modules()}
    return [names[layer] for layer in network.layers]


@pytest.mark.parametrize(
    "name",
    [
        name if "lite" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in zoo.list_networks()
        if find_entry(name).finer_layers  # the others are probed when they are loaded
    ],
)
def test_fixed_layers_are_those_of_the_probe(name):
    entry = find_entry(name)
    network = zoo.load(name, weights="random")
    shape = network.transform(zoo.example_image()).shape
    assert network.layer_names == probe(network.model, shape, name, layer=entry.layer).layers


def test_lite0(lite0):
    assert names_of(lite0) == list(lite0.layer_names) == ["blocks.5.0.bn1", "blocks.6", "bn2"]
    assert lite0.layers[-1] is lite0.layer
    assert lite0.reshape_transforms == (None, None, None)


def test_the_last_layer_is_the_one_that_is_named():
    network = zoo.load("torchvision/shufflenet_v2_x0_5", weights="random", layer="stage3")
    assert names_of(network)[-1] == "stage3"
    assert names_of(network) == list(network.layer_names)
    assert network.layers[-1] is network.layer
    inputs = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        shapes = [shape_of(network.model, layer, inputs) for layer in network.layers]
    assert shapes[0][2] == 2 * shapes[-1][2]


def shape_of(model, layer, inputs):
    shapes = []
    handle = layer.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape))
    model(inputs)
    handle.remove()
    return shapes[0]


def test_a_network_of_one_resolution_has_none():
    network = zoo.load("timm/test_vit", weights="random")
    assert network.layers == ()
    with pytest.raises(ValueError, match="feature maps at two resolutions"):
        GatedGradCam(network.model, network.layers)


class Residual(nn.Module):
    """The finest convolution of the last stage is in one branch only."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, stride=2))
        self.shortcut = nn.Conv2d(4, 4, 1, stride=2)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.branch(x) + self.shortcut(x)
        return self.head(self.last(self.block(x)).mean((2, 3)))


def test_branches_are_passed_over_and_blocks_are_found():
    found = probe(Residual().eval(), (3, 8, 8), "residual")
    assert found.layers == ("stem", "block", "last")
