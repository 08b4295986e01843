"""The networks that the zoo knows, by name. Nothing here needs torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from captum_advise._utils.optional_dependencies import import_optional


@dataclass(frozen=True)
class Entry:
    """One network of a family."""

    family: str  # "lite", "scenes", "torchvision" or "timm"
    architecture: str  # the family's name for it
    layer: str | None = None  # the default layer; None if a probe finds it
    tag: str = "DEFAULT"  # which of torchvision's weights are the pretrained ones
    # What GatedGradCam takes before the default layer, as the probe finds it.
    finer_layers: tuple[str, ...] = ()


# The layers of the paper's four networks are those that the authors' program reads. Its ResNet50 is
# nearest to the first weights of torchvision; torchvision/resnet50 has the newest.
_LITE = ("blocks.5.0.bn1", "blocks.6")
_NAMED = {
    "efficientnet-lite0": Entry("lite", "tf_efficientnet_lite0", "bn2", finer_layers=_LITE),
    "efficientnet-lite1": Entry("lite", "tf_efficientnet_lite1", "bn2", finer_layers=_LITE),
    "efficientnet-lite2": Entry("lite", "tf_efficientnet_lite2", "bn2", finer_layers=_LITE),
    "alexnet": Entry("torchvision", "alexnet", "features.10", "IMAGENET1K_V1", ("features.4",)),
    "vgg16": Entry("torchvision", "vgg16", "features.28", "IMAGENET1K_V1", ("features.22",)),
    "resnet50": Entry("torchvision", "resnet50", "layer4", "IMAGENET1K_V1", ("layer3", "layer4.1")),
    "xception": Entry(
        "timm", "legacy_xception", "conv4.pointwise", finer_layers=("block11", "conv3")
    ),
    "scenes-resnet": Entry("scenes", "resnet"),
    "scenes-convnext": Entry("scenes", "convnext"),
    "scenes-plain": Entry("scenes", "plain", "features"),
    "scenes-vit": Entry("scenes", "vit"),
}


def list_networks() -> tuple[str, ...]:
    """The networks that have a name of their own.

    :func:`load` also takes ``torchvision/NAME`` for every ImageNet classifier of torchvision
    and ``timm/NAME`` for every model of timm.

    Example::

        >>> zoo.list_networks()
        ('efficientnet-lite0', ..., 'resnet50', 'xception', ..., 'scenes-vit')
    """
    return tuple(_NAMED)


def find_entry(name: str) -> Entry:
    """The entry of a network, by a name that :func:`load` takes; an error names similar ones."""
    if name in _NAMED:
        return _NAMED[name]
    family, slash, architecture = name.partition("/")
    if slash and architecture in architectures(family):
        return Entry(family, architecture)
    if slash and family == "timm" and import_optional("timm", "zoo").is_model(architecture):
        return Entry(family, architecture)  # with a tag: resnet18.a1_in1k
    families = [family] if slash else ["torchvision", "timm"]
    known = [f"{other}/{member}" for other in families for member in architectures(other)]
    # Compared without the family. The first wins where two names differ in the family only.
    by_tail = {other.rpartition("/")[2]: other for other in reversed(known)}
    close = difflib.get_close_matches(name.lower(), _NAMED, n=1, cutoff=0.8)
    close += [by_tail[tail] for tail in difflib.get_close_matches(architecture or name, by_tail)]
    hint = f" (did you mean {' or '.join(close[:3])}?)" if close else ""
    raise ValueError(
        f"There is no network {name!r}{hint}: the names are {', '.join(_NAMED)}, "
        "torchvision/NAME and timm/NAME."
    )


def architectures(family: str) -> list[str]:
    """The names of a family's members; none for an unknown family."""
    members: list[str] = []
    if family == "torchvision":
        models = import_optional("torchvision.models", "zoo")
        members = models.list_models(module=models)
    elif family == "timm":
        members = import_optional("timm", "zoo").list_models()
    return members
