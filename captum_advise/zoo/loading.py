"""Loading a network by name."""

from __future__ import annotations

import pickle
from typing import Literal

import torch

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.zoo.families import build
from captum_advise.zoo.images import to_rgb
from captum_advise.zoo.layer_probe import Probe, probe
from captum_advise.zoo.network import Network
from captum_advise.zoo.registry import find_entry
from captum_advise.zoo.scene_networks import CLASSES


def load(
    name: str,
    *,
    layer: str | None = None,
    weights: Literal["default", "random"] = "default",
    device: str | torch.device = "cpu",
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
        device: Where the model goes.
        seed: For ``weights="random"``.

    Raises:
        ValueError, ImportError, RuntimeError: A name, layer, kind of weights or device is unknown,
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
    device = usable_device(device)
    # Building draws random numbers, also when weights are loaded afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model, inputs = build(entry, weights == "default")
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
        probed = probe(model, inputs.shape[1:], name, layer=layer or entry.layer)
    compose = import_optional("torchvision.transforms", "zoo").Compose
    return Network(
        name=name,
        model=model.to(device),
        pixel_space=inputs.pixel_space,
        transform=compose([to_rgb, inputs.transform]),
        class_names=CLASSES if entry.family == "scenes" else imagenet_or_numbers(probed.classes),
        weights=weights,
        source=inputs.source,
        **probed.layers_of(model),
    )


def imagenet_or_numbers(classes: int) -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, or numbered ones."""
    if classes != 1000:
        return numbered(classes)
    weights = import_optional("torchvision.models", "zoo").ResNet50_Weights.DEFAULT
    return tuple(weights.meta["categories"])


def numbered(classes: int) -> tuple[str, ...]:
    """``class 0``, ``class 1``, ..."""
    return tuple(f"class {index}" for index in range(classes))


def usable_device(device: str | torch.device) -> torch.device:
    """The device of a name, if it is one of this machine."""
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    # Which error depends on how torch was built and on the driver.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"The device {str(device)!r} cannot be used here ({reason(error)})."
        ) from error
    return chosen
