"""Metrics of the confidence in the target, for the whole image and for the masked image."""

from __future__ import annotations

from torch import Tensor

from captum_advise._utils.checks import check_real, check_same_shape
from captum_advise._utils.probabilities import check_confidences, target_confidence


def average_drop(confidence: Tensor, masked_confidence: Tensor) -> Tensor:
    """Share of the confidence that is lost: ``max(0, y - o) / y``. Smaller is better.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018.

    Args:
        confidence: (N,) confidence y in the target for the whole image, in [0, 1].
        masked_confidence: (N,) confidence o in it for the masked image.

    Returns:
        (N,) in [0, 1]; zero where y is zero, as nothing can be lost there.

    Raises:
        TypeError, ValueError: An argument is not a tensor of probabilities, or the shapes differ.

    Example::

        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9]))
        tensor([0.2500, 0.0000])
    """
    _check_pair(confidence, masked_confidence)
    return share_lost(confidence, masked_confidence)


def share_lost(confidence: Tensor, masked_confidence: Tensor) -> Tensor:
    """:func:`average_drop` of probabilities."""
    drop = (confidence - masked_confidence).clamp(min=0)
    return drop / confidence.where(confidence > 0, confidence.new_ones(()))


def average_gain(confidence: Tensor, masked_confidence: Tensor) -> Tensor:
    """Share of the possible gain that masking brings: ``max(0, o - y) / (1 - y)``, 0 where y is 1.

    Source: Zhang, Torres, Sicre, Avrithis and Ayache, "Opti-CAM: Optimizing saliency maps for
    interpretability", CVIU 2024.
    """
    gain = (masked_confidence - confidence).clamp(min=0)
    room = 1 - confidence
    return gain / room.where(room > 0, room.new_ones(()))


def increase_in_confidence(confidence: Tensor, masked_confidence: Tensor) -> Tensor:
    """Whether masking raises the confidence in the target (Chattopadhay et al., WACV 2018).

    Args:
        confidence, masked_confidence: As in :func:`average_drop`.

    Returns:
        (N,) bool.

    Example::

        >>> increase_in_confidence(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9]))
        tensor([False,  True])
    """
    _check_pair(confidence, masked_confidence)
    return masked_confidence > confidence


def hit(confidences: Tensor, target: Tensor, *, top: int = 5) -> Tensor:
    """Bool (N,), whether fewer than ``top`` classes (N, K) have more confidence than the target."""
    return (confidences > target_confidence(confidences, target)[:, None]).sum(1) < top


def _check_pair(confidence: Tensor, masked_confidence: Tensor) -> None:
    check_real(confidence=confidence, masked_confidence=masked_confidence)
    if not confidence.is_floating_point() or not masked_confidence.is_floating_point():
        raise TypeError("Confidences must be floating-point numbers in [0, 1].")
    check_same_shape(confidence=confidence, masked_confidence=masked_confidence)
    check_confidences(confidence, masked_confidence)
