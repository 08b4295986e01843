"""Pictures to evaluate on: a folder, torchvision's ``ImageFolder`` layout, or a CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from captum_advise import zoo
from captum_advise.evaluation.extras import package


@dataclass(frozen=True)
class Pictures(Dataset[tuple[Tensor, int | None]]):
    """Picture files with the class of each, as inputs of one network.

    Items are ``(inputs, target)``: (3, H, W) and the class index, None if not known. An item that
    cannot be read raises ValueError or FileNotFoundError.

    Attributes:
        folder: What the files' names are relative to.
        names: The files.
        targets: A class index or None for each.
        network: Its transform makes the inputs.

    Example::

        >>> network = zoo.load("efficientnet-lite0")
        >>> dataset = pictures("photos", network)
        >>> len(dataset), dataset.names, dataset.targets
        (2, ('1.jpg', '2.jpg'), (None, None))
    """

    folder: Path
    names: tuple[str, ...]
    targets: tuple[int | None, ...]
    network: zoo.Network

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        picture = zoo.open_picture(self.folder / self.names[index])
        return self.network.transform(picture), self.targets[index]


def pictures(path: str | Path, network: zoo.Network, *, limit: int | None = None) -> Pictures:
    """Find the pictures that ``path`` means.

    Args:
        path: One of

            - a folder with picture files: they have no class, and what the network predicts is
              explained. Folders inside it are not looked into;
            - a folder that holds only folders (torchvision's ``ImageFolder``): each is one class.
              Its name is a class index or a class name of the network; failing that, there is one
              for each class of the network and they count in the order of their names, as those
              of ImageNet do;
            - a CSV file: the first column is the file, relative to the CSV, the second the class
              index or nothing. Further columns are ignored, and so is a first row ``file,...``.
        network: Whose inputs the pictures become.
        limit: So many pictures at most, evenly spaced through all of them.

    Returns:
        :class:`Pictures`, in the order of the CSV or of the names.

    Raises:
        FileNotFoundError: There is nothing at ``path``.
        ValueError: There is no picture, a class is not one of the network's, or a row of the CSV
            cannot be understood.

    Example::

        >>> dataset = pictures("photos", zoo.load("efficientnet-lite0"))
        >>> inputs, target = dataset[0]
        >>> inputs.shape
        torch.Size([3, 224, 224])
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ValueError(f"The limit must be at least 1 picture, got {limit}.")
    if not path.exists():
        raise FileNotFoundError(f"There is no folder or CSV file {path}.")
    if path.is_file():
        folder, found = path.parent, _from_csv(path, network)
    else:
        folder, found = path, _from_folder(path, network)
    if not found:
        raise ValueError(
            f"There is no picture in {path}: give a folder with pictures "
            f"({', '.join(_extensions())}), one folder of them per class, or a CSV file."
        )
    if limit is not None and limit < len(found):
        found = [found[place * len(found) // limit] for place in range(limit)]
    return Pictures(folder, tuple(n for n, _ in found), tuple(c for _, c in found), network)


_Found = list[tuple[str, int | None]]


def _from_folder(folder: Path, network: zoo.Network) -> _Found:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [e.name for e in entries if e.is_file() and e.suffix.lower() in _extensions()]
    if files:
        return [(name, None) for name in files]
    folders = [entry.name for entry in entries if entry.is_dir()]
    if not folders:
        return []
    make_dataset = package("torchvision.datasets.folder").make_dataset
    ordered = {name: place for place, name in enumerate(folders)}
    samples = make_dataset(str(folder), ordered, extensions=_extensions(), allow_empty=True)
    if not samples:
        return []
    classes = _folder_classes(folders, folder, network)
    return [(str(Path(file).relative_to(folder)), classes[place]) for file, place in samples]


def _folder_classes(folders: Sequence[str], where: Path, network: zoo.Network) -> list[int]:
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(network.class_names):
        indices.setdefault(_plain(name), []).append(index)
        indices.setdefault(str(index), []).append(index)
    meant = [indices.get(_plain(name), []) for name in folders]
    if all(len(found) == 1 for found in meant):
        return [found[0] for found in meant]
    if len(folders) == len(network.class_names):
        return list(range(len(folders)))
    unclear = next(name for name, found in zip(folders, meant, strict=True) if len(found) != 1)
    raise ValueError(
        f"The folder {unclear!r} in {where} is no class of {network.name}, and there are "
        f"{len(folders)} folders for its {len(network.class_names)} classes: name them by class "
        "index or class name, or give a CSV file with the columns file and class index."
    )


def _from_csv(path: Path, network: zoo.Network) -> _Found:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no CSV file: give a folder, or a CSV file with the columns file and class "
            "index."
        ) from error
    found: _Found = []
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and row[0].strip().lower() == "file"):
            continue
        text = row[1].strip() if len(row) > 1 else ""
        last = len(network.class_names) - 1
        try:
            target = int(text) if text else None
        except ValueError:
            target = -1
        if target is not None and not 0 <= target <= last:
            raise ValueError(
                f"Line {number} of {path} has {text!r} as class: the second column is a class "
                f"index of {network.name}, 0 to {last}, or empty."
            )
        found.append((row[0], target))
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _extensions() -> tuple[str, ...]:
    extensions: tuple[str, ...] = package("torchvision.datasets.folder").IMG_EXTENSIONS
    return extensions
