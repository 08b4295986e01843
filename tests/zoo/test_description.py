from __future__ import annotations

import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from messages import one_sentence
from torch import nn

from captum_advise import LayerAdvise, PixelSpace, explain, zoo
from captum_advise.layouts import Tokens
from captum_advise.zoo.recognition import recognize, unwrapped


@pytest.mark.parametrize(
    ("build", "name"),
    [
        ("resnet18", "ResNet18_Weights"),
        ("mobilenet_v3_small", "MobileNet_V3_Small_Weights"),
        ("squeezenet1_1", "SqueezeNet1_1_Weights"),
        ("shufflenet_v2_x0_5", "ShuffleNet_V2_X0_5_Weights"),
        ("efficientnet_b3", "EfficientNet_B3_Weights"),
    ],
)
def test_the_transform_of_torchvision(build, name, chelsea):
    model = torchvision.models.get_model(build).eval()
    weights = getattr(torchvision.models, name).DEFAULT
    network = zoo.describe(model)
    assert network.source == f"torchvision's transform for {weights}"
    assert network.transform(chelsea).equal(weights.transforms()(chelsea))
    assert list(network.class_names) == weights.meta["categories"]
    assert network.layer is model.get_submodule(network.layer_name)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("efficientnet_b3", "classifier"),
        ("efficientnet_v2_s", "classifier"),
        ("swin_v2_t", "head"),
        ("convnext_tiny", "classifier.2"),
        ("resnet50", "fc"),
        ("inception_v3", "fc"),
    ],
)
@pytest.mark.parametrize("is_deep", [False, True])
def test_torchvision_with_a_head_of_the_user_s_own(name, head, is_deep):
    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(**options)
        known = recognize(model, None)
        old = [part for part in model.get_submodule(head).modules() if isinstance(part, nn.Linear)]
        layers = [nn.Linear(old[0].in_features, 256), nn.ReLU(), nn.Linear(256, 5)]
        if not is_deep:
            layers = [nn.Linear(old[0].in_features, 5)]
            if name == "inception_v3":  # as in PyTorch's tutorial on fine-tuning
                model.AuxLogits.fc = nn.Linear(768, 5)
        parent, _, last = head.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Sequential(nn.Dropout(0.3), *layers))
    found = recognize(model, None)
    assert (found.shape, found.source) == (known.shape, known.source)
    assert found.pixel_space == known.pixel_space


def test_torchvision_with_another_head_and_another_width(chelsea):
    network = zoo.describe(torchvision.models.resnet18(num_classes=5))
    assert network.source == "torchvision's transform for ResNet18_Weights.IMAGENET1K_V1"
    assert network.class_names == tuple(f"class {index}" for index in range(5))
    network = zoo.describe(torchvision.models.mobilenet_v2(width_mult=0.3))
    assert network.source == "ImageNet's defaults"
    assert network.transform(chelsea).shape == (3, 224, 224)
    assert network.pixel_space == PixelSpace.imagenet()


def test_timm_with_labels_of_its_own():
    model = timm.create_model("test_resnet", num_classes=2)
    model.pretrained_cfg["label_names"] = ["cat", "dog"]
    assert zoo.describe(model).class_names == ("cat", "dog")
    model.reset_classifier(3)  # leaves the configuration as it was
    assert zoo.describe(model).class_names == ("class 0", "class 1", "class 2")
    del model.pretrained_cfg
    assert zoo.describe(model).source.startswith("timm's defaults")


def test_models_in_models(chelsea):
    model = timm.create_model("test_resnet").eval()
    for wrapped in (torch.compile(model), nn.DataParallel(model), torch.compile(model).eval()):
        assert unwrapped(wrapped) is model
        network = zoo.describe(wrapped)
        assert network.model is model
        assert network.layer is model.layer4
    average = torch.optim.swa_utils.AveragedModel(model)
    assert zoo.describe(average).model is average.module
    assert zoo.describe(average, layer="module.layer3").layer is average.module.layer3


# --- Hugging Face

SIZES = {
    "ViT": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "ConvNext": {"image_size": 64, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "Swin": {
        "image_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
    },
}
NAMES = {0: "cat", 1: "dog", 2: "cow"}


def hugging_face(name, **options):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**SIZES[name], **options)
    return getattr(transformers, f"{name}ForImageClassification")(config).eval()


@pytest.mark.parametrize(
    ("name", "layer", "layout"),
    [
        ("ViT", "layernorm_before", Tokens(1, (4, 4))),
        ("ResNet", "resnet.encoder.stages.3", None),
        ("ConvNext", "convnext.encoder.stages.3", None),
        ("Swin", "swin.layernorm", Tokens(0, (2, 2))),
    ],
)
def test_hugging_face(name, layer, layout, tmp_path, chelsea):
    transformers = pytest.importorskip("transformers")
    size = SIZES[name].get("image_size", 64)
    options = {"size": {"height": size, "width": size}, "image_mean": [0.1, 0.2, 0.3]}
    processor = transformers.ViTImageProcessor(**options, image_std=[0.4, 0.5, 0.6])
    hugging_face(name, id2label=NAMES).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    network = zoo.describe(model)
    assert network.layer_name.endswith(layer)
    assert network.reshape_transform == layout
    assert network.source == f"the image processor of {tmp_path}"
    assert network.class_names == ("cat", "dog", "cow")
    assert network.pixel_space == PixelSpace((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = processor(images=chelsea, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(network.transform(chelsea)[None], expected)
    # By hand, with a function of the caller's.
    advise = LayerAdvise(
        lambda pixels: model(pixels).logits,
        model.get_submodule(network.layer_name),
        pixel_space=network.pixel_space,
        reshape_transform=layout,
    )
    explanation = explain(chelsea, model, "dog", unit_selection=1)
    by_hand = advise.explain(network.transform(chelsea)[None], 1, unit_selection=1)
    assert explanation.attributions.equal(by_hand.attributions)
    assert explanation.confidence.equal(by_hand.confidence)


def test_hugging_face_without_a_checkpoint():
    with pytest.raises(ValueError, match=r"pass transform, such as AutoImageProcessor\.from_"):
        zoo.describe(hugging_face("ViT"))


def test_an_image_processor_as_the_transform(chelsea):
    model = hugging_face("ViT", num_labels=3)
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.3, 0.3, 0.3]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explanation = explain(chelsea, model, transform=processor, unit_selection=None)
    assert explanation.setup.pixel_space.mean == (0.3, 0.3, 0.3)
    assert explanation.class_name() in ("class 0", "class 1", "class 2")
    pixels = processor(images=np.array(chelsea), return_tensors="pt")["pixel_values"]
    expected = pixels * 0.5 + 0.3
    torch.testing.assert_close(explanation.images, expected)


def test_hugging_face_that_is_no_image_classifier():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    with pytest.raises(ValueError, match="only image classifiers") as error:
        zoo.describe(transformers.BertForSequenceClassification(config))
    one_sentence(error)
