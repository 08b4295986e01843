"""Models and processors that are not what one expects: what ``describe`` makes of them, or says."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
import torchvision
from messages import one_sentence
from PIL import Image
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import v2

from captum_advise import PixelSpace, explain, targets, zoo

TO_TENSOR = v2.Compose([v2.Resize((64, 64)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
RED = Image.new("RGB", (80, 80), "red")


class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def features(self, x):
        return self.second(self.first(x).relu()).relu().mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


class Outputs(Net):
    def forward(self, x):
        return {"scores": super().forward(x), "mask": x}


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Frozen(Net):
    def features(self, x):
        with torch.no_grad():
            return super().features(x)


@pytest.fixture
def small():
    return timm.create_model("test_resnet").eval()


def refused(*arguments, error=ValueError, **options):
    with pytest.raises(error) as caught:
        zoo.describe(*arguments, **options)
    return one_sentence(caught)


# --- what images become


class Processor:
    """As an image processor of Hugging Face is called."""

    image_mean, image_std = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]

    def __init__(self, change):
        self.change = change

    def __call__(self, images, return_tensors):
        assert return_tensors == "pt"
        pixels = torch.from_numpy(np.asarray(images.resize((64, 64))) / 255).float()
        return {"pixel_values": self.change(pixels.permute(2, 0, 1))[None]}


@pytest.mark.parametrize(
    ("change", "space"),
    [
        (lambda x: x.flip(0), PixelSpace((0, 0, 0), (1, 1, 1), is_bgr=True)),  # MobileViT's
        (lambda x: x, PixelSpace.identity()),  # do_normalize=False
        (lambda x: (x - 0.5) / 0.5 / 0.5, PixelSpace((0.5,) * 3, (0.25,) * 3)),
        (lambda x: (x - 0.5) / 0.5, PixelSpace((0.5,) * 3, (0.5,) * 3)),
    ],
)
def test_image_processors_are_measured(change, space, chelsea):
    network = zoo.describe(Net(), transform=Processor(change))
    assert network.pixel_space == space
    shown = network.pixel_space.to_pixels(network.transform(RED)[None])
    expected = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(shown)
    torch.testing.assert_close(shown, expected)
    explanation = explain(chelsea, Net().eval(), transform=Processor(change))
    torch.testing.assert_close(
        explanation.images, Processor(lambda x: x)(chelsea, "pt")["pixel_values"]
    )


def test_mobile_vit_sees_blue_first():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileViTConfig(image_size=64, num_labels=3)
    model = transformers.MobileViTForImageClassification(config).eval()
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    network = zoo.describe(model, transform=transformers.MobileViTImageProcessor(**sizes))
    assert network.pixel_space == PixelSpace((0, 0, 0), (1, 1, 1), is_bgr=True)
    inputs = network.transform(RED)
    assert inputs.shape == (3, 64, 64)
    assert inputs[:, 32, 32].tolist() == [0, 0, 1]
    assert network.pixel_space.to_pixels(inputs[None])[0, :, 32, 32].tolist() == [1, 0, 0]


@pytest.mark.parametrize("transform", [None, TO_TENSOR, Processor(abs)])
def test_transforms_can_be_sent_to_other_processes(transform, small, chelsea):
    network = zoo.describe(small, transform=transform)
    sent = pickle.loads(pickle.dumps(network.transform))
    assert sent(chelsea).equal(network.transform(chelsea))


def test_one_number_for_all_channels():
    transform = v2.Compose([TO_TENSOR, v2.Normalize((0.5,), (0.5,))])
    assert zoo.describe(Net(), transform=transform).pixel_space == PixelSpace(
        (0.5,) * 3, (0.5,) * 3
    )


def test_grey_images(chelsea):
    transform = v2.Compose([v2.Grayscale(), TO_TENSOR, v2.Normalize((0.3,), (0.2,))])
    network = zoo.describe(Net(1).eval(), transform=transform)
    assert network.pixel_space == PixelSpace((0.3,), (0.2,))
    explanation = explain(chelsea, Net(1).eval(), transform=transform)
    assert explanation.images.shape == (1, 1, 64, 64)


def with_one_channel():
    model = torchvision.models.resnet18()
    model.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("test_resnet", in_chans=1),
        lambda: timm.create_model("test_vit", in_chans=1),
        lambda: timm.create_model(
            "test_resnet",
            in_chans=1,
            pretrained_cfg_overlay={"input_size": (1, 160, 160), "mean": (0.4,), "std": (0.3,)},
        ),
        with_one_channel,
    ],
)
def test_models_of_one_channel_get_grey_images(make, chelsea):
    network = zoo.describe(make().eval())
    inputs = network.transform(chelsea)
    assert inputs.shape[0] == 1
    assert network.source.endswith(", of grey images")
    grey = network.transform(chelsea.convert("L"))
    torch.testing.assert_close(inputs, grey)
    # The image as it was, but for the weights of the colours: Pillow's.
    pixels = network.pixel_space.to_pixels(inputs[None])
    white = network.transform(Image.new("L", (300, 300), 255))
    torch.testing.assert_close(network.pixel_space.to_pixels(white[None]), torch.ones_like(pixels))
    explanation = explain(chelsea, network)
    torch.testing.assert_close(explanation.images, pixels.clamp(0, 1))
    pickle.loads(pickle.dumps(network.transform))


def test_the_mean_and_std_of_grey_images():
    """ImageNet's of one channel, as others state them."""
    space = zoo.describe(with_one_channel().eval()).pixel_space
    assert space.mean == pytest.approx([0.449], abs=1e-3)
    assert space.std == pytest.approx([0.226], abs=1e-3)


@pytest.mark.filterwarnings("ignore:The checkpoint")
def test_a_model_of_hugging_face_with_one_channel(chelsea, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        num_channels=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    explanation = explain(chelsea, model)
    assert explanation.images.shape == (1, 1, 224, 224)


def test_models_of_other_channels_are_refused():
    message = refused(timm.create_model("test_resnet", in_chans=4))
    assert "(3, 160, 160), from timm's data configuration" in message
    assert "pass transform if it takes others" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_have_the_dtype_of_the_model(dtype, small, chelsea):
    network = zoo.describe(copy.deepcopy(small).to(dtype))
    assert network.transform(chelsea).dtype == dtype
    assert network.layer_name == "layer4"
    assert explain(chelsea, network.model).attributions.dtype == dtype


@pytest.mark.parametrize(
    ("switch", "value", "default"),
    [
        (torch.set_default_device, "meta", None),
        (torch.set_default_dtype, torch.float64, torch.float32),
    ],
)
def test_other_defaults_change_nothing(switch, value, default, small, chelsea):
    expected = zoo.describe(small)
    before = expected.transform(chelsea)
    switch(value)
    try:
        network = zoo.describe(small)
        inputs = network.transform(chelsea) if default else before
    finally:
        switch(default)
    assert (network.layer_name, network.layer_names) == (expected.layer_name, expected.layer_names)
    torch.testing.assert_close(inputs, before)  # and of the same dtype


# --- models


def test_a_network_at_another_layer(small):
    network = zoo.describe(small, class_names=[str(n) for n in range(1000)])
    other = zoo.describe(network, layer="layer3")
    assert other.layer is small.layer3
    assert other.layer_names[-1] == "layer3"
    for attribute in ("name", "model", "pixel_space", "class_names", "weights", "source"):
        assert getattr(other, attribute) == getattr(network, attribute)
    changed = zoo.describe(network, transform=TO_TENSOR)
    assert (changed.pixel_space, changed.source) == (PixelSpace.identity(), "the caller")
    assert changed.layer is network.layer


def test_adapters_of_peft(small):
    class Peft(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.base_model = nn.Module()
            self.base_model.model = model

        def get_base_model(self):
            return self.base_model.model

    network = zoo.describe(Peft(small))
    assert network.model is small
    assert network.name.startswith("timm")


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (torch.compile, "_orig_mod.layer3"),
        (nn.DataParallel, "module.layer3"),
        (nn.Identity, "layer3"),
    ],
)
def test_layers_by_their_name_in_what_is_wrapped_around(wrap, name, small):
    model = small if wrap is nn.Identity else wrap(small)
    assert zoo.describe(model, layer=name).layer is small.layer3


def test_inference_mode(small):
    with torch.inference_mode():
        assert zoo.describe(small).layer_names == ("layer3", "layer4")


def test_a_classifier_of_hugging_face_without_an_image_processor(chelsea):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    model = transformers.Dinov2WithRegistersForImageClassification(config).eval()
    assert "pass transform, such as AutoImageProcessor" in refused(model)
    transform = v2.Compose([v2.Resize((224, 224)), v2.ToImage(), v2.ToDtype(torch.float32, True)])
    layout = explain(chelsea, model, transform=transform, with_metrics=False).setup.layout
    assert layout == "N x tokens x C, patches after 5 tokens"


@pytest.mark.parametrize("build", ["timm", "torchvision"])
def test_no_head(build):
    if build == "timm":
        model = timm.create_model("test_resnet", num_classes=0)
    else:
        model = torchvision.models.resnet18()
        model.fc = nn.Identity()
    assert "ResNet has no classification head" in refused(model)


def test_hugging_face_without_a_head():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    assert "ViTModel has no classification head" in refused(transformers.ViTModel(config))


def test_scores_that_are_a_part_of_the_output():
    for model, words in ((Outputs(), "a dict with scores, mask"), (Pair(), "a tuple")):
        message = refused(model, transform=TO_TENSOR)
        assert f"returns {words}, not class scores" in message
        assert "captum_advise.targets.Output(model, key)" in message
    wrapped = targets.Output(Outputs(), "scores", confidence=torch.sigmoid)
    network = zoo.describe(wrapped, transform=TO_TENSOR)
    assert network.layer is wrapped.model.get_submodule("second")
    assert network.model is wrapped


def test_several_labels_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    config = transformers.ResNetConfig(**sizes, problem_type="multi_label_classification")
    model = transformers.ResNetForImageClassification(config)
    network = zoo.describe(model, transform=TO_TENSOR)
    assert network.model.confidence is torch.sigmoid


def test_features_without_gradients():
    assert "under torch.no_grad, detaches or quantises" in refused(Frozen(), transform=TO_TENSOR)


def test_gradients_that_checkpoints_stop():
    class Checkpointed(Net):
        def features(self, x):
            return checkpoint(super().features, x, use_reentrant=True)

    assert "or recomputes them by torch.utils.checkpoint" in refused(
        Checkpointed(), transform=TO_TENSOR
    )


def test_what_is_no_layer(small):
    message = "layer must be a module of the model or its dotted name, got int."
    assert refused(small, layer=4, error=TypeError) == message
    assert "has no layer 'layer9' (did you mean layer" in refused(small, layer="layer9")
    for layer, words in (
        ("nope", "has no layer 'nope': its last feature maps are layer4"),
        ("fc", "returns a tensor of the shape (1, 1000), not a feature map: its last"),
    ):
        assert words in refused(small, layer=layer)
    auxiliary = torchvision.models.googlenet(init_weights=False)
    assert "aux1.conv' of torchvision GoogLeNet does not run" in refused(
        auxiliary, layer="aux1.conv"
    )


def test_rows_that_are_rearranged_may_have_no_positions(small):
    network = zoo.describe(small, layer="fc", reshape_transform=lambda x: x.view(-1, 10, 10, 10))
    assert network.layer is small.fc
    assert network.reshape_transform(torch.zeros(1, 1000)).shape == (1, 10, 10, 10)
