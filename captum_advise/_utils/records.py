"""Dataclasses of tensors: copies on another device, plain values, and files without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from captum_advise._utils.errors import first_line
from captum_advise._utils.io import require_file

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_HEADER, _TENSOR = "header", "tensor, type"
# A file that would take more memory is refused, unless it is as large itself.
_MOST_BYTES, _MOST_EXPANSION = 2**30, 20
_OBJECTS = 8  # how much more memory JSON takes as objects


class TensorRecord:
    """Mixin of a frozen dataclass of tensors, other records, and tuples or dicts of these."""

    def to(self, device: torch.device | str) -> Self:
        """A copy on another device."""
        moved: Self = mapped(self, lambda tensor: tensor.to(device))
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists under the names of the attributes."""
        numbers: dict[str, Any] = plain(self, lambda tensor, _: tensor.tolist())
        return numbers


def mapped(value: Any, of_tensor: Callable[[Tensor], Tensor]) -> Any:
    """The same with what is made of each tensor in its place."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, TensorRecord):
        return type(value)(**mapped(vars(value), of_tensor))
    if isinstance(value, tuple):
        return tuple(mapped(part, of_tensor) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, of_tensor) for key, part in value.items()}
    return value


def plain(value: Any, of_tensor: Callable[[Tensor, str], Any], name: str = "") -> Any:
    """Dicts and lists in place of records, dicts and tuples, and what is made of their tensors.

    ``of_tensor`` takes a tensor and its name: its path, as in ``metrics.avx``.
    """
    if isinstance(value, Tensor):
        return of_tensor(value, name)
    if is_dataclass(value):
        value = vars(value)
    prefix = f"{name}." if name else ""
    if isinstance(value, dict):
        return {key: plain(part, of_tensor, f"{prefix}{key}") for key, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part, of_tensor, f"{prefix}{index}") for index, part in enumerate(value)]
    return value


def pack(kind: str, record: Any) -> bytes:
    """The content of a NumPy ``.npz`` file with dataclasses, dicts and tuples of tensors.

    A tensor's name is its path, as ``metrics.avx``. A type that NumPy does not have (bfloat16) is
    stored in single precision. A header in JSON has what kind of file it is, and all else.
    """
    arrays: dict[str, Any] = {}

    def stored(tensor: Tensor, name: str) -> Any:
        values = tensor.detach().cpu()
        arrays[name] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return {_TENSOR: [name, str(tensor.dtype).removeprefix("torch.")]}

    arrays[_HEADER] = np.array(json.dumps({"kind": kind, "content": plain(record, stored)}))
    with io.BytesIO() as stream:
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()


def unpack(path: Path, kind: str, made: Callable[[Any], T]) -> T:
    """What is made of the dicts and tuples in a file that :func:`pack` packed.

    Nothing in the file is executed. A file of another kind, a damaged one, or one of which nothing
    can be made, is a ValueError.
    """
    require_file(path)

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(whole, value))
        if not isinstance(value, dict):
            return value
        if _TENSOR not in value:
            return {key: whole(part) for key, part in value.items()}
        name, dtype = value[_TENSOR]
        # Each once, and as it is stored, so that a small file cannot take much memory.
        tensor = torch.from_numpy(arrays.pop(name))
        if dtype == "bfloat16":
            return tensor.to(torch.bfloat16)
        if str(tensor.dtype) != f"torch.{dtype}":
            raise ValueError(f"{name} is not of the type {dtype}")
        return tensor

    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            size = sum(sizes.values()) + _OBJECTS * sizes.get(f"{_HEADER}.npy", 0)
            if size > max(_MOST_BYTES, _MOST_EXPANSION * path.stat().st_size):
                raise ValueError(f"it would take {size / 1e9:.1f} GB of memory")
            arrays = {
                name.removesuffix(".npy"): np.load(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in archive.namelist()
            }
        header = json.loads(str(arrays.pop(_HEADER)))
        if header["kind"] != kind:
            raise ValueError(f"it holds {header['kind']}")
        return made(whole(header["content"]))
    # What reading raises on a damaged file depends on where the damage is.
    except Exception as error:
        raise ValueError(
            f"{path} is truncated, damaged, or not a file with {kind} ({first_line(error)})."
        ) from error
