"""Models with adapters of PEFT."""

import warnings

import pytest
import timm
import torch
from PIL import Image
from skimage import data
from torch import nn

from captum_advise import explain, zoo

peft = pytest.importorskip("peft")


def with_adapters(config, architecture="test_resnet", **options):
    """A model of timm whose adapters change its answers."""
    model = timm.create_model(architecture, num_classes=7)
    adapted = peft.get_peft_model(model, config, **options)
    adapters = 0
    for name, parameter in adapted.named_parameters():
        if name.endswith(("bn3.weight", "bn2.weight")):
            nn.init.ones_(parameter)  # zero at first, so that blocks do nothing
        if any(part in name for part in ("lora_", "ia3_", "hada_")):
            nn.init.normal_(parameter, std=0.3)
            adapters += 1
    assert adapters
    return adapted.eval()


CONFIGS = {
    "LoRA of convolutions": lambda: with_adapters(
        peft.LoraConfig(r=4, target_modules=r".*conv2", modules_to_save=["fc"], lora_dropout=0.5)
    ),
    "LoRA of attention": lambda: with_adapters(
        peft.LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["head"]), "test_vit"
    ),
    "DoRA": lambda: with_adapters(
        peft.LoraConfig(r=4, target_modules="all-linear", use_dora=True), "test_vit"
    ),
    "IA3": lambda: with_adapters(
        peft.IA3Config(target_modules=["fc1", "fc2"], feedforward_modules=["fc2"]), "test_convnext"
    ),
    "LoHa": lambda: with_adapters(peft.LoHaConfig(r=4, target_modules=r".*conv2")),
    "several kinds": lambda: with_adapters(
        peft.LoraConfig(r=4, target_modules=r".*conv2"), mixed=True
    ),
    "the tuner alone": lambda: (
        with_adapters(peft.LoraConfig(r=4, target_modules=r".*conv2")).base_model
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_are_explained_as_if_they_were_merged(kind):
    model = CONFIGS[kind]()
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    image = Image.fromarray(data.chelsea()[:, :300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = zoo.describe(model)
        found = explain(image, model)
    assert network.name.startswith("timm ")
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    inputs = network.transform(image)[None]
    with torch.no_grad():
        torch.testing.assert_close(found.confidences, model(inputs).softmax(1))
    merged = model.merge_and_unload()
    expected = explain(image, merged)
    assert found.maps.keys() == expected.maps.keys()
    torch.testing.assert_close(found.confidences, expected.confidences, rtol=1e-3, atol=1e-5)
    grad_cam, of_merged = found.maps["grad-cam"], expected.maps["grad-cam"]
    torch.testing.assert_close(grad_cam, of_merged, rtol=1e-2, atol=1e-3 * float(of_merged.std()))
