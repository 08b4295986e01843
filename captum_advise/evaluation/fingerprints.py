"""Fingerprints of images: what a run compares when it continues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from captum_advise.evaluation.identity import tensor_bytes
from captum_advise.evaluation.regions import Region

_DIGITS = 16
_BLOCK = 1 << 20


def file_fingerprint(path: Path, target: int | None, region: Region | None = None) -> str:
    """Short hex of the SHA-256 of a file's bytes, its class and the region of its object.

    Raises:
        OSError: The file, or that of the region's mask, cannot be read.
    """
    digest = hashlib.sha256(f"file {target} ".encode())
    _add_file(digest, path)
    if isinstance(region, Path):
        _add_file(digest, region)
    elif region is not None:
        digest.update(repr(region).encode())
    return digest.hexdigest()[:_DIGITS]


def bytes_fingerprint(path: Path) -> str:
    """Short hex of the SHA-256 of a file's bytes.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    _add_file(digest, path)
    return digest.hexdigest()[:_DIGITS]


def joined_fingerprint(fingerprints: Iterable[str]) -> str:
    """One fingerprint of several."""
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()[:_DIGITS]


def tensor_fingerprint(inputs: Tensor, target: int | None, region: Tensor | None = None) -> str:
    """Short hex of the SHA-256 of a model input, its type and shape, its class and its region."""
    digest = hashlib.sha256(f"{inputs.dtype} {tuple(inputs.shape)} {target} ".encode())
    digest.update(tensor_bytes(inputs))
    if region is not None:
        digest.update(tensor_bytes(region))
    return digest.hexdigest()[:_DIGITS]


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
