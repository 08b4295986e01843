"""The images that files and folders on a command line name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captum_advise import zoo
from captum_advise.zoo.images import ENDINGS

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Source:
    """Where an image comes from."""

    shown: str  # in messages and results
    stem: str  # the first choice for the name of its results
    path: Path | None  # None for the example image of scikit-image

    def open(self) -> Image.Image:
        """Read the image."""
        if self.path is None:
            return zoo.example_image()
        if self.path.is_dir():
            raise ValueError(
                f"The folder {self.path} holds no image: files of the types {', '.join(ENDINGS)} "
                "are read."
            )
        return zoo.open_image(self.path)


def find_sources(given: Sequence[Path], output: Path) -> tuple[list[Source], str]:
    """The images of files and folders, each once, in order.

    Folders are searched to any depth, without hidden files and without the output folder. What
    names no image stays, and fails when it is opened. Without any, it is the example image.

    Returns:
        The images, and a sentence about files of folders that are skipped; empty if there are none.
    """
    if not given:
        return [Source("chelsea (from scikit-image)", "chelsea", None)], ""
    own = output.resolve()
    paths: dict[Path, Path] = {}
    skipped: list[Path] = []
    for path in given:
        if path.is_dir() and path.resolve() == own:
            raise ValueError(
                f"{path} is the folder of images and of the results: give another --output."
            )
        for found in _inside(path, own, skipped) if path.is_dir() else [path]:
            paths.setdefault(found.resolve(), found)
    kinds = sorted({path.suffix.lower() or "without ending" for path in skipped})
    about = f"{len(skipped)} file{'s' * (len(skipped) > 1)} skipped: {', '.join(kinds)}"
    sources = [Source(str(path), path.stem, path) for path in paths.values()]
    return sources, about * bool(skipped)


def _inside(folder: Path, without: Path, skipped: list[Path]) -> list[Path]:
    """The images of a folder, or the folder itself if there are none."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(root) / name).resolve() != without
        )
        for path in (Path(root) / name for name in sorted(files) if not name.startswith(".")):
            # A pipe may have any name.
            is_image = path.name.lower().endswith(ENDINGS) and path.is_file()
            (found if is_image else skipped).append(path)
    return found or [folder]
