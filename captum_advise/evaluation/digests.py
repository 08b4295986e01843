"""Digests of contents: tensors and weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

# Hexadecimal digits of short digests.
DIGITS = 16


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of parameters and buffers, on any device and in any memory format."""
    digest = hashlib.sha256()
    # The state dict lacks buffers that are not persistent.
    tensors = {**dict(model.named_buffers()), **model.state_dict()}
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(tensor_bytes(value))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes | memoryview:
    """The values of a tensor, on any device and in any memory format."""
    tensor = tensor.detach().cpu().as_subclass(Tensor)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data
