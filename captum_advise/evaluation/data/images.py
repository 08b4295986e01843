"""Images to evaluate on: a folder, torchvision's ``ImageFolder`` layout, or a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from captum_advise import zoo
from captum_advise._utils.checks import check_count
from captum_advise.evaluation.data import folders, tables
from captum_advise.evaluation.data.class_labels import ClassLabels
from captum_advise.zoo.images import ENDINGS


@dataclass(frozen=True)
class ImageDataset(Dataset[Any]):
    """Image files with the class of each, as inputs of one network.

    Items are ``(inputs, target)``: (3, H, W) and the class index, None if not known. An item that
    cannot be read raises ValueError or FileNotFoundError.

    Attributes:
        folder: The folder to which file names are relative.
        names: The files.
        targets: A class index or None for each file.
        network: Its transform makes the inputs.
        source: The folder or CSV file that was given; None if neither was.

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
    source: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        image = zoo.open_image(self.folder / self.names[index])
        return self.network.transform(image), self.targets[index]


def image_dataset(
    path: str | Path, network: zoo.Network, *, limit: int | None = None
) -> ImageDataset:
    """Find the images in a folder or a CSV file.

    Classes are named by class index, by class name, or by WordNet id (``n01440764``) if the network
    has ImageNet's classes. Upper and lower case are the same, and so are spaces and underscores.

    Args:
        path: One of

            - a folder with image files. They have no class, so the predicted class is explained;
            - a folder that holds only folders (torchvision's ``ImageFolder``). Each subfolder is
              one class, and is named like it. Other names work if there is one subfolder with
              images per class of the network, and none of them names a class; sorted by name,
              they are then the classes in order;
            - a CSV file in UTF-8, with columns separated by commas, semicolons or tabs. The first
              row names the columns: ``file``, relative to the CSV file; and ``class``, which may be
              empty. Others are ignored.

            Hidden files and folders are ignored.
        network: The network whose inputs the images become.
        limit: The largest number of images, evenly spaced over all of them.

    Returns:
        :class:`ImageDataset`, in the order of the CSV file or of the names.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        OSError: A folder or the CSV file cannot be read.
        ValueError: There is no image. Images lie next to folders with images. A class is not one
            of the network's. A row of the CSV file is not clear or repeats another.

    Warns:
        UserWarning: Files of other image types are left out.

    Example::

        >>> dataset = image_dataset("photos", zoo.load("efficientnet-lite0"))
        >>> inputs, target = dataset[0]
        >>> inputs.shape
        torch.Size([3, 224, 224])
    """
    path = Path(path)
    if limit is not None:
        check_count("The limit", limit, at_least=1)
    if not path.exists():
        raise FileNotFoundError(f"There is no folder or CSV file {path}.")
    labels = ClassLabels(network)
    entries = (tables if path.is_file() else folders).entries(path, labels)
    if not entries:
        raise ValueError(
            f"There is no image in {path}: give a folder of images "
            f"({', '.join(ENDINGS)}), a folder with one subfolder per class, or "
            "a CSV file."
        )
    if limit is not None and limit < len(entries):
        entries = [entries[i * len(entries) // limit] for i in range(limit)]
    names, targets = zip(*entries, strict=True)
    return ImageDataset(path.parent if path.is_file() else path, names, targets, network, path)
