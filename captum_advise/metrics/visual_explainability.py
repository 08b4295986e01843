"""Visual explainability (AVX): the protocol of the ADVISE paper in one number per image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from captum_advise._utils.checks import check_classes
from captum_advise._utils.probabilities import check_confidences, target_confidence
from captum_advise._utils.records import TensorRecord
from captum_advise.metrics._maps import check_image_pair
from captum_advise.metrics.confidence import average_gain, hit, share_lost
from captum_advise.metrics.fsim import fsim_features, fsim_of_features
from captum_advise.metrics.mse import mse
from captum_advise.metrics.ssim import local_statistics, ssim_with

_MAX_CLASS_SENSITIVITY = 0.55


@dataclass(frozen=True)
class AVXProtocol:
    """The protocol as the paper describes it, or as the authors' program computes it.

    Args:
        binary_mask: Round the map to 0 or 1 before it masks the image.
        largest_confidence: Compare with the largest confidence for the masked image, whichever
            class has it, instead of the target's.

    Example::

        >>> AVXProtocol()
        AVXProtocol(binary_mask=False, largest_confidence=False)
        >>> advise = LayerAdvise(net, net.conv4, protocol=AVXProtocol.reference())
        >>> explanation = advise.explain(images)
    """

    binary_mask: bool = False
    largest_confidence: bool = False

    @classmethod
    def reference(cls) -> AVXProtocol:
        """The protocol of the authors' program."""
        return cls(binary_mask=True, largest_confidence=True)

    def masks(self, maps: Tensor) -> Tensor:
        """The masks that this protocol makes of maps in [0, 1], which may have any shape."""
        return maps.round() if self.binary_mask else maps


@dataclass(frozen=True)
class VisualExplainability(TensorRecord):
    """Result of :func:`visual_explainability`, one entry per image.

    A metric that does not apply (SSIM of inputs that are not images, for example) is NaN.

    Attributes:
        avx: (N,) in [0, 1], larger is better.
        average_drop: (N,) in [0, 1], smaller is better.
        ssim: (N,), larger is better.
        fsim: (N,) in [0, 1], larger is better.
        mse: (N,) in [0, 1], smaller is better.
        class_sensitivity: (N,) in [-1, 1], near or below zero is better.
        hit: (N,) bool.
        increase_in_confidence: (N,) bool.
        average_gain: (N,) in [0, 1], larger is better.

    Example::

        >>> metrics = LayerAdvise(net, net.conv4).explain(images).metrics
        >>> metrics.avx.shape, metrics[0].avx.shape
        (torch.Size([2]), torch.Size([]))
        >>> list(metrics.to_dict())
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
    average_gain: Tensor

    def __getitem__(self, index: int | Tensor) -> VisualExplainability:
        """The metrics of some of the images."""
        return VisualExplainability(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: list[VisualExplainability]) -> VisualExplainability:
        """Several results as one, in order."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def visual_explainability(
    images: Tensor,
    masked_images: Tensor,
    confidences: Tensor,
    masked_confidences: Tensor,
    target: Tensor,
    class_sensitivity: Tensor,
    protocol: AVXProtocol = AVXProtocol(),
) -> VisualExplainability:
    """AVX of masked images, and the metrics that it combines (the ADVISE paper's protocol).

    AVX is the harmonic mean of SSIM, FSIMc, 1 - MSE and 1 - AD, with AD the average drop. A miss
    means that the target is not among the five most confident classes of the masked image. Then
    AD, SSIM, FSIMc and MSE are first multiplied by :math:`1 - |y - o|` if the class sensitivity
    is within 0.55 of zero; otherwise AVX is zero. The result, a :class:`VisualExplainability`,
    holds the metrics without that penalty.

    Args:
        images: (N, C, H, W) in [0, 1], C 1 or 3.
        masked_images: Like ``images``, from :func:`captum_advise.pixels.masked_images`.
        confidences: (N, K) probabilities for ``images``.
        masked_confidences: (N, K) probabilities for ``masked_images``.
        target: (N,) int64 classes that are explained.
        class_sensitivity: (N,) from :func:`captum_advise.metrics.class_sensitivity`.
        protocol: The paper's protocol, or that of the authors' program.

    Raises:
        TypeError, ValueError: An argument has another type, shapes differ, or values are outside
            [0, 1].

    Example::

        >>> image = torch.rand(1, 3, 16, 16)
        >>> probabilities = torch.tensor([[0.7, 0.3]])
        >>> perfect = visual_explainability(
        ...     image, image, probabilities, probabilities, torch.tensor([0]), torch.zeros(1)
        ... )
        >>> perfect.avx
        tensor([1.])
    """
    check_image_pair(images, masked_images)
    check_classes(confidences, target)
    check_classes(masked_confidences, target)
    check_confidences(confidences, masked_confidences)
    return compare(
        ssim_with(masked_images, images, local_statistics(images)),
        fsim_of_features(fsim_features(masked_images), fsim_features(images)),
        mse(masked_images, images),
        confidences,
        masked_confidences,
        target,
        class_sensitivity,
        protocol,
    )


def highest_avx(ssim: Tensor, fsim: Tensor, mse: Tensor) -> Tensor:
    """The highest AVX (P,) that any confidences could give. An FSIMc that is not known is one."""
    # The penalty on a miss makes MSE smaller too. Up to 0.5 that gains less than SSIM and
    # FSIMc lose, both of which are at most one.
    error = torch.where(mse <= 0.5, mse, torch.zeros_like(mse))
    return _harmonic_mean(ssim, fsim, 1 - error, torch.ones_like(error))


def compare(
    ssim: Tensor,
    fsim: Tensor,
    mse: Tensor,
    confidences: Tensor,
    masked_confidences: Tensor,
    target: Tensor,
    class_sensitivity: Tensor,
    protocol: AVXProtocol,
) -> VisualExplainability:
    """:func:`visual_explainability` of masked images whose similarity is known."""
    confidence = target_confidence(confidences, target)
    masked_confidence = target_confidence(masked_confidences, target)
    if protocol.largest_confidence:
        masked_confidence = masked_confidences.amax(1)
    drop = share_lost(confidence, masked_confidence)
    is_hit = hit(masked_confidences, target)
    less = 1 - (confidence - masked_confidence).abs()
    penalty = torch.where(is_hit, torch.ones_like(drop), less)
    mean = _harmonic_mean(ssim * penalty, fsim * penalty, 1 - mse * penalty, 1 - drop * penalty)
    usable = is_hit | (class_sensitivity.abs() <= _MAX_CLASS_SENSITIVITY)
    useless = torch.zeros_like(mean).masked_fill(class_sensitivity.isnan(), torch.nan)
    return VisualExplainability(
        avx=torch.where(usable, mean, useless),
        average_drop=drop,
        ssim=ssim,
        fsim=fsim,
        mse=mse,
        class_sensitivity=class_sensitivity,
        hit=is_hit,
        increase_in_confidence=masked_confidence > confidence,
        average_gain=average_gain(confidence, masked_confidence),
    )


def _harmonic_mean(*parts: Tensor) -> Tensor:
    """Zero where a part is zero or negative, NaN where one is not known."""
    values = torch.stack(parts)
    is_zero = values <= 0
    positive = torch.where(is_zero, torch.ones_like(values), values)
    mean = len(parts) / positive.reciprocal().sum(0)
    return torch.where(is_zero.any(0), torch.zeros_like(mean), mean)
