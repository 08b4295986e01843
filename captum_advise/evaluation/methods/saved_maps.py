"""Maps that were made elsewhere, in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise._utils.errors import reason
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.evaluation.methods.layers import NONE

_SUFFIXES = (".npy", ".npz", ".png")


@dataclass(frozen=True)
class SavedMaps:
    """A method whose maps are files, one per image.

    The map of ``dogs/rex.jpg`` is ``dogs/rex.npy`` or ``rex.npy`` in the folder, or a file of the
    same name that ends in ``.npz`` or ``.png``:

    - ``.npy``: an array of real numbers (h, w), with leading axes of length one or without;
    - ``.npz``: one such array;
    - ``.png``: a grey image with 8 or 16 bits. Black is no evidence.

    A map may have any size. It covers the input of the network, which is the image after the
    transform: resized and cropped. As for every method, only positive values count.

    In the results, ``forward_passes``, ``seconds``, ``class_sensitivity`` and ``sensitivity_max``
    are NaN. AVX is computed as for a map that does not depend on the class.

    Attributes:
        folder: The folder with the maps. Its files are listed when this is made.

    Raises:
        NotADirectoryError: There is no such folder.
        ValueError: It holds no map.

    Example::

        >>> import numpy
        >>> Path("maps").mkdir()
        >>> for name in ("1", "2"):
        ...     numpy.save(f"maps/{name}.npy", numpy.random.rand(7, 7))
        >>> methods = {"mine": SavedMaps(Path("maps")), "grad-cam": LayerGradCam}
    """

    folder: Path
    layers = NONE  # as the attribute of a Method

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise NotADirectoryError(f"There is no folder of maps {self.folder}.")
        if not self._files:
            raise ValueError(
                f"There is no map in {self.folder}: give a folder with one file per image "
                f"({', '.join(_SUFFIXES)}), named like the image."
            )

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """The files by relative path without suffix, listed once: a run asks for many images."""
        files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in _SUFFIXES:
                files.setdefault(_stem(path.relative_to(self.folder)), []).append(path)
        return files

    def file(self, image: str) -> Path:
        """The file with the map of an image.

        Args:
            image: Its name, as in the column ``file`` of the results.

        Raises:
            ValueError: There is none, or more than one.
        """
        path = PurePath(os.path.normpath(image))
        files = next(
            (self._files[key] for key in (_stem(path), path.stem) if key in self._files), []
        )
        if not files:
            raise ValueError(
                f"There is no map of {image} in {self.folder}: save it as {path.stem}.npy, .npz or "
                ".png."
            )
        if len(files) > 1:
            raise ValueError(
                f"There are {len(files)} maps of {image} in {self.folder} "
                f"({', '.join(file.name for file in files)}): keep one."
            )
        return files[0]

    def check(self, images: Iterable[str]) -> None:
        """Require that no two images share a map.

        Args:
            images: Their names.

        Raises:
            ValueError: Two do.
        """
        users: dict[Path, str] = {}
        for image in images:
            try:
                file = self.file(image)
            except ValueError:  # a failure of this image alone
                continue
            other = users.setdefault(file, image)
            if other != image:
                raise ValueError(
                    f"{file} would be the map of {other} and of {image}: save maps under the "
                    "relative paths of the images, with another suffix."
                )

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        """Read the map of ``context.image``."""
        array = read_map(self.file(context.image))
        return ClassMaps(torch.from_numpy(array)[None, None].to(inputs.device), None)


def read_map(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A map (h, w) from a file.

    Raises:
        ValueError: The file is damaged, or holds something else.
    """
    try:
        array = _grey(path) if path.suffix.lower() == ".png" else _array(path)
    except Exception as error:  # what reading raises differs with the damage
        raise ValueError(f"The map {path} cannot be read ({reason(error)}).") from error
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise ValueError(
            f"The map {path} must hold real numbers (h, w), and has shape {array.shape} and type "
            f"{array.dtype}."
        )
    return array.astype(np.float32)


def _array(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1:
            raise ValueError(f"it holds {len(loaded.files)} arrays instead of one")
        array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = loaded[loaded.files[0]]
        return array


def _grey(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    with import_optional("PIL.Image", "evaluation").open(path) as image:
        if image.mode in ("L", "1") or image.mode.startswith("I"):
            return np.asarray(image)
        # Grey images are often saved with all channels.
        channels = np.asarray(image.convert("RGBA"))
    grey = channels[..., :1]
    if (channels[..., :3] != grey).any() or (channels[..., 3] != 255).any():
        raise ValueError("it is in colour or transparent: save it in grey")
    return grey[..., 0]


def _stem(path: PurePath) -> str:
    return path.with_suffix("").as_posix()
