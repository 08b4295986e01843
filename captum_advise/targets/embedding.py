"""Embeddings: similarity to images or texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise.targets._wrapper import OutputSelector, Wrapper, select_output


class Embedding(Wrapper):
    """Cosine similarities (N, K) of images to K reference embeddings, of images or of texts.

    Args:
        model: Returns embeddings (N, D).
        references: (K, D), or (D,) for one. They need not have unit length. None: they belong to
            the images, and are passed as ``additional_forward_args``, (N, K, D).
        method: Name of the model's method that embeds images, such as ``"get_image_features"``.
            Default: the model is called itself
        output: Which tensor of the model's output, as in :class:`Output`. None: the output itself
            if it is a tensor, its ``image_embeds`` or ``pooler_output``, or its only element.
        confidence: Turns the similarities into probabilities, as zero-shot classification does
            (Radford et al. 2021, section 2.3): for CLIP ``lambda x: (scale * x).softmax(1)``.
            Default: the similarity, with 0 for negative ones

    Raises:
        TypeError: The model has no such method, or the references are not a tensor; when called,
            the output that is meant is not a tensor of real numbers.
        ValueError: The references are not vectors; when called, they are missing or do not fit
            the images or the model's embeddings.

    Example::

        >>> reference = Embedding(net).embed(images[:1])  # 1 x 10
        >>> similarity = Embedding(net, reference)
        >>> similarity(images).shape
        torch.Size([2, 1])
        >>> LayerAdvise(similarity, net.conv4).attribute(images, target=0).shape
        torch.Size([2, 1, 8, 8])
    """

    references: Tensor | None

    def __init__(
        self,
        model: Callable[..., Any],
        references: Tensor | None = None,
        *,
        method: str | None = None,
        output: OutputSelector = None,
        confidence: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model)
        if method is not None and not callable(getattr(model, method, None)):
            raise TypeError(f"The {type(model).__name__} has no method {method!r}.")
        if references is not None:
            check_real(references=references)
            references = references.detach()
            references = references[None] if references.dim() == 1 else references
            _check_vectors(references, "(K, D)", 2)
        self.register_buffer("references", references, persistent=False)
        self.method = method
        self.output = output
        self.confidence = _positive_part if confidence is None else confidence

    def forward(self, inputs: Tensor, references: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) to similarities (N, K).

        Args:
            inputs: The images.
            references: (N, K, D), each image's own, instead of the constructor's.

        Raises:
            ValueError: There are no references, or they do not fit.
        """
        embeddings = self._unit_embeddings(inputs)
        if references is None and self.references is not None:
            references = self.references[None]
        if references is None:
            raise ValueError(
                "There is nothing to compare with: give `references` (K, D) to the constructor, or "
                "(N, K, D) as additional_forward_args."
            )
        check_real(references=references)
        _check_vectors(references, "(N, K, D)", 3)
        if references.shape[2] != embeddings.shape[1] or len(references) not in (1, len(inputs)):
            raise ValueError(
                f"The references {tuple(references.shape)} do not fit the embeddings "
                f"{tuple(embeddings.shape)}: both need the same D, and references of the images "
                "one row per image."
            )
        unit_references = F.normalize(references.to(embeddings), dim=2)
        return (unit_references @ embeddings[:, :, None])[:, :, 0]

    @torch.no_grad()
    def embed(self, inputs: Tensor) -> Tensor:
        """Embeddings (N, D) of images, of unit length, to be used as references."""
        return self._unit_embeddings(inputs)

    def _unit_embeddings(self, inputs: Tensor) -> Tensor:
        # A call of the module runs its hooks.
        embed = self.model if self.method is None else getattr(self.model, self.method)
        embeddings = select_output(embed(inputs), self.output, ("image_embeds", "pooler_output"))
        if embeddings.dim() != 2:
            raise ValueError(
                f"The model's embeddings have shape {tuple(embeddings.shape)} instead of (N, D): "
                "pool them by `output`, a function such as lambda out: out.mean((2, 3)), or name "
                "another tensor."
            )
        return F.normalize(embeddings, dim=1)


def _positive_part(similarities: Tensor) -> Tensor:
    return similarities.clamp(0, 1)  # rounding may exceed 1


def _check_vectors(references: Tensor, shape: str, dims: int) -> None:
    if references.dim() != dims or not references.is_floating_point() or not references.numel():
        raise ValueError(
            f"references must be real vectors {shape}, got {references.dtype} of shape "
            f"{tuple(references.shape)}."
        )
