"""The items of a data set, each with what identifies it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from captum_advise.evaluation.digests import digest, tensor_bytes


@dataclass(frozen=True)
class Item:
    """An item that has been read."""

    name: str  # random numbers depend on it
    inputs: Tensor  # (1, C, H, W), as the network gets it
    target: int | None
    region: Tensor | None = None  # where the object is, bool (1, 1, H, W)
    in_mosaic: bool = False  # the region is a cell
    other_region: Tensor | None = None  # where an object of another class is

    @cached_property
    def fingerprint(self) -> str:
        """Short hex of the SHA-256 of inputs, target and regions."""
        about = f"{self.inputs.dtype} {tuple(self.inputs.shape)} {self.target} "
        tensors = (self.inputs, self.region, self.other_region)
        return digest(about, *(tensor_bytes(known) for known in tensors if known is not None))

    def to(self, device: torch.device) -> Item:
        """The same on a device."""
        region, other = (
            None if known is None else known.to(device)
            for known in (self.region, self.other_region)
        )
        return replace(self, inputs=self.inputs.to(device), region=region, other_region=other)


class Items:
    """A data set as a sequence of items, with inputs of a type.

    Raises:
        TypeError: It is not a data set with positions and a length.
        ValueError: It has no item, or not one name per item.
    """

    def __init__(self, dataset: Dataset[Any], dtype: torch.dtype | None = None) -> None:
        self.parts = _parts(dataset)
        self.dtype = dtype
        self._places = [(part, position) for part in self.parts for position in range(len(part))]
        if not self._places:
            raise ValueError("There is no image in the data.")
        for part in self.parts:
            names = getattr(part, "names", None)
            if names is not None and len(names) != len(part):
                raise ValueError(f"The data have {len(names)} names for {len(part)} images.")

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each item; its position where the data have no names."""
        return tuple(
            str(index) if getattr(part, "names", None) is None else str(part.names[position])
            for index, (part, position) in enumerate(self._places)
        )

    def have(self, what: str) -> bool:
        """Whether there are images, of some ``"regions"`` or ``"pairs"``, or ``"mosaics"``."""
        images = [part for part in self.parts if not _has(part, "has_cells")]
        if what == "mosaics":
            return len(images) < len(self.parts)
        return any(what == "images" or _has(part, f"has_{what}") for part in images)

    def in_mosaic(self, index: int) -> bool:
        """Whether an item is a mosaic."""
        return _has(self._places[index][0], "has_cells")

    def image(self, index: int) -> str | int:
        """What counts once: an item, or the file, image or scene that several items are about."""
        part = self._places[index][0]
        # A cell of a mosaic is named by the mosaic and its image, an object by its scene.
        is_part = _has(part, "has_cells") or _has(part, "has_pairs")
        shown = is_part and self.names[index].partition(": ")[2]
        return shown or self._files.get((id(part), self.names[index]), index)

    @cached_property
    def _files(self) -> dict[tuple[int, str], int]:
        """The first item of each image file, which a table may list with several classes."""
        keys = [(id(part), name) for (part, _), name in zip(self._places, self.names, strict=True)]
        files = {id(part) for part in self.parts if hasattr(part, "folder")}
        return {keys[n]: n for n in reversed(range(len(keys))) if keys[n][0] in files}

    def first(self, attribute: str) -> Any:
        """An attribute of the first part that has it, as the network of image files; else None."""
        return next(filter(None, (getattr(part, attribute, None) for part in self.parts)), None)

    def __getitem__(self, index: int) -> Item:
        """Read an item. Data sets may raise any error."""
        part, position = self._places[index]
        given = part[position]
        inputs, label, *rest = given if isinstance(given, tuple | list) else (given, None)
        if not isinstance(inputs, Tensor) or inputs.dim() != 3:
            shape = f" of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else ""
            raise ValueError(
                f"The inputs of an item are a {type(inputs).__name__}{shape}, not a tensor "
                "(C, H, W): captum_advise.evaluation.image_dataset reads images."
            )
        inputs = inputs.detach()
        if self.dtype is not None and inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        return Item(
            self.names[index],
            inputs[None].contiguous(),  # transforms give channels last, which a model may refuse
            _label(label),
            region=_region(inputs, *rest[:1])[None] if _has(part, "has_regions") else None,
            in_mosaic=_has(part, "has_cells"),
            other_region=_region(inputs, *rest[1:])[None] if _has(part, "has_pairs") else None,
        )


def _parts(dataset: Any) -> tuple[Any, ...]:
    """The data sets that a sum of them consists of."""
    if isinstance(dataset, ConcatDataset):
        return tuple(part for own in dataset.datasets for part in _parts(own))
    if isinstance(dataset, DataLoader):
        raise TypeError(
            "The data are a DataLoader, whose batches have no names: give its data set, "
            "loader.dataset."
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"The data are a {type(dataset).__name__} without a length or without positions: give "
            "a data set with len(dataset) and dataset[i], as a list of pairs of inputs and class."
        )
    return (dataset,)


def _has(part: Any, attribute: str) -> bool:
    return bool(getattr(part, attribute, False))


def _label(label: Any) -> int | None:
    """A class as an index."""
    if label is None:
        return None
    values = np.atleast_1d(label.cpu() if isinstance(label, Tensor) else label)
    if values.ndim == 1 and values.dtype.kind in "biuf":
        if len(values) == 1 and values[0] % 1 == 0:
            return int(values[0])
        if len(values) > 1 and np.count_nonzero(values) == 1 and values.max() == 1:  # one-hot
            return int(values.argmax())
    found = f"a vector of {len(values)} numbers that is not one-hot" if len(values) > 1 else label
    raise ValueError(
        f"The class of an item is {found}: give the index of the class to explain, or None for the "
        "predicted class."
    )


def _region(inputs: Tensor, region: object = None) -> Tensor:
    size = inputs.shape[-2:]
    if (
        not isinstance(region, Tensor)
        or region.dtype != torch.bool
        or region.shape not in (size, (1, *size))
    ):
        raise ValueError(
            "An item of data with regions has no region: give it a third entry, a bool tensor of "
            f"the size of its inputs, {tuple(size)}."
        )
    if not bool(region.any()):
        raise ValueError("The region of the object has no pixel in the part that the model sees.")
    return region.view(1, *size)
