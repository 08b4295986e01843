"""Fingerprints of images: what a run compares when it continues."""

from __future__ import annotations

import hashlib
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
    digest = hashlib.sha256(f"file {target} ".encode())
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:_DIGITS]


def tensor_fingerprint(inputs: Tensor, target: int | None) -> str:
    """Short hex of the SHA-256 of a model input, its type and shape, and its class."""
    digest = hashlib.sha256(f"{inputs.dtype} {tuple(inputs.shape)} {target} ".encode())
    digest.update(tensor_bytes(inputs))
    return digest.hexdigest()[:_DIGITS]
