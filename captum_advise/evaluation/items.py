"""What a run needs of a data set: its length, and the name, content and fingerprint of items."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data import ImageDataset
from captum_advise.evaluation.fingerprints import tensor_fingerprint
from captum_advise.evaluation.processes import Processes
from captum_advise.evaluation.store import Image, as_field


class Item(NamedTuple):
    """An item that has been read.

    Attributes:
        inputs: A model input (C, H, W).
        label: Its class, None if not known.
        content: Its fingerprint.
        region: Where the object is, bool (1, H, W), None if not known.
    """

    inputs: Tensor
    label: int | None
    content: str
    region: Tensor | None = None

    def to(self, device: torch.device) -> Item:
        """The same on a device."""
        region = None if self.region is None else self.region.to(device)
        return self._replace(inputs=self.inputs.to(device), region=region)


@dataclass(frozen=True)
class Continuation:
    """What earlier calls have computed for these data.

    Attributes:
        images: For each position in the data, the image whose rows hold, if there is one.
        methods: The methods of these rows, for the same positions.
        changed: Number of images in the data of which there are only rows for another content.
        left_out: Number of images with rows that are not in the data.
    """

    images: Mapping[int, Image]
    methods: Mapping[int, frozenset[str]]
    changed: int
    left_out: int

    def missing(self, index: int, methods: Iterable[str]) -> tuple[str, ...]:
        """The methods that have no row for an item."""
        present = self.methods.get(index, frozenset())
        return tuple(method for method in methods if method not in present)


def compare(
    dataset: Dataset[Any],
    stored: Mapping[Image, frozenset[str]],
    group: Processes,
    *,
    any_data: bool = False,
    progress: bool,
) -> Continuation:
    """Compare the images of earlier calls with the data. The processes share the work.

    Args:
        dataset: The data as they are now.
        stored: The images that have rows, and the methods of these.
        group: The processes, all of which call this.
        any_data: Whether the data need not have an image of the earlier calls.
        progress: Whether the first process shows a progress bar.

    Raises:
        ValueError: The processes do not see the same data, or the data must have an image of
            the earlier calls, and have none.
    """
    names = [as_field(name_of(dataset, index)) for index in range(length_of(dataset))]
    known = {image.file for image in stored}
    candidates = [index for index, name in enumerate(names) if name in known]
    share = candidates[group.rank :: group.count]
    bar = import_optional("tqdm", "evaluation").tqdm(
        share, desc="comparing", leave=False, disable=not (progress and group.is_first and share)
    )
    contents = {index: _fingerprint(dataset, index) for index in bar}
    listing = hashlib.sha256(repr((names, _targets(dataset))).encode(errors="replace")).hexdigest()
    gathered = group.gather((listing, len(names), contents))
    for rank, (other, length, _) in enumerate(gathered):
        if other != gathered[0][0]:
            raise ValueError(
                "The processes do not see the same data: the first has "
                f"{gathered[0][1]} images, and number {rank + 1} has {length} or other ones."
            )
    if stored and not candidates and not any_data:
        raise ValueError(_other_data(stored))
    images, changed = {}, 0
    for index, content in sorted(item for *_, part in gathered for item in part.items()):
        if content is None:  # it cannot be read, so that nobody knows whether it has changed
            continue
        image = Image(names[index], content)
        if image in stored:
            images[index] = image
        else:
            changed += 1
    return Continuation(
        images,
        {index: stored[image] for index, image in images.items()},
        changed,
        left_out=len(known - set(names)),
    )


def length_of(dataset: Dataset[Any]) -> int:
    """The number of items."""
    return len(dataset)  # type: ignore[arg-type]


def name_of(dataset: Dataset[Any], index: int) -> str:
    """The name of an item; its position if the data have no names."""
    names = getattr(dataset, "names", None)
    return str(index) if names is None else str(names[index])


def read(dataset: Dataset[Any], index: int) -> Item:
    """Read an item.

    Raises:
        ValueError: It is not an image with a class. Data sets may raise any other error.
    """
    # The file first: should it change now, its content will not be that of the fingerprint.
    content = dataset.fingerprint(index) if reads_files(dataset) else None  # type: ignore[attr-defined]
    item = dataset[index]
    inputs, label, *rest = item if isinstance(item, tuple | list) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise ValueError("An item of the data is not a tensor (C, H, W).")
    label = None if label is None else int(label)
    region = _region(inputs, *rest) if has_regions(dataset) else None
    return Item(inputs, label, content or tensor_fingerprint(inputs, label, region), region)


def has_regions(dataset: Dataset[Any]) -> bool:
    """Whether the items say where their objects are."""
    return bool(getattr(dataset, "has_regions", False))


def reads_files(dataset: Dataset[Any]) -> bool:
    """Whether items are files under a transform, which need not be read to be compared."""
    return isinstance(dataset, ImageDataset) and (
        type(dataset).__getitem__ is ImageDataset.__getitem__
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


def _fingerprint(dataset: Dataset[Any], index: int) -> str | None:
    """The fingerprint of an item, None if it cannot be read."""
    try:
        if reads_files(dataset):
            return dataset.fingerprint(index)  # type: ignore[attr-defined, no-any-return]
        return read(dataset, index).content
    except Exception:  # which evaluating the image will record
        return None


def _targets(dataset: Dataset[Any]) -> list[str] | None:
    targets = getattr(dataset, "targets", None)
    return None if targets is None else [str(target) for target in targets]


def _other_data(stored: Collection[Image]) -> str:
    first = min(stored).file
    return (
        f"The output holds a run on other data (none of its {len(stored)} images, as {first}, is "
        "in these): give the data of that run, another output folder, or restart=True (--restart) "
        "to begin anew."
    )
