"""Images to evaluate on: a folder, torchvision's ``ImageFolder`` layout, or a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from captum_advise import zoo
from captum_advise._utils.checks import check_count
from captum_advise.evaluation.data import folders, tables
from captum_advise.evaluation.data.class_labels import ClassLabels
from captum_advise.evaluation.data.regions import Region, region_of


@dataclass(frozen=True)
class ImageDataset(Dataset[Any]):
    """Image files with the class of each, as inputs of one network.

    Items are ``(inputs, target)``: (3, H, W) and the class index, None if not known. With regions
    they are ``(inputs, target, region)``: also the pixels of the object, bool (1, H, W). An item
    that cannot be read raises ValueError or FileNotFoundError.

    Attributes:
        folder: The folder to which file names are relative.
        names: The files.
        targets: A class index or None for each file.
        network: Its transform makes the inputs.
        source: The folder or CSV file that was given; None if neither was.
        regions: Where the object is in each file: boxes (x0, y0, x1, y1) in pixels of the upright
            image, or the path of a mask. None if not known.

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
    regions: tuple[Region, ...] | None = None

    @property
    def has_regions(self) -> bool:
        """Whether items have a region."""
        return self.regions is not None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image = zoo.open_image(self.folder / self.names[index])
        inputs, target = self.network.transform(image), self.targets[index]
        if self.regions is None:
            return inputs, target
        return inputs, target, region_of(self.regions[index], zoo.to_rgb(image), self.network)


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
              row names the columns: ``file``, ``path``, ``image`` or ``filename``, relative to the
              CSV file; and ``class``, ``label`` or ``target``, which may be empty. With such a
              column, others are ignored. Where the object is follows from the columns ``x0``,
              ``y0``, ``x1`` and ``y1``, a box in pixels of the upright image (x1 and y1 are the
              first outside), or from ``mask``, a file of the image's size that is black outside
              the object. An image with several boxes has a line for each.

            Hidden files and folders are ignored.
        network: The network whose inputs the images become.
        limit: The largest number of images, evenly spaced over all of them.

    Returns:
        :class:`ImageDataset`, in the order of the CSV file or of the names.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        OSError: A folder or the CSV file cannot be read.
        ValueError: There is no image, images lie next to folders with images, a class is not one
            of the network's, a folder is the output of a run, or a row of the CSV file is not clear
            or repeats another.

    Warns:
        UserWarning: Folders without images and files of other image types are left out, or a CSV
            file lists an image with more than one class.

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
    entries: list[tables.Entry]
    if path.is_file():
        folder, entries = path.parent, tables.entries(path, labels)
    else:
        folder = path
        entries = [(name, target, None) for name, target in folders.entries(path, labels)]
    if not entries:
        raise ValueError(
            f"There is no image in {path}: give a folder of images "
            f"({', '.join(folders.extensions())}), a folder with one subfolder per class, or "
            "a CSV file."
        )
    if limit is not None and limit < len(entries):
        entries = [entries[i * len(entries) // limit] for i in range(limit)]
    # Either all have one, or none.
    regions = [region for *_, region in entries if region is not None]
    return ImageDataset(
        folder=folder,
        names=tuple(name for name, *_ in entries),
        targets=tuple(target for _, target, _ in entries),
        network=network,
        source=path,
        regions=tuple(regions) if len(regions) == len(entries) else None,
    )


def check_output(output: Path, data: Path | None, images: Iterable[Path] = ()) -> None:
    """Require that a report will not lie among the images that it is about.

    Args:
        output: Folder of the report. It need not exist.
        data: Folder or CSV file of the data, if there is one.
        images: The image files.

    Raises:
        ValueError: The output is in a folder of images, or holds an image.
    """
    place = Path(os.path.realpath(output))
    # By folder, because there are fewer of them than images.
    folders = {Path(os.path.realpath(image.parent)): image for image in images}
    if data is not None and data.is_dir():
        if {Path(os.path.realpath(data)), *folders} & {place, *place.parents}:
            raise ValueError(
                f"The output {output} is in the data {data}, so its figures would become data: "
                "give another output folder."
            )
        return
    for folder, image in folders.items():
        if place in (folder, *folder.parents):
            raise ValueError(
                f"The image {image} is in the output folder {output}: give another output folder, "
                "or leave the image out."
            )
