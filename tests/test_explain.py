from __future__ import annotations

import copy
import json
import re
import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from messages import one_sentence
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from toy_networks import Net, network

from captum_advise import Explanation, GatedGradCam, LayerAdvise, PixelSpace, explain, zoo
from captum_advise.layouts import Tokens, channels_last

# Networks with random weights often have a map that is zero.
pytestmark = pytest.mark.filterwarnings("ignore:.*by GatedGradCam are zero:UserWarning")
SMALL = "timm/test_resnet"
SPACE = PixelSpace((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
TO_TENSOR = v2.Compose([v2.Resize((24, 24)), v2.PILToTensor(), v2.ToDtype(torch.float32, True)])
NORMALISED = v2.Compose([TO_TENSOR, v2.Normalize(SPACE.mean, SPACE.std)])


@pytest.fixture(scope="module")
def cat():
    return zoo.example_image()


@pytest.fixture(scope="module")
def model():
    """A network of timm, built without the zoo."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return timm.create_model("test_resnet", num_classes=10).eval()


@pytest.fixture
def toy():
    return network(Net)


# --- against the same by hand


def by_hand(model, layer, image, target=None):
    """The map and the inputs of a timm model with what timm itself says."""
    config = timm.data.resolve_model_data_config(model)
    inputs = timm.data.create_transform(**config)(image)[None]
    advise = LayerAdvise(model, layer, pixel_space=PixelSpace(config["mean"], config["std"]))
    return advise.explain(inputs, target), inputs


def test_equals_layer_advise_with_timms_own_configuration(model, cat):
    expected, inputs = by_hand(model, model.layer4, cat)
    explanation = explain(cat, model)
    torch.testing.assert_close(explanation.attributions, expected.attributions)
    assert explanation.selected.equal(expected.selected)
    assert explanation.target.equal(expected.target)
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(explanation.images, inputs * std + mean)


def test_a_name_equals_its_network(cat):
    net = zoo.load("scenes-resnet")
    expected = LayerAdvise(net.model, net.layer, pixel_space=net.pixel_space).explain(
        net.transform(cat)[None], 3
    )
    explanation = explain(cat, "scenes-resnet", "star")
    assert explanation.attributions.equal(expected.attributions)
    assert explanation.class_name() == "star"


def test_every_form_of_an_image_gives_the_same(model, cat, tmp_path):
    path = tmp_path / "cat.png"
    cat.save(path)
    forms = [path, str(path), cat, by_hand(model, model.layer4, cat)[1]]
    explanations = [explain(form, model, 3, unit_selection=None) for form in forms]
    assert len(explanations[0].images) == 1
    for explanation in explanations[1:]:
        assert explanation.images.equal(explanations[0].images)
        assert explanation.attributions.equal(explanations[0].attributions)


def test_several_images_and_targets(model, cat):
    mirrored = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = explain([cat, mirrored], model, [3, "class 7"])
    assert both.target.tolist() == [3, 7]
    for index, image in enumerate((cat, mirrored)):
        one = explain(image, model, both.target[index].item())
        torch.testing.assert_close(one.attributions[0], both.attributions[index])


# --- what is found


@pytest.mark.parametrize(
    ("name", "layer", "layout"),
    [
        ("test_resnet", "layer4", "N x C x H x W"),
        ("test_convnext", "norm_pre", "N x C x H x W"),
        ("test_mambaout", "stages", "N x H x W x C"),
        ("test_vit", "blocks.5.norm1", "N x tokens x C, patches after 1 tokens"),
    ],
)
def test_setup_of_layouts(name, layer, layout, cat):
    explanation = explain(cat, timm.create_model(name), unit_selection=None)
    assert (explanation.setup.layer, explanation.setup.layout) == (layer, layout)
    assert explanation.setup.transform == "timm's data configuration of the model"
    side = explanation.attributions.shape[-1]
    assert side > 1
    assert explanation.attributions.shape == (1, 1, side, side)


def test_setup_in_a_sentence(toy, cat):
    explanation = explain(cat, toy, transform=NORMALISED, class_names=list("abcdefg"))
    assert str(explanation.setup) == (
        "Net on cpu, layer act (N x C x H x W), 7 classes; inputs of 24 x 24 by the caller, "
        "mean (0.4, 0.5, 0.6), std (0.2, 0.3, 0.4)."
    )
    text = repr(explanation)
    name = "abcdefg"[explanation.target]
    assert f"0: class {explanation.target[0]} ({name}), confidence" in text
    assert text.endswith(f"Setup: {explanation.setup}")


# --- what is given


def test_layer_by_name_and_as_a_module(model, cat):
    by_name = explain(cat, model, 3, layer="layer3")
    as_module = explain(cat, model, 3, layer=model.layer3)
    expected, _ = by_hand(model, model.layer3, cat, 3)
    assert by_name.setup.layer == as_module.setup.layer == "layer3"
    for explanation in (by_name, as_module):
        torch.testing.assert_close(explanation.attributions, expected.attributions)


def test_any_classifier_with_a_transform(toy, cat):
    inputs = NORMALISED(cat)[None]
    expected = LayerAdvise(toy, toy.layer, pixel_space=SPACE).explain(inputs)
    for options in (
        {"transform": NORMALISED},
        {"transform": lambda image: NORMALISED(image), "pixel_space": SPACE},
    ):
        explanation = explain(cat, toy, layer="layer", **options)
        assert explanation.attributions.equal(expected.attributions)
        assert explanation.metrics.avx.equal(expected.metrics.avx)
    explanation = explain(inputs, toy, layer="layer", pixel_space=SPACE)
    assert explanation.attributions.equal(expected.attributions)
    assert explanation.setup.class_names[6] == "class 6"


def test_a_transform_for_a_name(cat):
    explanation = explain(cat, zoo.load(SMALL, weights="random"), transform=NORMALISED)
    assert explanation.images.shape == (1, 3, 24, 24)
    assert explanation.setup.pixel_space == SPACE
    assert (explanation.setup.model, explanation.setup.transform) == (SMALL, "the caller")


def test_a_pixel_space_and_class_names_for_a_name(cat):
    names = [f"kind {index}" for index in range(1000)]
    options = {"pixel_space": SPACE, "class_names": names, "layer": "layer3"}
    explanation = explain(cat, zoo.load(SMALL, weights="random"), "kind 7", **options)
    assert explanation.setup.pixel_space == SPACE
    assert explanation.setup.layer == "layer3"
    assert explanation.class_name() == "kind 7"
    assert explanation.setup.transform == "timm's data configuration of the model"


def test_reshape_transform_and_options(cat):
    model = timm.create_model("test_mambaout").eval()
    options = {"layer": "stages.3", "unit_selection": 1, "activation_range": "minmax"}
    found = explain(cat, model, 3, **options)
    given = explain(cat, model, 3, reshape_transform=lambda x: channels_last(x), **options)
    assert given.attributions.equal(found.attributions)
    assert given.setup.layout.startswith("reshaped by <function")
    vit = timm.create_model("test_vit").eval()
    tokens = Tokens(1, (10, 10))
    assert explain(cat, vit, reshape_transform=tokens).attributions.shape[-2:] == (10, 10)


def test_confidence_is_passed_on(toy, cat):
    explanation = explain(cat, toy, 2, transform=NORMALISED, confidence=torch.sigmoid)
    with torch.no_grad():
        expected = toy(NORMALISED(cat)[None]).sigmoid()[:, 2]
    torch.testing.assert_close(explanation.confidence, expected)


# --- the model is left unchanged


def test_the_model_is_left_unchanged(cat):
    model = torchvision.models.squeezenet1_1(num_classes=4).train()
    model.features[3].eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    first, second = (explain(cat, model, unit_selection=None) for _ in range(2))
    assert first.attributions.equal(second.attributions)  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert all(state[key].equal(value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.get_rng_state().equal(random)


def test_modes_are_restored_after_an_error(toy, cat):
    toy.train()
    with pytest.raises(ValueError, match="7 classes, got 2 class names"):
        explain(cat, toy, transform=NORMALISED, class_names=["a", "b"])
    with pytest.raises((ValueError, AssertionError)):
        explain(cat, toy, 99, transform=NORMALISED)
    assert all(module.training for module in toy.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(model, cat):
    expected = explain(cat, model, 3)
    on_gpu = copy.deepcopy(model).to("cuda")
    explanation = explain(cat, on_gpu, 3, layer=on_gpu.layer4)
    assert explanation.attributions.device.type == "cuda"
    torch.testing.assert_close(
        explanation.attributions.cpu(), expected.attributions, rtol=1e-2, atol=1e-3
    )


# --- the result


def test_all_of_the_result_is_saved(model, cat, tmp_path):
    explanation = explain([cat, cat], model, keep_units=True)
    assert type(explanation) is Explanation
    explanation.save(tmp_path / "explanation.npz")
    loaded = Explanation.load(tmp_path / "explanation.npz")
    assert list(loaded.maps) == list(explanation.maps)
    assert all(maps.equal(explanation.maps[name]) for name, maps in loaded.maps.items())
    assert loaded.map_metrics["grad-cam"].avx.equal(explanation.map_metrics["grad-cam"].avx)
    assert loaded.images.equal(explanation.images)
    assert loaded.units.densities.equal(explanation.units.densities)
    assert (loaded.setup, repr(loaded)) == (explanation.setup, repr(explanation))
    numbers = json.loads(json.dumps(explanation.to_dict()))
    assert numbers["setup"]["layer"] == "layer4"
    assert explanation.to("cpu").setup == explanation.setup


def test_the_recommended_map_comes_first(model, cat):
    explanation = explain(cat, model, 6)
    network = zoo.describe(model)
    inputs = by_hand(model, model.layer4, cat)[1]
    assert list(explanation.maps) == ["gated-grad-cam", "layer-advise", "grad-cam"]
    torch.testing.assert_close(
        explanation.maps["grad-cam"],
        LayerGradCam(model, model.layer4).attribute(inputs, 6).detach(),
    )
    assert explanation.setup.gated_layers == network.layer_names
    assert explanation.setup.gated_layers[-1] == "layer4"
    expected = GatedGradCam(model, [model.get_submodule(name) for name in network.layer_names])
    assert explanation.maps["gated-grad-cam"].equal(expected.attribute(inputs, 6))
    assert f"GatedGradCam at {' + '.join(network.layer_names)}, " in str(explanation.setup)
    assert "Maps: gated-grad-cam, layer-advise, grad-cam" in repr(explanation)
    moved = explanation.to("meta").maps
    assert {maps.device.type for maps in moved.values()} == {"meta"}


def test_grad_cam_has_the_metrics_of_all_units(model, cat):
    explanation = explain(cat, model, 6)
    config = timm.data.resolve_model_data_config(model)
    advise = LayerAdvise(model, model.layer4, pixel_space=PixelSpace(config["mean"], config["std"]))
    every = advise.explain(by_hand(model, model.layer4, cat)[1], 6, unit_selection=None)
    found = explanation.map_metrics
    assert list(found) == ["layer-advise", "grad-cam"]
    for name in ("avx", "ssim", "class_sensitivity"):
        torch.testing.assert_close(
            getattr(found["grad-cam"], name), getattr(every.metrics, name), rtol=1e-5, atol=1e-6
        )
        assert getattr(found["layer-advise"], name).equal(getattr(explanation.metrics, name))
    assert explain(cat, model, 6, with_metrics=False).map_metrics == {}


def test_one_unmasked_pass_makes_all_maps(cat):
    network = zoo.load(SMALL, weights="random")
    inputs, seen = network.transform(cat)[None], []

    def count(module, arguments):
        seen.append(sum(torch.equal(one, inputs[0]) for one in arguments[0]))

    with network.model.register_forward_pre_hook(count):
        assert "gated-grad-cam" in explain(cat, network, keep_units=True).maps
    assert sum(seen) == 1
    # One more where the layer is not known.
    seen.clear()
    with network.model.register_forward_pre_hook(count):
        explain(cat, network.model, transform=network.transform, pixel_space=network.pixel_space)
    assert sum(seen) <= 2
    assert sum(map(bool, seen)) == 1


def test_a_network_of_the_zoo(cat):
    network = zoo.load("scenes-resnet")
    expected = explain(cat, "scenes-resnet")
    found = explain(cat, network)
    assert found.attributions.equal(expected.attributions)
    assert found.setup == expected.setup
    assert explain(cat, network, layer="layer3").setup.layer == "layer3"
    names = [f"kind {index}" for index in range(10)]
    assert explain(cat, network, class_names=names).class_name().startswith("kind")


def test_further_arguments_of_the_model_reach_every_map(cat):
    class Scaled(nn.Module):
        """Two resolutions, and class scores in which the argument picks the sign."""

        def __init__(self):
            super().__init__()
            self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1))
            self.coarse = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1))
            self.head = nn.Linear(8, 4)

        def forward(self, x, sign=1):
            return self.head(self.coarse(self.fine(x).relu()).relu().mean((2, 3))) * sign

    model = network(Scaled)
    options = {"transform": NORMALISED, "layer": "coarse", "unit_selection": None}
    maps = []
    for sign in (1, -1):
        found = explain(cat, model, 2, additional_forward_args=sign, **options)
        layers = [model.get_submodule(name) for name in found.setup.gated_layers]
        inputs = NORMALISED(cat)[None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = GatedGradCam(model, layers).attribute(inputs, 2, sign)
        maps.append(found.maps["gated-grad-cam"])
        assert maps[-1].equal(expected)
    assert not maps[0].equal(maps[1])


def test_channels_last_layers_have_a_gated_map(cat):
    explanation = explain(cat, timm.create_model("test_mambaout").eval(), 3)
    side = explanation.images.shape[-1]
    assert explanation.maps["gated-grad-cam"].shape == (1, 1, side, side)


def test_layers_of_one_resolution_have_no_gated_map(cat):
    explanation = explain(cat, timm.create_model("test_vit").eval(), 3, unit_selection=None)
    assert list(explanation.maps) == ["layer-advise", "grad-cam"]
    assert explanation.setup.gated_layers == ()
    assert "GatedGradCam" not in str(explanation.setup)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_get_the_dtype_of_the_model(model, cat, dtype):
    inputs = by_hand(model, model.layer4, cat)[1]
    other = copy.deepcopy(model).to(dtype)
    found = explain(inputs, other, 3, unit_selection=None)
    assert found.maps["grad-cam"].dtype == dtype
    expected = explain(inputs.to(dtype), other, 3, unit_selection=None)
    assert found.attributions.equal(expected.attributions)


def test_under_inference_mode(model, cat):
    expected = explain(cat, model, 3)
    with torch.inference_mode():
        inputs = by_hand_inputs(model, cat)
        for form in (cat, inputs):
            assert explain(form, model, 3).attributions.equal(expected.attributions)


def by_hand_inputs(model, image):
    config = timm.data.resolve_model_data_config(model)
    return timm.data.create_transform(**config)(image)[None]


# --- what is refused


def refused(*arguments, **options):
    with pytest.raises((TypeError, ValueError, FileNotFoundError)) as error:
        explain(*arguments, **options)
    return one_sentence(error)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("missing.png", "no image missing.png"),
        (7, "got int"),
        (np.zeros((9, 9, 3)), r"got ndarray: PIL.Image.fromarray"),
        (torch.zeros(3, 24, 24), "got Tensor"),
        (torch.zeros(1, 3, 24, 24, dtype=torch.uint8), "holds inputs of the model"),
        (torch.zeros(0, 3, 24, 24), "no image to explain"),
        ([], "no image to explain"),
        ([torch.zeros(1, 3, 24, 24)], "got Tensor"),
    ],
)
def test_images_that_are_refused(image, message, toy):
    text = refused(image, toy, transform=NORMALISED)
    assert re.search(message, text), text


def test_models_that_are_refused(toy, cat):
    assert "not a model of timm, torchvision or Hugging Face" in refused(cat, toy)
    assert "got int" in refused(cat, 3)
    assert "no network 'resnt'" in refused(cat, "resnt")
    network = zoo.load(SMALL, weights="random")
    assert "not part of" in refused(cat, network, layer=toy.layer)
    assert "did you mean layer4" in refused(cat, network, layer="layer5")
    assert "class scores" in refused(cat, nn.Conv2d(3, 2, 3), transform=NORMALISED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(toy, torch.zeros(1, 3, 24, 24))
    assert "before torch.jit" in refused(cat, scripted, transform=NORMALISED)
    exported = torch.export.export(toy, (torch.zeros(1, 3, 24, 24),))
    assert "before torch.export" in refused(cat, exported, transform=NORMALISED)
    assert "before torch.export" in refused(cat, exported.module(), transform=NORMALISED)


def test_arguments_that_are_not_known(toy, cat):
    message = r"explain has no argument 'unit_selections' \(did you mean unit_selection.*\?\)\."
    with pytest.raises(TypeError, match=message):
        explain(cat, toy, unit_selections=1)
    with pytest.raises(TypeError, match=r"explain has no argument 'gated'\."):
        explain(cat, toy, gated=None)


def test_transforms_that_are_refused(toy, cat):
    assert "pass pixel_space" in refused(cat, toy, transform=lambda image: TO_TENSOR(image).sqrt())
    assert "got Image" in refused(cat, toy, transform=lambda image: image, pixel_space=SPACE)
    sizes = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, True)])
    images = [cat, cat.resize((99, 99))]
    assert "different shapes" in refused(images, toy, transform=sizes, pixel_space=SPACE)
    assert "no layer 'blob'" in refused(cat, toy, transform=NORMALISED, layer="blob")
    other = nn.Conv2d(3, 3, 3)
    assert "not part of Net" in refused(cat, toy, transform=NORMALISED, layer=other)


def test_inputs_that_look_like_images(model):
    images = torch.rand(1, 3, 160, 160)
    with pytest.warns(UserWarning, match="pass PIL images"):
        explain(images, model, unit_selection=None)
    explain(images, model, unit_selection=None, pixel_space=PixelSpace.identity())
