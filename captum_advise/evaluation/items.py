"""What a run needs of a data set: its length, and the name, content and fingerprint of items."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data import ImageDataset
from captum_advise.evaluation.fingerprints import joined_fingerprint, tensor_fingerprint
from captum_advise.evaluation.methods import SavedMaps
from captum_advise.evaluation.processes import Processes
from captum_advise.evaluation.store import Image, as_field


class Item(NamedTuple):
    """An item that has been read: a model input (C, H, W), its class and its fingerprint."""

    inputs: Tensor
    label: int | None
    content: str


@dataclass(frozen=True)
class Continuation:
    """What holds of the results of earlier calls.

    Attributes:
        reused: The images whose rows hold.
        outdated: Those whose rows do not.
        unread: Those that cannot be read, so that it is not known.
        changed: Number of images in the data whose rows do not hold.
        dropped: Number of images that are no longer in the data.
    """

    reused: frozenset[Image]
    outdated: frozenset[Image]
    unread: frozenset[Image]
    changed: int
    dropped: int

    @property
    def indices(self) -> set[int]:
        """The positions of the images whose rows hold."""
        return {image.index for image in self.reused}


def compare(
    dataset: Dataset[Any],
    finished: Collection[Image],
    group: Processes,
    saved: Sequence[SavedMaps] = (),
    *,
    progress: bool,
) -> Continuation:
    """Compare the images of earlier calls with the data. The processes share the work.

    Args:
        dataset: The data as they are now.
        finished: The images that have rows.
        group: The processes, all of which call this.
        saved: Methods whose maps are files.
        progress: Whether the first process shows a progress bar.

    Raises:
        ValueError: The processes do not see the same data, or the data have no image of the
            earlier calls.
    """
    names = [as_field(name_of(dataset, index)) for index in range(length_of(dataset))]
    candidates: dict[int, list[Image]] = {}
    for image in sorted(finished):
        if image.index < len(names) and names[image.index] == image.file:
            candidates.setdefault(image.index, []).append(image)
    share = list(candidates)[group.rank :: group.count]
    bar = import_optional("tqdm", "evaluation").tqdm(
        share, desc="comparing", leave=False, disable=not (progress and group.is_first and share)
    )
    holding, unread = [], []
    for index in bar:
        content = _fingerprint(dataset, index, saved)
        if content is None:
            unread += candidates[index]
        holding += [image for image in candidates[index] if image.content == content]
    listing = hashlib.sha256(repr((names, _targets(dataset))).encode(errors="replace")).hexdigest()
    gathered = group.gather((listing, len(names), holding, unread))
    for rank, (other, length, *_) in enumerate(gathered):
        if other != gathered[0][0]:
            raise ValueError(
                "The processes do not see the same data: the first has "
                f"{gathered[0][1]} images, and number {rank + 1} has {length} or other ones."
            )
    if finished and not {image.file for image in finished} & set(names):
        raise ValueError(_other_data(finished))
    return _counted(
        finished,
        frozenset(image for _, _, images, _ in gathered for image in images),
        frozenset(image for _, _, _, images in gathered for image in images),
        names,
    )


def length_of(dataset: Dataset[Any]) -> int:
    """The number of items."""
    return len(dataset)  # type: ignore[arg-type]


def name_of(dataset: Dataset[Any], index: int) -> str:
    """The name of an item; its position if the data have no names."""
    names = getattr(dataset, "names", None)
    return str(index) if names is None else str(names[index])


def saved_maps_of(methods: Mapping[str, Any], dataset: Dataset[Any]) -> list[SavedMaps]:
    """The methods whose maps are files.

    Raises:
        ValueError: Two images would have the same map.
    """
    saved = [method for method in methods.values() if isinstance(method, SavedMaps)]
    for maps in saved:
        maps.check(name_of(dataset, index) for index in range(length_of(dataset)))
    return saved


def read(dataset: Dataset[Any], index: int, saved: Sequence[SavedMaps] = ()) -> Item:
    """Read an item.

    Args:
        dataset: The data.
        index: Which item.
        saved: Methods whose maps are files. These are part of the item's fingerprint.

    Raises:
        ValueError: It is not an image with a class, or a map is missing. Data sets may raise any
            other error.
    """
    # The files first: should they change now, their content will not be that of the fingerprint.
    maps = _fingerprints_of_maps(dataset, index, saved)
    content = dataset.fingerprint(index) if reads_files(dataset) else None  # type: ignore[attr-defined]
    item = dataset[index]
    inputs, label = item if isinstance(item, tuple | list) else (item, None)
    if not isinstance(inputs, Tensor) or inputs.dim() != 3:
        raise ValueError("An item of the data is not a tensor (C, H, W).")
    label = None if label is None else int(label)
    content = content or tensor_fingerprint(inputs, label)
    return Item(inputs, label, _with_maps(content, maps))


def reads_files(dataset: Dataset[Any]) -> bool:
    """Whether items are files under a transform, which need not be read to be compared."""
    return isinstance(dataset, ImageDataset) and (
        type(dataset).__getitem__ is ImageDataset.__getitem__
    )


def _fingerprint(dataset: Dataset[Any], index: int, saved: Sequence[SavedMaps]) -> str | None:
    """The fingerprint of an item, None if it cannot be read."""
    try:
        if reads_files(dataset):
            maps = _fingerprints_of_maps(dataset, index, saved)
            return _with_maps(dataset.fingerprint(index), maps)  # type: ignore[attr-defined]
        return read(dataset, index, saved).content
    except Exception:  # which evaluating the image will record
        return None


def _fingerprints_of_maps(
    dataset: Dataset[Any], index: int, saved: Sequence[SavedMaps]
) -> list[str]:
    return [maps.fingerprint(name_of(dataset, index)) for maps in saved]


def _with_maps(content: str, maps: list[str]) -> str:
    return joined_fingerprint([content, *maps]) if maps else content


def _targets(dataset: Dataset[Any]) -> list[str] | None:
    targets = getattr(dataset, "targets", None)
    return None if targets is None else [str(target) for target in targets]


def _counted(
    finished: Collection[Image],
    reused: frozenset[Image],
    unread: frozenset[Image],
    names: list[str],
) -> Continuation:
    outdated = frozenset(finished) - reused - unread
    done = {image.index for image in reused | unread}
    missing = Counter(name for index, name in enumerate(names) if index not in done)
    # A call that was then stopped may have evaluated a changed image again.
    replaced = {(image.index, image.file) for image in reused | unread}
    places = {(image.index, image.file) for image in outdated} - replaced
    gone = Counter(file for _, file in places)
    return Continuation(
        reused,
        outdated,
        unread,
        changed=(missing & gone).total(),
        dropped=(gone - missing).total(),
    )


def _other_data(finished: Collection[Image]) -> str:
    first = min(finished).file
    return (
        f"The output holds a run on other data (none of its {len(finished)} images, as {first}, is "
        "in these): give the data of that run, another output folder, or restart=True (--restart) "
        "to begin anew."
    )
