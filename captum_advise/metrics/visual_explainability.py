"""The protocol of the paper: one number, AVX, from confidence, similarity and class sensitivity."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from captum_advise.metrics.confidence import (
    average_drop,
    hit,
    increase_in_confidence,
    target_confidence,
)
from captum_advise.metrics.similarity import fsim, mse, ssim
from captum_advise.validation import check_classes

_MAX_CLASS_SENSITIVITY = 0.55


@dataclass(frozen=True)
class Protocol:
    """Where the paper's wording and the authors' program differ, which one to follow.

    The default follows the paper. :meth:`reference` follows the program.

    Args:
        binary_mask: Round the map to 0 or 1 before it masks the picture.
        largest_confidence: Compare with the largest confidence of the explanation picture,
            whichever class has it, instead of the target's.

    Example::

        >>> Protocol()
        Protocol(binary_mask=False, largest_confidence=False)
        >>> advise = LayerAdvise(net, net.conv4)
        >>> explanation = advise.explain(images, protocol=Protocol.reference())
    """

    binary_mask: bool = False
    largest_confidence: bool = False

    @classmethod
    def reference(cls) -> Protocol:
        """As the authors' program does it."""
        return cls(binary_mask=True, largest_confidence=True)

    def masks(self, maps: Tensor) -> Tensor:
        """Maps in [0, 1], of any shape, as this protocol lays them on a picture."""
        return maps.round() if self.binary_mask else maps

    def explained_confidence(self, confidences: Tensor, target: Tensor) -> Tensor:
        """The confidence that is compared with the whole picture's.

        Args:
            confidences: (N, K) of the explanation pictures.
            target: (N,) int64 classes.

        Returns:
            (N,)
        """
        if self.largest_confidence:
            return confidences.amax(1)
        return target_confidence(confidences, target)


@dataclass(frozen=True)
class VisualExplainability:
    """Result of :func:`visual_explainability`, one entry per picture.

    A part that does not apply (the similarity of inputs that are no pictures, say) is NaN.

    Attributes:
        avx: (N,) in [0, 1], larger is better.
        average_drop: (N,) in [0, 1], smaller is better.
        ssim: (N,), larger is better.
        fsim: (N,) in [0, 1], larger is better.
        mse: (N,) in [0, 1], smaller is better.
        class_sensitivity: (N,) in [-1, 1], near or below zero is better.
        hit: (N,) bool.
        increase_in_confidence: (N,) bool.

    Example::

        >>> scores = LayerAdvise(net, net.conv4).explain(images).scores
        >>> scores.avx.shape, scores[0].avx.shape
        (torch.Size([2]), torch.Size([]))
        >>> list(scores.to_dict())
        ['avx', 'average_drop', 'ssim', 'fsim', 'mse', 'class_sensitivity', 'hit', ...]
    """

    avx: Tensor
    average_drop: Tensor
    ssim: Tensor
    fsim: Tensor
    mse: Tensor
    class_sensitivity: Tensor
    hit: Tensor
    increase_in_confidence: Tensor

    def __getitem__(self, index: int | Tensor) -> VisualExplainability:
        """The same for some of the pictures."""
        return VisualExplainability(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> VisualExplainability:
        """A copy on another device."""
        return VisualExplainability(*(getattr(self, f.name).to(device) for f in fields(self)))

    def to_dict(self) -> dict[str, list[float | bool] | float | bool]:
        """Plain numbers under the attributes' names."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    @classmethod
    def concatenate(cls, parts: list[VisualExplainability]) -> VisualExplainability:
        """Several results as one, in order."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def visual_explainability(
    pictures: Tensor,
    explanations: Tensor,
    confidences: Tensor,
    explained_confidences: Tensor,
    target: Tensor,
    class_sensitivity: Tensor,
    protocol: Protocol = Protocol(),
) -> VisualExplainability:
    r"""AVX of explanation pictures, and every part of it (the ADVISE paper's protocol).

    AVX is the harmonic mean of SSIM, FSIMc, 1 - MSE and 1 - AD, with AD the average drop. When
    the target is not among the five most confident classes of the explanation picture (no hit),
    AD, SSIM, FSIMc and MSE are first multiplied by :math:`1 - |y - o|`, if the class
    sensitivity is within 0.55 of zero; otherwise AVX is zero. The parts are reported as they are
    before that penalty.

    Args:
        pictures: (N, C, H, W) in [0, 1], C 1 or 3.
        explanations: The explanation pictures, likewise:
            :func:`captum_advise.pixels.explanation_pictures`.
        confidences: (N, K) probabilities for ``pictures``.
        explained_confidences: (N, K) probabilities for ``explanations``.
        target: (N,) int64 classes that are explained.
        class_sensitivity: (N,) from :func:`captum_advise.metrics.class_sensitivity`.
        protocol: Which reading of the protocol.

    Returns:
        :class:`VisualExplainability`.

    Raises:
        ValueError: Pictures of different shapes, or values outside [0, 1].

    Example::

        >>> picture = torch.rand(1, 3, 16, 16)
        >>> probabilities = torch.tensor([[0.7, 0.3]])
        >>> zero = torch.zeros(1)
        >>> perfect = visual_explainability(
        ...     picture, picture, probabilities, probabilities, torch.tensor([0]), zero
        ... )
        >>> perfect.avx
        tensor([1.])
    """
    check_classes(confidences, target)
    check_classes(explained_confidences, target)
    before = target_confidence(confidences, target)
    after = protocol.explained_confidence(explained_confidences, target)
    drop = average_drop(before, after)
    structure, feature = ssim(explanations, pictures), fsim(explanations, pictures)
    error = mse(explanations, pictures)
    found = hit(explained_confidences, target)

    penalty = torch.where(found, torch.ones_like(drop), 1 - (before - after).abs())
    parts = torch.stack(
        [structure * penalty, feature * penalty, 1 - error * penalty, 1 - drop * penalty]
    )
    usable = (parts > 0).all(0) & (found | (class_sensitivity.abs() <= _MAX_CLASS_SENSITIVITY))
    # The harmonic mean of numbers of which one is not positive is taken as zero.
    mean = len(parts) / torch.where(parts > 0, parts, torch.ones_like(parts)).reciprocal().sum(0)
    return VisualExplainability(
        avx=torch.where(usable, mean, torch.zeros_like(mean)),
        average_drop=drop,
        ssim=structure,
        fsim=feature,
        mse=error,
        class_sensitivity=class_sensitivity,
        hit=found,
        increase_in_confidence=increase_in_confidence(before, after),
    )
