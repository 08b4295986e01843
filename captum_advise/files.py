"""Files that are whole or not there, and tensors in a file without pickle."""

from __future__ import annotations

import io
import json
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADER = "header"
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16}  # by bytes per element


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the new one, whole, at every moment.

    Devices and pipes, which can't be replaced, are written to as they are.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    # Not the file's own name, which may have the greatest length already.
    unfinished = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def pack_tensors(kind: str, tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as the content of a NumPy ``.npz`` file.

    Types that NumPy does not have (bfloat16) are stored as integers of their size; a header in
    JSON names each tensor's type, and what kind of file it is.
    """
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    arrays: dict[str, Any] = {
        _HEADER: np.array(json.dumps({"kind": kind, "dtypes": dtypes})),
        **{name: _as_array(tensor.detach().cpu()) for name, tensor in tensors.items()},
    }
    with io.BytesIO() as stream:
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()


def unpack_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """What :func:`pack_tensors` packed, from a file. Nothing in the file is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, truncated or damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file.")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {
                name.removesuffix(".npy"): np.load(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in archive.namelist()
            }
        header = json.loads(str(arrays.pop(_HEADER)))
        if header["kind"] != kind:
            raise ValueError(f"it holds {header['kind']}, not {kind}")
        return {
            name: _as_tensor(arrays[name], getattr(torch, dtype))
            for name, dtype in header["dtypes"].items()
        }
    # What reading raises on a damaged file depends on where the damage is.
    except (
        *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
        *(NotImplementedError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            f"{path} is truncated, damaged, or no file with {kind} ({error})."
        ) from error


def _as_array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(_AS_INTEGERS[tensor.element_size()]).numpy()


def _as_tensor(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: object) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{dtype} is no type of tensors")
    tensor = torch.from_numpy(array)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
