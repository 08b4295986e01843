"""The images that files, folders and patterns on a command line name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captum_advise import zoo
from captum_advise._utils.optional_dependencies import import_optional

if TYPE_CHECKING:
    from PIL import Image

# The page that lists the results of several images.
INDEX = "index.html"


@dataclass(frozen=True)
class Source:
    """Where an image comes from.

    Attributes:
        shown: The image in messages and results.
        stem: The first choice for the name of its results.
        path: The file; None for the example image of scikit-image.
    """

    shown: str
    stem: str
    path: Path | None

    def open(self) -> Image.Image:
        """Read the image.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be read.
        """
        if self.path is None:
            return zoo.example_image()
        if self.path.is_dir():
            raise ValueError(
                f"The folder {self.path} holds no image: files of the types "
                f"{', '.join(_extensions())} are read."
            )
        return zoo.open_image(self.path)


def find_sources(given: Sequence[Path], output: Path) -> list[Source]:
    """The images of files, folders and patterns, each once, in order.

    Folders are searched to any depth, without hidden files and without the output folder. What
    names no image stays, and fails when it is opened.

    Args:
        given: Files, folders, and patterns with ``*``, ``?`` or ``[...]``. None: the example image.
        output: Folder of the results.

    Raises:
        ValueError: A folder of images is the output folder.
    """
    if not given:
        return [Source("chelsea (from scikit-image)", "chelsea", None)]
    own = output.resolve()
    paths: dict[Path, Path] = {}
    for path in given:
        if path.is_dir() and path.resolve() == own:
            raise ValueError(
                f"{path} is the folder of images and of the results: give another --output."
            )
        for found in _inside(path, own) if path.is_dir() else _matching(path):
            paths.setdefault(found.resolve(), found)
    return [Source(str(path), path.stem or path.name, path) for path in paths.values()]


def output_names(sources: Sequence[Source], folder: Path) -> list[str]:
    """A name per image. One that is taken, or would replace an input image, gets a number."""
    originals = {source.path.resolve() for source in sources if source.path is not None}
    taken = {Path(INDEX).stem}
    names = []
    for source in sources:
        name, number = source.stem, 1
        while name.casefold() in taken or (folder / f"{name}.png").resolve() in originals:
            number += 1
            name = f"{source.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _matching(path: Path) -> list[Path]:
    # A file may have brackets in its name.
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] or [path]


def _inside(folder: Path, without: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(root) / name).resolve() != without
        )
        found += [
            Path(root) / name
            for name in sorted(files)
            if name.lower().endswith(_extensions()) and not name.startswith(".")
        ]
    return found or [folder]


def _extensions() -> tuple[str, ...]:
    known: tuple[str, ...] = import_optional("torchvision.datasets.folder", "zoo").IMG_EXTENSIONS
    return known
