from __future__ import annotations

import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from messages import one_sentence
from PIL import Image

from captum_advise import zoo

SMALL = "torchvision/shufflenet_v2_x0_5"
CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, nothing in the caches."""

    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


# --- the networks that bring their weights


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_lite_sees_the_cat(number, size, chelsea, capfd):
    network = zoo.load(f"efficientnet-lite{number}")
    inputs = network.transform(chelsea).unsqueeze(0)
    with torch.no_grad():
        best = network.model(inputs).argmax().item()
    assert inputs.shape == (1, 3, size, size)
    assert network.class_names[best] in CATS
    assert not network.model.training
    assert (network.layer_name, network.weights) == ("bn2", "default")
    assert network.layer is network.model.bn2
    assert capfd.readouterr() == ("", "")


def test_efficientnet_lite_is_explained_after_its_activation(lite0, chelsea):
    """The default layer is the head after batch norm and ReLU6."""
    maps = []
    handle = lite0.layer.register_forward_hook(lambda *call: maps.append(call[2]))
    with torch.no_grad():
        lite0.model(lite0.transform(chelsea).unsqueeze(0))
    handle.remove()
    assert maps[0].shape == (1, 1280, 7, 7)
    assert maps[0].min() == 0
    assert 1 < maps[0].max() <= 6


@pytest.mark.parametrize("layer", ["conv_head", "bn2.drop", "blocks.6.0"])
def test_other_layers_of_efficientnet_lite(layer, lite0):
    network = zoo.load("efficientnet-lite0", weights="random", layer=layer)
    assert network.layer is network.model.get_submodule(layer)


def test_efficientnet_lite_transform_against_pillow_and_numpy(lite0, chelsea):
    """Bicubic to 256, central 224, (pixel - 127) / 128: written out by hand."""
    width, height = chelsea.size
    scaled = chelsea.resize((256 * width // height, 256), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - 224) / 2), 16
    crop = np.asarray(scaled.crop((left, top, left + 224, top + 224)), dtype=np.float64)
    expected = torch.from_numpy((crop - 127) / 128).permute(2, 0, 1)
    inputs = lite0.transform(chelsea)
    assert inputs.dtype == torch.float32
    assert type(inputs) is torch.Tensor
    torch.testing.assert_close(inputs.double(), expected, atol=1e-6, rtol=0)
    pixels = lite0.pixel_space.to_pixels(inputs.unsqueeze(0))
    torch.testing.assert_close(
        pixels[0].double(), torch.from_numpy(crop / 255).permute(2, 0, 1), atol=1e-6, rtol=0
    )


@pytest.mark.filterwarnings("ignore:A 16-bit image")  # of 8-bit values, as mode I
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_every_mode_becomes_a_model_input(lite0, chelsea, mode):
    inputs = lite0.transform(chelsea.convert(mode))
    assert inputs.shape == (3, 224, 224)
    assert inputs.isfinite().all()
    assert -1 <= inputs.min() < inputs.max() <= 1


def test_class_names_are_imagenets(lite0):
    assert len(lite0.class_names) == 1000
    assert [lite0.class_names[index] for index in (0, 281, 285, 340, 999)] == [
        "tench",
        "tabby",
        "Egyptian cat",
        "zebra",
        "toilet tissue",
    ]


# --- layers


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("alexnet", "features.10", (1, 256, 13, 13)),
        ("vgg16", "features.28", (1, 512, 14, 14)),
        ("resnet50", "layer4", (1, 2048, 7, 7)),
        ("xception", "conv4.pointwise", (1, 2048, 10, 10)),
        (SMALL, "conv5", (1, 1024, 7, 7)),
        ("torchvision/resnet18", "layer4", (1, 512, 7, 7)),
        ("torchvision/swin_t", "permute", (1, 768, 7, 7)),
        ("timm/resnet18", "layer4", (1, 512, 7, 7)),
        ("timm/resnet18.a1_in1k", "layer4", (1, 512, 7, 7)),
    ],
)
def test_default_layers(name, layer, shape, chelsea):
    network = zoo.load(name, weights="random")
    shapes = []
    handle = network.layer.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape)))
    with torch.no_grad():
        network.model(network.transform(chelsea).unsqueeze(0))
    handle.remove()
    assert network.layer_name == layer
    assert shapes == [shape]
    assert not network.model.training
    assert not any(module._forward_hooks for module in network.model.modules())


def test_layer_by_name():
    network = zoo.load(SMALL, weights="random", layer="stage4.0")
    assert network.layer is network.model.stage4[0]
    with pytest.raises(ValueError, match=r"no layer 'stag4' \(did you mean stage4") as error:
        zoo.load(SMALL, weights="random", layer="stag4")
    one_sentence(error)


# --- weights


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone(small, logits_of):
    before = torch.get_rng_state()
    again = zoo.load(SMALL, weights="random", seed=3)
    other = zoo.load(SMALL, weights="random", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logits_of(again), logits_of(small))
    assert not torch.equal(logits_of(other), logits_of(small))


@pytest.mark.parametrize("name", ["alexnet", SMALL, "xception", "timm/resnet18"])
def test_offline_errors_say_what_to_do(offline, name):
    with pytest.raises(RuntimeError, match=rf"weights of {name} .* a model of your own") as error:
        zoo.load(name)
    one_sentence(error)
