"""Folders of images: a flat one, or one folder per class."""

from __future__ import annotations

import mimetypes
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.data.class_labels import ClassLabels, is_wordnet_id

# Where a message lists names, this many.
_MOST_NAMED = 5
_OUTPUT_OF_A_RUN = ("run.json", "results.csv", "results.sqlite")


def entries(folder: Path, labels: ClassLabels) -> list[tuple[str, int | None]]:
    """The images in a folder, relative to it and in order, with their classes.

    Hidden files and folders are left out.

    Raises:
        ValueError: The classes are not clear.
        OSError: A folder in it cannot be read.
    """
    images = _images(folder)
    flat = [name for name in images if os.sep not in name]
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    by_folder = groupby(images[len(flat) :], lambda name: name.partition(os.sep)[0])
    filled = {name: list(inside) for name, inside in by_folder}
    if flat and filled:
        raise ValueError(
            f"{folder} holds images ({listed(flat)}) next to folders with images "
            f"({listed(filled)}): move the ones or the others elsewhere, or give a folder in it."
        )
    if not filled:
        return [(name, None) for name in flat]
    classes = _classes(filled, names, folder, labels)
    empty = [name for name in names if name not in filled]
    if empty:
        warnings.warn(
            f"{len(empty)} of the {len(names)} folders in {folder} hold no image of a known "
            f"type and are left out: {listed(empty)}.",
            UserWarning,
            stacklevel=3,
        )
    return [(name, classes[top]) for top, inside in filled.items() for name in inside]


def extensions() -> tuple[str, ...]:
    """The extensions of image files, as torchvision's data sets have them."""
    folder = import_optional("torchvision.datasets.folder", "evaluation")
    known: tuple[str, ...] = folder.IMG_EXTENSIONS
    return known


def _classes(
    filled: Mapping[str, Sequence[str]], names: Sequence[str], folder: Path, labels: ClassLabels
) -> dict[str, int]:
    """The class index of each folder that holds images."""
    classes = {name: index for name in filled if (index := labels.find(name)) is not None}
    unclear = [name for name in filled if name not in classes]
    if unclear and _in_order(filled, names, labels):
        return {name: index for index, name in enumerate(names) if name in filled}
    if unclear:
        raise ValueError(
            f"The folder {unclear[0]!r} in {folder} is not a class of {labels.network.name}: name "
            f"folders by {labels.accepted}, give the folder that holds the folders of classes, or "
            "a CSV file with the columns file and class."
        )
    return classes


def _in_order(
    filled: Mapping[str, Sequence[str]], names: Sequence[str], labels: ClassLabels
) -> bool:
    """Whether the folders in order are the classes in order, as torchvision numbers them."""
    n_classes = len(labels.network.class_names)
    if len(names) != n_classes or any(labels.find(name) is not None for name in names):
        return False
    if all(map(is_wordnet_id, names)):
        return not labels.has_imagenet_classes
    # With other names, a folder that is not a class would shift all that follow.
    return len(filled) == len(names) and all(
        any(image.count(os.sep) == 1 for image in inside) for inside in filled.values()
    )


def _images(folder: Path) -> list[str]:
    """The image files in a folder and below, relative to it."""
    known, images, others = extensions(), [], []
    # The real folders on the way to each folder: links may lead back to one of them.
    ways = {str(folder): {os.path.realpath(folder)}}

    def refuse(error: OSError) -> None:
        raise OSError(f"{error.filename} cannot be read ({error.strerror}).") from error

    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = {name: os.path.realpath(os.path.join(root, name)) for name in folders}
        folders[:] = sorted(n for n in folders if n[0] != "." and real[n] not in ways[root])
        ways.update({os.path.join(root, n): {*ways[root], real[n]} for n in folders})
        if all(name in files for name in _OUTPUT_OF_A_RUN):
            raise ValueError(
                f"{root} is the output of a run, and its figures are not data: move it elsewhere, "
                "or give another folder."
            )
        for name in sorted(files):
            path = os.path.relpath(os.path.join(root, name), folder)
            if name.startswith("."):
                continue
            if name.lower().endswith(known):
                images.append(path)
            elif (mimetypes.guess_type(name)[0] or "").startswith("image/"):
                others.append(path)
    if images and others:
        warnings.warn(
            f"Files in {folder} are left out, because only {', '.join(known)} are read: "
            f"{listed(others)}.",
            UserWarning,
            stacklevel=4,
        )
    return images


def listed(names: Iterable[str]) -> str:
    """The first names, for a message."""
    names = list(names)
    return ", ".join([*names[:_MOST_NAMED], *(["..."] if len(names) > _MOST_NAMED else [])])
