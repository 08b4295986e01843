from __future__ import annotations

import pytest
import torch
from messages import one_sentence
from timm import create_model
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from captum_advise.layouts import Tokens, channels_last
from captum_advise.zoo import describe, load
from captum_advise.zoo.layer_probe import feature_layers, layout_of, probe


class Reusing(nn.Module):
    """The activation is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)
        self.activation, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, inputs):
        maps = self.activation(self.second(self.activation(self.first(inputs))))
        return self.pool(maps).flatten(1)


class Failing(Reusing):
    def forward(self, inputs):
        super().forward(inputs)
        raise RuntimeError("broken")


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks]


@pytest.mark.parametrize(
    ("n_tokens", "size", "tokens"),
    [
        (197, (224, 224), Tokens(1, (14, 14))),
        (201, (224, 224), Tokens(5, (14, 14))),
        (1 + 9 * 16, (144, 256), Tokens(1, (9, 16))),
        (49, (224, 224), Tokens(0, (7, 7))),
        (32, (64, 64), None),  # not 7 and 5 x 5
        (30, (64, 64), None),  # nor 5 and 5 x 5, which are patches of 12.8 pixels
    ],
)
def test_tokens_are_read_as_grids_that_models_have(n_tokens, size, tokens):
    assert layout_of(torch.zeros(1, n_tokens, 8), size) == (tokens is not None, tokens)


class Strided(nn.Sequential):
    """Halves the image five times; padded or not, in either layout."""

    def __init__(self, kernel=3, padding=1, is_last=False):
        stages = [nn.Conv2d(3, 8, kernel, 2, padding)]
        stages += [nn.Conv2d(8, 8, kernel, 2, padding) for _ in range(4)]
        super().__init__(*stages, *([Permuted()] if is_last else []), Pooled(is_last))


class Permuted(nn.Module):
    def forward(self, maps):
        return maps.movedim(1, -1)


class Pooled(nn.Module):
    def __init__(self, is_last):
        super().__init__()
        self.positions = (1, 2) if is_last else (2, 3)

    def forward(self, maps):
        return maps.mean(self.positions)


@pytest.mark.parametrize(
    "size", [(360, 640), (240, 320), (225, 400), (300, 200), (333, 500), (180, 320)]
)
@pytest.mark.parametrize("options", [{}, {"padding": 0}, {"kernel": 7, "padding": 3}])
def test_the_default_layer_of_images_whose_sides_strides_do_not_divide(size, options):
    # As of square images: the last map, not the last one with exactly the aspect of the image.
    plain, last = (
        probe(Strided(is_last=own, **options), (3, *size), "strided") for own in (False, True)
    )
    assert (plain.layer, plain.layers, plain.layouts) == ("4", ("3", "4"), {})
    assert (last.layer, last.layouts) == ("5", {"5": channels_last})


@pytest.mark.parametrize("size", [(360, 640), (240, 320)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_networks_have_the_layers_of_square_images_for_others(name, size):
    model = getattr(models, name)().eval()
    square, wide = (probe(model, (3, *own), name) for own in ((224, 224), size))
    assert (wide.layer, wide.layers) == (square.layer, square.layers)


def test_maps_that_are_pooled_to_a_size_of_their_own_fit_by_chance():
    # The last maps are 7 x 10.
    vgg = models.vgg11(num_classes=3).eval()
    wide, fitting = (probe(vgg, size, "vgg") for size in ((3, 240, 320), (3, 256, 448)))
    assert (wide.layer, wide.layers) == ("features", ("features.19", "features"))
    assert wide == fitting
    assert probe(vgg, (3, 224, 224), "vgg").layer == "avgpool"


def test_no_layer_before_tokens_of_an_unknown_grid_is_taken_for_the_last():
    vit = create_model("test_vit", dynamic_img_size=True, dynamic_img_pad=True).eval()
    assert probe(vit, (3, 160, 240), "vit").layer == probe(vit, (3, 160, 160), "vit").layer
    with pytest.raises(ValueError, match="no layer with a feature map") as error:
        probe(vit, (3, 168, 248), "vit")  # 11 x 16 patches, with a border
    one_sentence(error)


def test_a_reused_module_is_not_the_default_layer():
    model = Reusing()
    result = probe(model, (3, 8, 8), "reusing")
    assert (result.layer, result.layouts, result.classes) == ("second", {}, 2)
    assert hooks(model) == []


def test_no_hook_is_left_when_the_pass_fails():
    model = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        probe(model, (3, 8, 8), "failing")
    assert hooks(model) == []


def test_a_model_that_is_not_a_classifier_is_refused():
    model = nn.Conv2d(3, 2, 3)
    with pytest.raises(ValueError, match=r"class scores \(N, K\)") as error:
        probe(model, (3, 8, 8), "convolution")
    one_sentence(error)
    assert hooks(model) == []


def test_a_head_at_zero_stays_at_zero():
    model = nn.Sequential(Reusing(), nn.Linear(2, 3))
    nn.init.zeros_(model[1].weight)
    result = probe(model, (3, 8, 8), "zero head")
    assert (result.layer, result.classes) == ("0.second", 3)
    assert not model[1].weight.any()


def test_the_global_random_state_is_left_alone():
    model = Reusing()
    before = torch.get_rng_state()
    probe(model, (3, 8, 8), "reusing")
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_with_feature_maps():
    net = nn.Sequential()
    net.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    net.block = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
    net.drop = nn.Identity()
    net.pool = nn.AdaptiveAvgPool2d(1)
    net.flat = nn.Flatten()
    net.head = nn.Linear(16, 5)
    before = {name: len(module._forward_hooks) for name, module in net.named_modules()}
    transform = v2.Compose([v2.Resize(16), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    network = describe(net, transform=transform, layer="block")
    assert feature_layers(network) == {
        "stem": (8, 8, 8),
        "block.0": (16, 4, 4),
        "block": (16, 4, 4),  # which is block.1 as well
    }
    assert {name: len(module._forward_hooks) for name, module in net.named_modules()} == before


def test_layers_of_a_transformer_are_rearranged():
    network = load("timm/test_vit", weights="random")
    assert feature_layers(network)[network.layer_name] == (64, 10, 10)
    assert network.reshape_transform == Tokens(1, (10, 10))
