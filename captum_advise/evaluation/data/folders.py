"""Folders of images: a flat one, or one folder per class."""

from __future__ import annotations

import mimetypes
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from captum_advise.evaluation.data.class_labels import ClassLabels
from captum_advise.zoo.images import ENDINGS
from captum_advise.zoo.loading import numbered
from captum_advise.zoo.network import plain


def entries(folder: Path, labels: ClassLabels) -> list[tuple[str, int | None]]:
    """The images in a folder, relative to it and in order, with their classes.

    Hidden files and folders are left out.

    Raises:
        ValueError: The classes are not clear.
        OSError: A folder in it cannot be read.
    """
    flat: list[Path] = []
    by_folder: dict[str, list[Path]] = defaultdict(list)
    for image in _images(folder):
        (flat if len(image.parts) == 1 else by_folder[image.parts[0]]).append(image)
    if flat and by_folder:
        raise ValueError(
            f"{folder} holds images ({flat[0]}) next to folders with images "
            f"({next(iter(by_folder))}): move one or the other elsewhere, or give a folder in it."
        )
    if flat:
        return [(str(image), None) for image in flat]
    classes = _classes(by_folder, folder, labels)
    return [(str(image), classes[name]) for name, inside in by_folder.items() for image in inside]


def _classes(
    by_folder: Mapping[str, Sequence[Path]], folder: Path, labels: ClassLabels
) -> dict[str, int]:
    """The class index of each folder that holds images."""
    are_names = all(labels.find(name, is_name=True) is not None for name in by_folder)
    found = {name: labels.find(name, is_name=are_names) for name in by_folder}
    classes = {name: index for name, index in found.items() if index is not None}
    unclear = [name for name in by_folder if name not in classes]
    is_one_each = len(unclear) == len(by_folder) == len(labels.network.class_names)
    # Of train and val, which hold folders of classes, the images lie deeper.
    if is_one_each and all(any(len(i.parts) == 2 for i in own) for own in by_folder.values()):
        return {name: index for index, name in enumerate(by_folder)}
    if unclear:
        raise ValueError(
            f"The folder {unclear[0]!r} in {folder} is not a class of {labels.network.name}: name "
            f"folders by {labels.accepted}, give the folder that holds the folders of classes, or "
            "a CSV file with the columns file and class."
        )
    are_numbers = all(re.fullmatch(r"(class )?[0-9]+", plain(name)) for name in by_folder)
    all_classes = labels.network.class_names
    is_told = are_names and all_classes != numbered(len(all_classes))
    if are_numbers and not is_told and [*classes.values()] != sorted(classes.values()):
        warnings.warn(
            f"The folders in {folder} count as the classes of their numbers, and torchvision's "
            "ImageFolder numbers them by text, 10 before 2: if the model learnt from that, give "
            "the network class_names, those of its ImageFolder.",
            UserWarning,
            stacklevel=4,
        )
    return classes


def _images(folder: Path) -> list[Path]:
    """The image files in a folder and below, relative to it, by name."""
    images: list[Path] = []
    others: list[str] = []

    def refuse(error: OSError) -> None:
        raise OSError(f"{error.filename} cannot be read ({error.strerror}).") from error

    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        above = [Path(root).resolve(), *Path(root).resolve().parents]
        # A link may lead back.
        ahead = [name for name in folders if (Path(root) / name).resolve() not in above]
        folders[:] = sorted(name for name in ahead if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            if name.lower().endswith(ENDINGS):
                images.append((Path(root) / name).relative_to(folder))
            elif (mimetypes.guess_type(name)[0] or "").startswith("image/"):
                others.append(name)
    if images and others:
        warnings.warn(
            f"Files in {folder} are left out, because only {', '.join(ENDINGS)} are read: "
            f"{', '.join(others[:5])}.",
            UserWarning,
            stacklevel=4,
        )
    return images
