"""Maps that were made elsewhere, in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor, nn

from captum_advise._utils.errors import reason
from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.evaluation.methods.layers import NONE


@dataclass(frozen=True)
class SavedMaps:
    """A method whose maps are files, one per image.

    The map of ``dogs/rex.jpg`` is ``dogs/rex.npy`` or ``rex.npy`` in the folder: an array of real
    numbers (h, w), with leading axes of length one or without. A map may have any size. It covers
    the input of the network, which is the image after the transform: resized and cropped. As for
    every method, only positive values count.

    In the results, ``forward_passes``, ``seconds``, ``class_sensitivity``, ``arcc`` and ``adcc``
    are NaN. AVX is computed as for a map that does not depend on the class.

    Attributes:
        folder: The folder with the maps.

    Raises:
        NotADirectoryError: There is no such folder.

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

    def file(self, image: str) -> Path:
        """The file with the map of an image.

        Args:
            image: Its name, as in the column ``file`` of the results.

        Raises:
            ValueError: There is none.
        """
        name = PurePath(os.path.normpath(image)).with_suffix(".npy")
        for file in (self.folder / name, self.folder / name.name):
            if file.is_file():
                return file
        raise ValueError(f"There is no map of {image} in {self.folder}: save it as {name.name}.")

    def check(self, images: Iterable[str]) -> None:
        """Require that no two items share a map.

        Args:
            images: The names of their images.

        Raises:
            ValueError: Two do.
        """
        users: dict[Path, str] = {}
        for image in images:
            try:
                file = self.file(image)
            except ValueError:  # a failure of this image alone
                continue
            if file in users:
                raise ValueError(
                    f"{file} would be the map of {users[file]} and of {image}: save maps under the "
                    "relative paths of the images, and list each image once in a run."
                )
            users[file] = image

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
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # what reading raises differs with the damage
        raise ValueError(f"The map {path} cannot be read ({reason(error)}).") from error
    shape = getattr(array, "shape", ())
    if len(shape) < 2 or set(shape[:-2]) - {1} or 0 in shape or array.dtype.kind not in "buif":
        raise ValueError(
            f"The map {path} must hold real numbers (h, w), and has shape {tuple(shape)} and type "
            f"{getattr(array, 'dtype', type(array).__name__)}."
        )
    map_: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    map_ = array.reshape(shape[-2:]).astype(np.float32)
    return map_
