"""Fingerprints of images: what a run compares when it continues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from captum_advise.evaluation.identity import tensor_bytes

_DIGITS = 16
_BLOCK = 1 << 20


def file_fingerprint(path: Path, target: int | None) -> str:
    """Short hex of the SHA-256 of a file's bytes and its class.

    Raises:
        OSError: The file cannot be read.
    """
    return _of_file(path, f"file {target} ")


def bytes_fingerprint(path: Path) -> str:
    """Short hex of the SHA-256 of a file's bytes.

    Raises:
        OSError: The file cannot be read.
    """
    return _of_file(path, "")


def _of_file(path: Path, before: str) -> str:
    digest = hashlib.sha256(before.encode())
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:_DIGITS]


def joined_fingerprint(fingerprints: Iterable[str]) -> str:
    """One fingerprint of several."""
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()[:_DIGITS]


def tensor_fingerprint(inputs: Tensor, target: int | None) -> str:
    """Short hex of the SHA-256 of a model input, its type and shape, and its class."""
    digest = hashlib.sha256(f"{inputs.dtype} {tuple(inputs.shape)} {target} ".encode())
    digest.update(tensor_bytes(inputs))
    return digest.hexdigest()[:_DIGITS]
