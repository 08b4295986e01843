"""What a run needs of a data set: its length, and the name, content and fingerprint of items."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data import ImageDataset
from captum_advise.evaluation.fingerprints import joined_fingerprint, tensor_fingerprint
from captum_advise.evaluation.methods import SavedMaps
from captum_advise.evaluation.processes import Processes
from captum_advise.evaluation.store import Image, as_field


class Contents(NamedTuple):
    """Fingerprints of an item.

    Attributes:
        image: Of the image, its class and its region.
        maps: Of the map of each method whose maps are files.
    """

    image: str
    maps: Mapping[str, str]

    def of(self, method: str) -> str:
        """What the results of a method depend on."""
        saved = self.maps.get(method)
        return self.image if saved is None else joined_fingerprint([self.image, saved])


class Item(NamedTuple):
    """An item that has been read.

    Attributes:
        inputs: A model input (C, H, W).
        label: Its class, None if not known.
        contents: Its fingerprints.
        region: Where the object is, bool (1, H, W), None if not known.
    """

    inputs: Tensor
    label: int | None
    contents: Contents
    region: Tensor | None = None

    def to(self, device: torch.device) -> Item:
        """The same on a device."""
        region = None if self.region is None else self.region.to(device)
        return self._replace(inputs=self.inputs.to(device), region=region)


@dataclass(frozen=True)
class Continuation:
    """What earlier calls have computed for these data.

    Attributes:
        images: For each position in the data of which rows hold, the image of each method's row.
        methods: The methods of these rows, for the same positions.
        changed: Number of images in the data of which there are rows for another content, or of
            which a map in a file has changed.
        left_out: Number of images with rows that are not in the data.
    """

    images: Mapping[int, Mapping[str, Image]]
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
    methods: Mapping[str, object],
    group: Processes,
    *,
    any_data: bool = False,
    progress: bool,
) -> Continuation:
    """Compare the images of earlier calls with the data. The processes share the work.

    Args:
        dataset: The data as they are now.
        stored: The images that have rows, and the methods of these.
        methods: Those of this call, by name.
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
    saved = saved_maps(methods)
    contents = {index: _contents(dataset, index, saved) for index in bar}
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
    images, present, changed = {}, {}, 0
    files_of = _files_of_methods(stored)
    for index, found in sorted(item for *_, part in gathered for item in part.items()):
        if found is None:  # it cannot be read, so that nobody knows whether it has changed
            continue
        of_methods = images_of(names[index], found, methods)
        with_rows = frozenset(
            method for method, image in of_methods.items() if method in stored.get(image, ())
        )
        other_maps = any(
            method not in with_rows and names[index] in files_of.get(method, ()) for method in saved
        )
        if with_rows or Image(names[index], found.image) in stored:
            images[index], present[index] = of_methods, with_rows
            changed += other_maps
        else:
            changed += 1
    return Continuation(
        images,
        present,
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


def images_of(name: str, contents: Contents, methods: Iterable[str]) -> dict[str, Image]:
    """What the row of each method is about. Methods whose maps are files depend on these."""
    return {method: Image(as_field(name), contents.of(method)) for method in methods}


def saved_maps(methods: Mapping[str, object]) -> dict[str, SavedMaps]:
    """The methods whose maps are files."""
    return {name: method for name, method in methods.items() if isinstance(method, SavedMaps)}


def read(
    dataset: Dataset[Any], index: int, saved: Mapping[str, SavedMaps] = MappingProxyType({})
) -> Item:
    """Read an item.

    Args:
        dataset: The data.
        index: Which item.
        saved: Methods whose maps are files, which have fingerprints.

    Raises:
        ValueError: It is not an image with a class, or a map is missing. Data sets may raise any
            other error.
    """
    # The files first: should they change now, their content will not be that of the fingerprint.
    maps = _fingerprints_of_maps(dataset, index, saved)
    content = dataset.fingerprint(index) if reads_files(dataset) else None  # type: ignore[attr-defined]
    item = dataset[index]
    inputs, label, *rest = item if isinstance(item, tuple | list) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise ValueError("An item of the data is not a tensor (C, H, W).")
    label = None if label is None else int(label)
    region = _region(inputs, *rest) if has_regions(dataset) else None
    content = content or tensor_fingerprint(inputs, label, region)
    return Item(inputs, label, Contents(content, maps), region)


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


def _contents(dataset: Dataset[Any], index: int, saved: Mapping[str, SavedMaps]) -> Contents | None:
    """The fingerprints of an item, None if it cannot be read."""
    try:
        if reads_files(dataset):
            maps = _fingerprints_of_maps(dataset, index, saved)
            return Contents(dataset.fingerprint(index), maps)  # type: ignore[attr-defined]
        return read(dataset, index, saved).contents
    except Exception:  # which evaluating the image will record
        return None


def _fingerprints_of_maps(
    dataset: Dataset[Any], index: int, saved: Mapping[str, SavedMaps]
) -> dict[str, str]:
    name = name_of(dataset, index)
    return {method: maps.fingerprint(name) for method, maps in saved.items()}


def _files_of_methods(stored: Mapping[Image, Iterable[str]]) -> dict[str, set[str]]:
    """For each method, the names of the images that have a row of it."""
    files: dict[str, set[str]] = {}
    for image, methods in stored.items():
        for method in methods:
            files.setdefault(method, set()).add(image.file)
    return files


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
