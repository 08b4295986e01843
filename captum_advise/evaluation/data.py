"""Images to evaluate on: a folder, torchvision's ``ImageFolder`` layout, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from captum_advise import zoo
from captum_advise._utils.optional_dependencies import import_optional


@dataclass(frozen=True)
class ImageDataset(Dataset[tuple[Tensor, int | None]]):
    """Image files with the class of each, as inputs of one network.

    Items are ``(inputs, target)``: (3, H, W) and the class index, None if not known. An item that
    cannot be read raises ValueError or FileNotFoundError.

    Attributes:
        folder: The folder to which file names are relative.
        names: The files.
        targets: A class index or None for each file.
        network: Its transform makes the inputs.

    Example::

        >>> network = zoo.load("efficientnet-lite0")
        >>> dataset = image_dataset("photos", network)
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
        image = zoo.open_image(self.folder / self.names[index])
        return self.network.transform(image), self.targets[index]


def image_dataset(
    path: str | Path, network: zoo.Network, *, limit: int | None = None
) -> ImageDataset:
    """Find the images in a folder or a CSV file.

    Args:
        path: One of

            - a folder with image files. They have no class, so the predicted class is explained.
              Subfolders are ignored;
            - a folder that holds only folders (torchvision's ``ImageFolder``). Each subfolder is
              one class: its name is a class index or a class name of the network. Other names
              work if there is one subfolder per class of the network; sorted by name, they are
              then the classes in order, as for ImageNet;
            - a CSV file. The first column is the file, relative to the CSV file. The second is
              the class index, or empty. Further columns are ignored, and so is a first row
              ``file,...``.
        network: The network whose inputs the images become.
        limit: The largest number of images, evenly spaced over all of them.

    Returns:
        :class:`ImageDataset`, in the order of the CSV file or of the names.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: There is no image, a class is not one of the network's, or a row of the CSV
            file is not valid.

    Example::

        >>> dataset = image_dataset("photos", zoo.load("efficientnet-lite0"))
        >>> inputs, target = dataset[0]
        >>> inputs.shape
        torch.Size([3, 224, 224])
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ValueError(f"The limit must be at least 1 image, got {limit}.")
    if not path.exists():
        raise FileNotFoundError(f"There is no folder or CSV file {path}.")
    if path.is_file():
        folder, entries = path.parent, _from_csv(path, network)
    else:
        folder, entries = path, _from_folder(path, network)
    if not entries:
        raise ValueError(
            f"There is no image in {path}: give a folder of images ({', '.join(_extensions())}), "
            "a folder with one subfolder per class, or a CSV file."
        )
    if limit is not None and limit < len(entries):
        entries = [entries[i * len(entries) // limit] for i in range(limit)]
    return ImageDataset(
        folder=folder,
        names=tuple(name for name, _ in entries),
        targets=tuple(target for _, target in entries),
        network=network,
    )


_Entries = list[tuple[str, int | None]]


def _from_folder(folder: Path, network: zoo.Network) -> _Entries:
    content = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [e.name for e in content if e.is_file() and e.suffix.lower() in _extensions()]
    if files:
        return [(name, None) for name in files]
    subfolders = [entry.name for entry in content if entry.is_dir()]
    if not subfolders:
        return []
    make_dataset = import_optional("torchvision.datasets.folder", "evaluation").make_dataset
    numbers = {name: number for number, name in enumerate(subfolders)}
    samples = make_dataset(str(folder), numbers, extensions=_extensions(), allow_empty=True)
    if not samples:
        return []
    classes = _folder_classes(subfolders, folder, network)
    return [(str(Path(file).relative_to(folder)), classes[number]) for file, number in samples]


def _folder_classes(subfolders: Sequence[str], folder: Path, network: zoo.Network) -> list[int]:
    """The class index of each subfolder."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(network.class_names):
        indices.setdefault(_plain(name), []).append(index)
        indices.setdefault(str(index), []).append(index)
    matches = [indices.get(_plain(name), []) for name in subfolders]
    if all(len(match) == 1 for match in matches):
        return [match[0] for match in matches]
    if len(subfolders) == len(network.class_names):
        return list(range(len(subfolders)))
    unclear = next(name for name, match in zip(subfolders, matches, strict=True) if len(match) != 1)
    raise ValueError(
        f"The folder {unclear!r} in {folder} is not a class of {network.name}, and there are "
        f"{len(subfolders)} folders for its {len(network.class_names)} classes: name them by "
        "class index or class name, or give a CSV file with the columns file and class index."
    )


def _from_csv(path: Path, network: zoo.Network) -> _Entries:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a CSV file: give a folder, or a CSV file with the columns file and "
            "class index."
        ) from error
    entries: _Entries = []
    last = len(network.class_names) - 1
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and row[0].strip().lower() == "file"):
            continue
        text = row[1].strip() if len(row) > 1 else ""
        try:
            target = int(text) if text else None
        except ValueError:
            target = -1
        if target is not None and not 0 <= target <= last:
            raise ValueError(
                f"Line {number} of {path} has {text!r} as class: the second column must be a "
                f"class index of {network.name}, 0 to {last}, or empty."
            )
        entries.append((row[0], target))
    return entries


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _extensions() -> tuple[str, ...]:
    folder = import_optional("torchvision.datasets.folder", "evaluation")
    extensions: tuple[str, ...] = folder.IMG_EXTENSIONS
    return extensions
