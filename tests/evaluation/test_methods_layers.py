from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.models import resnet18, vgg11_bn

from captum_advise import PixelSpace, zoo
from captum_advise.evaluation import Context, MetricSettings, get_methods
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.methods.layers import find_layers
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.passes import counted_passes

IMAGE = torch.zeros(1, 3, 64, 64)


def found(model, layer, choice, image=IMAGE):
    return find_layers(model.eval(), model.get_submodule(layer), choice, image)


def test_the_layers_of_a_small_network(network):
    image = torch.zeros(1, 3, 24, 24)
    for layer, choice, name in (
        ("3", "layer", "3"),
        ("3", "activation", "4"),  # in place
        ("4", "activation", "4"),
        ("0", "activation", "1"),
        ("6", "activation", "6"),  # not a feature map
        ("3", "stages", "1+4"),
        ("0", "stages", "1"),
        ("3", "input", "input"),
        ("3", "-", "-"),
    ):
        layers = found(network, layer, choice, image)
        assert layers.name == name
        names = [] if name in ("input", "-") else name.split("+")
        assert list(layers.modules) == [network[int(n)] for n in names]
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    "choice", ["layer", "activation", "stages", "convolutions", "gated-grad-cam"]
)
def test_layers_are_found_in_one_pass(choice):
    network = resnet18().eval()
    with counted_passes(network) as passes:
        found(network, "layer4", choice)
    assert passes.count == 1


def test_the_layers_of_torchvision_s_networks():
    network = resnet18()
    assert found(network, "layer4", "activation").name == "layer4"
    assert found(network, "layer4", "stages").name == "relu+layer1+layer2+layer3+layer4"
    # Its activation function is called twice, and a hook on it would see two values.
    assert found(network, "layer4.1.bn1", "activation").name == "layer4.1.bn1"
    features = nn.Sequential(*list(vgg11_bn().features))
    # Normalisation lies before the activation. The stages end before pooling, as LayerCAM's.
    assert found(features, "25", "activation").name == "27"
    assert found(features, "25", "stages").name == "2+6+13+20+27"


def test_several_layers_of_transformers_and_of_networks_without_activations():
    def several(name, choice, size, **options):
        model = timm.create_model(name, num_classes=5, **options)
        network = zoo.describe(
            model.eval(),
            transform=lambda image: torch.zeros(3, size, size),
            pixel_space=PixelSpace.identity(),
            input_shape=(3, size, size),
        )
        return found(network.model, network.layer_name, choice, torch.zeros(1, 3, size, size)).name

    vit = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2}
    norms = "blocks.0.norm1+blocks.1.norm1+blocks.2.norm1"
    for choice in ("stages", "convolutions"):
        assert several("vit_tiny_patch16_224", choice, 32, **vit) == norms
    vit["depth"] = 10
    many = several("vit_tiny_patch16_224", "stages", 32, **vit)
    assert many == "blocks.0.norm1+... (10 layers)+blocks.9.norm1"
    swin = {"img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 8}
    swin |= {"depths": (1, 1), "num_heads": (2, 2)}
    name = "swin_tiny_patch4_window7_224"
    assert several(name, "stages", 64, **swin) == "layers.0+norm"
    assert several(name, "convolutions", 64, **swin) == (
        "patch_embed.norm+layers.0.blocks.0.norm1+layers.1.downsample.norm+layers.1.blocks.0.norm1"
        "+norm"
    )
    # The normalised output of each stage.
    downsamples = "+".join(f"stages.{i}.downsample.0" for i in (1, 2, 3))
    assert several("convnext_atto", "stages", 64) == f"{downsamples}+norm_pre"


def test_the_layers_of_efficientnet_lite():
    network = zoo.load("efficientnet-lite0", weights="random").model
    assert found(network, "conv_head", "activation").name == "bn2"
    assert found(network, "bn2", "activation").name == "bn2"
    assert found(network, "bn2", "stages").name == (
        "blocks.1.0.bn1+blocks.2.0.bn1+blocks.3.0.bn1+blocks.5.0.bn1+bn2"
    )


def method(model, layer, inputs, target, context):
    method.seen = layer, context.layers
    return inputs


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_row_names_the_layer_and_the_method_is_given_it(network, squares):
    methods = {
        "mine": method,
        **get_methods(["grad-cam", "layer-cam", "layer-cam-multi", "occlusion"]),
    }
    evaluator = ImageEvaluator(
        network, network[3], methods, Context(), MetricSettings(steps=1), seed=0
    )
    method.layers = "stages"
    item = Item("image", squares.inputs[0][None], 2)
    found = evaluator.rows(item, list(methods), get_metrics(["sparseness"]))
    rows = [row.values for row in found.values()]
    assert [row["layer"] for row in rows] == ["1+4", "3", "4", "1+4", "input"]
    assert method.seen == (network[4], (network[1], network[4]))
    # Finding the layers is not a part of a map.
    assert [row["forward_passes"] for row in rows[:4]] == [0, 1, 1, 1]


@pytest.mark.parametrize("choice", ["last", [], ["4"]])
def test_layers_that_there_are_not(choice, network, squares):
    def mine(model, layer, inputs, target, context):
        return inputs

    mine.layers = choice
    evaluator = ImageEvaluator(
        network, network[3], {"mine": mine}, Context(), MetricSettings(steps=1), seed=0
    )
    item = Item("image", squares.inputs[0][None], 2)
    sentence = r"The method mine cannot be run: .* one of layer, activation, stages, convol"
    with pytest.raises(ValueError, match=sentence):
        evaluator.rows(item, ["mine"], get_metrics(["sparseness"]))
