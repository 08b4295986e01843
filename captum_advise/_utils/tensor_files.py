"""Named tensors in a NumPy file, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADER = "header"
# A file that would take more memory is refused, unless it is as large itself.
_MOST_BYTES, _MOST_EXPANSION = 2**30, 20
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16}  # by bytes per element


def pack_tensors(kind: str, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> bytes:
    """The content of a NumPy ``.npz`` file with named tensors.

    Types that NumPy does not have (bfloat16) are stored as integers of their size; a header in
    JSON names each tensor's type, what kind of file it is, and the notes.
    """
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    arrays: dict[str, Any] = {
        _HEADER: np.array(json.dumps({"kind": kind, "dtypes": dtypes, "notes": notes})),
        **{name: _as_array(tensor.detach().cpu()) for name, tensor in tensors.items()},
    }
    with io.BytesIO() as stream:
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()


def unpack_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read from a file the tensors and notes that :func:`pack_tensors` packed.

    Nothing in the file is executed. A file of another kind, or a damaged one, is a ValueError.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file.")
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
        tensors = {
            name: _as_tensor(arrays[name], getattr(torch, dtype))
            for name, dtype in header["dtypes"].items()
        }
        return tensors, header["notes"]
    # What reading raises on a damaged file depends on where the damage is.
    except (
        *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
        *(NotImplementedError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            f"{path} is truncated, damaged, or not a file with {kind} ({error})."
        ) from error


def _as_array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(_AS_INTEGERS[tensor.element_size()]).numpy()


def _as_tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: object) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{dtype} is not a type of tensors")
    tensor = torch.from_numpy(array)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
