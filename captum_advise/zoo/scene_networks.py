"""Small networks of four families, trained on scenes: shapes whose place in the image is known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import nn

from captum_advise._utils.optional_dependencies import import_optional

SIZE = 64  # pixels, of both sides
CLASSES = (
    "disc",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "crescent",
    "hexagon",
    "arrow",
    "heart",
)
N_CLASSES = len(CLASSES)


def _resnet() -> nn.Module:
    resnet = import_optional("timm.models.resnet", "zoo")
    model: nn.Module = resnet.ResNet(
        resnet.BasicBlock,
        (1, 1, 1, 1),
        N_CLASSES,
        channels=(32, 64, 96, 128),
        output_stride=16,
        stem_type="deep",
        stem_width=16,
    )
    model.maxpool = nn.Identity()  # for images this small; the last feature map is 8 x 8
    return model


def _convnext() -> nn.Module:
    convnext = import_optional("timm.models.convnext", "zoo")
    model: nn.Module = convnext.ConvNeXt(
        num_classes=N_CLASSES,
        depths=(2, 2, 1, 1),
        dims=(48, 96, 128, 128),
        kernel_sizes=(7, 5, 3, 3),
        stem_type="overlap_act",
        output_stride=8,
        ls_init_value=None,
        conv_mlp=True,
        norm_layer="batchnorm2d",  # with layer norm, learning starts after several epochs
    )
    return _started(model)


def _plain() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for index, channels in enumerate((32, 48, 64, 96, 96, 128)):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [] if index % 2 else [nn.MaxPool2d(2)]
        inputs = channels
    features = nn.Sequential(*layers)
    pixels = (SIZE // 16) ** 2
    classifier = nn.Sequential(
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * pixels, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, N_CLASSES),
    )
    return _started(nn.Sequential(OrderedDict(features=features, classifier=classifier)))


def _started(model: nn.Module) -> nn.Module:
    """Weights of such a size that learning starts soon."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model


def _vit() -> nn.Module:
    vision_transformer = import_optional("timm.models.vision_transformer", "zoo")
    embed = import_optional("timm.layers", "zoo").HybridEmbed
    layers: list[nn.Module] = []
    inputs = 3
    for channels, stride in ((32, 2), (64, 2), (96, 2), (96, 1)):
        layers += [
            nn.Conv2d(inputs, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        inputs = channels
    model: nn.Module = vision_transformer.VisionTransformer(
        SIZE,
        1,
        num_classes=N_CLASSES,
        embed_dim=96,
        depth=6,
        num_heads=3,
        mlp_ratio=2.0,
        embed_layer=partial(embed, backbone=nn.Sequential(*layers), proj=True),
    )
    return model


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet": _resnet,
    "convnext": _convnext,
    "plain": _plain,
    "vit": _vit,
}
