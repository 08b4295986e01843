"""A network with all that is needed to explain its predictions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_advise._utils.errors import did_you_mean
from captum_advise.pixels import PixelSpace

if TYPE_CHECKING:
    from PIL import Image

    from captum_advise.layouts import ReshapeTransform


@dataclass(frozen=True)
class Network:
    """An image classifier and all that is needed to explain its predictions.

    Attributes:
        name: The name by which it was loaded.
        model: The classifier, (N, C, H, W) inputs to (N, K) logits; from :func:`load` in eval mode.
        layer: The module of ``model`` to explain.
        layer_name: Its dotted name.
        pixel_space: How the model's inputs relate to images in [0, 1].
        transform: PIL image of any mode to a (C, H, W) float tensor, a model input: upright,
            in colour, resized and cropped as the network's authors do to evaluate it.
        class_names: K names, in the order of the logits.
        weights: ``"default"``, ``"random"``, or ``"the model's"`` for :func:`describe`.
        reshape_transform: For :class:`captum_advise.LayerAdvise`, where the layer is not
            (N, C, H, W).
        source: Where the transform comes from, in a few words.
        layers: For :class:`captum_advise.GatedGradCam`: finer layers and, last, ``layer``. Empty if
            the network has no feature maps with twice the resolution of ``layer``'s.
        layer_names: Their dotted names.
        reshape_transforms: One per layer of ``layers``, for those that are not (N, C, H, W).

    Example::

        >>> network = zoo.load("efficientnet-lite0")
        >>> network.layer_name, len(network.class_names)
        ('bn2', 1000)
        >>> advise = LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space)
    """

    name: str
    model: nn.Module
    layer: nn.Module
    layer_name: str
    pixel_space: PixelSpace
    transform: Callable[[Image.Image], Tensor]
    class_names: tuple[str, ...]
    weights: str
    reshape_transform: ReshapeTransform | None = None
    source: str = "the caller"
    layers: tuple[nn.Module, ...] = ()
    layer_names: tuple[str, ...] = ()
    reshape_transforms: tuple[ReshapeTransform | None, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return place_of(self.model)[0]

    def class_index(self, text: str) -> int:
        """The class, from 0 to K - 1, that ``text`` means.

        Args:
            text: An index, a class name, or whole words that exactly one class name contains.
                Upper and lower case are the same, and so are spaces and underscores.

        Raises:
            ValueError: The text fits no class, or more than one, as a number that names another.
        """
        classes, wanted = len(self.class_names), plain(text)
        names = [plain(name) for name in self.class_names]
        matches = [index for index, name in enumerate(names) if name == wanted]
        if re.fullmatch(r"[+-]?\d+", wanted):
            matches = sorted({*matches, int(wanted)} & {*range(classes)})
            if not matches:
                raise ValueError(f"{self.name} has the classes 0 to {classes - 1}, not {wanted}.")
        if not matches and wanted:
            words = re.compile(rf"\b{re.escape(wanted)}\b")
            matches = [index for index, name in enumerate(names) if words.search(name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            shown = ", ".join(f"{self.class_names[index]} ({index})" for index in matches[:20])
            more = f", ... ({len(matches)} in all)" if len(matches) > 20 else ""
            raise ValueError(
                f"{text!r} can mean {len(matches)} classes of {self.name}: {shown}{more}. Give the "
                "whole name or the index, in Python as an int."
            )
        raise ValueError(
            f"{self.name} has no class {text!r}{did_you_mean(wanted, names)}; "
            f"give a class name or an index from 0 to {classes - 1}."
        )


def place_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the parameters of a model; cpu and float32 without parameters."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32


def plain(text: str) -> str:
    """A class name without differences in case, spaces and underscores."""
    return " ".join(text.replace("_", " ").casefold().split())
