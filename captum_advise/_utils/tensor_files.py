"""Records of tensors in a NumPy file, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from captum_advise._utils.errors import first_line
from captum_advise._utils.records import plain

T = TypeVar("T")

_HEADER, _TENSOR = "header", "tensor, type"
# A file that would take more memory is refused, unless it is as large itself.
_MOST_BYTES, _MOST_EXPANSION = 2**30, 20


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
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file.")

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(whole, value))
        if not isinstance(value, dict):
            return value
        if _TENSOR not in value:
            return {key: whole(part) for key, part in value.items()}
        name, dtype = value[_TENSOR]
        return torch.from_numpy(arrays[name]).to(getattr(torch, dtype))

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
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
