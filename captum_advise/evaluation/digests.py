"""Digests of texts, tensors and weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from captum_advise._utils.io import ENCODING


def digest(*parts: str | bytes | memoryview) -> str:
    """Short hex of the SHA-256 of parts, which follow each other without a mark."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode(**ENCODING) if isinstance(part, str) else part)
    return whole.hexdigest()[:16]


def weights_digest(model: nn.Module) -> str:
    """The digest of parameters and buffers, on any device and in any memory format."""
    # The state dict lacks buffers that are not persistent.
    tensors = {**dict(model.named_buffers()), **model.state_dict()}
    parts = (
        digest(f"{name} {value.dtype} {tuple(value.shape)} ", tensor_bytes(value))
        for name, value in sorted(tensors.items())
        if isinstance(value, Tensor)
    )
    return digest(*parts)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor, on any device and in any memory format."""
    tensor = tensor.detach().cpu().as_subclass(Tensor)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data
