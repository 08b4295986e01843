"""Visual explainability (AVX): the protocol of the ADVISE paper in one number per image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from captum_advise._utils.checks import check_classes
from captum_advise._utils.records import TensorRecord
from captum_advise.metrics._image_pairs import check_image_pair
from captum_advise.metrics.confidence import (
    average_drop,
    average_gain,
    hit,
    increase_in_confidence,
    target_confidence,
)
from captum_advise.metrics.fsim import FSIMFeatureExtractor, FSIMFeatures, fsim_of_features
from captum_advise.metrics.mse import mse
from captum_advise.metrics.ssim import SSIMStatistics, ssim_of_statistics

_MAX_CLASS_SENSITIVITY = 0.55


@dataclass(frozen=True)
class Protocol:
    """Whether to follow the paper or the authors' program, where the two differ.

    The default follows the paper. :meth:`reference` follows the program.

    Args:
        binary_mask: Round the map to 0 or 1 before it masks the image.
        largest_confidence: Compare with the largest confidence for the masked image, whichever
            class has it, instead of the target's.

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
        """The protocol of the authors' program."""
        return cls(binary_mask=True, largest_confidence=True)

    def masks(self, maps: Tensor) -> Tensor:
        """The masks that this protocol makes of maps in [0, 1], which may have any shape."""
        return maps.round() if self.binary_mask else maps

    def masked_confidence(self, confidences: Tensor, target: Tensor) -> Tensor:
        """The masked image's confidence, which is compared with the whole image's.

        Args:
            confidences: (N, K) for the masked images.
            target: (N,) int64 classes.

        Returns:
            (N,)
        """
        if self.largest_confidence:
            return confidences.amax(1)
        return target_confidence(confidences, target)


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
    protocol: Protocol = Protocol(),
) -> VisualExplainability:
    r"""AVX of masked images, and the metrics that it combines (the ADVISE paper's protocol).

    AVX is the harmonic mean of SSIM, FSIMc, 1 - MSE and 1 - AD, with AD the average drop. A miss
    means that the target is not among the five most confident classes of the masked image. Then
    AD, SSIM, FSIMc and MSE are first multiplied by :math:`1 - |y - o|` if the class sensitivity
    is within 0.55 of zero; otherwise AVX is zero. The result holds the metrics without that
    penalty.

    Args:
        images: (N, C, H, W) in [0, 1], C 1 or 3.
        masked_images: Like ``images``, from :func:`captum_advise.pixels.masked_images`.
        confidences: (N, K) probabilities for ``images``.
        masked_confidences: (N, K) probabilities for ``masked_images``.
        target: (N,) int64 classes that are explained.
        class_sensitivity: (N,) from :func:`captum_advise.metrics.class_sensitivity`.
        protocol: The paper's protocol, or that of the authors' program.

    Returns:
        :class:`VisualExplainability`.

    Raises:
        TypeError: An argument has another type.
        ValueError: The shapes differ, or values are outside [0, 1].

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
    return compare_with(
        WholeImages.of(images),
        torch.arange(len(images), device=images.device),
        masked_images,
        confidences,
        masked_confidences,
        target,
        class_sensitivity,
        protocol,
    )


@dataclass(frozen=True)
class WholeImages:
    """Images with the features that comparisons with masked images need again and again.

    Attributes:
        statistics: The images (N, C, H, W) in [0, 1] with SSIM's local statistics.
        extractor: Of FSIM's features.
        features: FSIM's features of the images.
    """

    statistics: SSIMStatistics
    extractor: FSIMFeatureExtractor
    features: FSIMFeatures

    @classmethod
    def of(cls, images: Tensor) -> WholeImages:
        """Compute the features of some images."""
        extractor = FSIMFeatureExtractor.like(images)
        return cls(SSIMStatistics.of(images), extractor, extractor(images))

    def fsim(self, examples: Tensor, masked_images: Tensor) -> Tensor:
        """FSIMc (P,) of masked images (P, C, H, W) of some examples (P,)."""
        return fsim_of_features(self.extractor(masked_images), self.features.select(examples))


@dataclass(frozen=True)
class QuickParts:
    """The parts of AVX that cost little: all but FSIMc. (P,) each.

    Attributes:
        average_drop: As in :class:`VisualExplainability`.
        ssim: Likewise.
        mse: Likewise.
        hit: Likewise.
        increase_in_confidence: Likewise.
        average_gain: Likewise.
        penalty: What the parts are multiplied by.
    """

    average_drop: Tensor
    ssim: Tensor
    mse: Tensor
    hit: Tensor
    increase_in_confidence: Tensor
    average_gain: Tensor
    penalty: Tensor

    @classmethod
    def of(
        cls,
        whole: WholeImages,
        examples: Tensor,
        masked_images: Tensor,
        confidences: Tensor,
        masked_confidences: Tensor,
        target: Tensor,
        protocol: Protocol,
    ) -> QuickParts:
        """Of masked images (P, C, H, W) of some examples (P,)."""
        check_classes(confidences, target)
        check_classes(masked_confidences, target)
        confidence = target_confidence(confidences, target)
        masked_confidence = protocol.masked_confidence(masked_confidences, target)
        drop = average_drop(confidence, masked_confidence)
        is_hit = hit(masked_confidences, target)
        statistics = whole.statistics.select(examples)
        less = 1 - (confidence - masked_confidence).abs()
        return cls(
            average_drop=drop,
            ssim=ssim_of_statistics(masked_images, statistics),
            mse=mse(masked_images, statistics.images),
            hit=is_hit,
            increase_in_confidence=increase_in_confidence(confidence, masked_confidence),
            average_gain=average_gain(confidence, masked_confidence),
            penalty=torch.where(is_hit, torch.ones_like(drop), less),
        )

    def values(self) -> tuple[Tensor, ...]:
        """The attributes in order."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def select(self, index: Tensor) -> QuickParts:
        """Some of the entries, int64 (M,)."""
        return QuickParts(*(values[index] for values in self.values()))

    def avx(self, fsim: Tensor, class_sensitivity: Tensor) -> Tensor:
        """AVX (P,). With FSIMc one and class sensitivity zero, an upper bound of it."""
        parts = torch.stack(
            [
                self.ssim * self.penalty,
                fsim * self.penalty,
                1 - self.mse * self.penalty,
                1 - self.average_drop * self.penalty,
            ]
        )
        usable = self.hit | (class_sensitivity.abs() <= _MAX_CLASS_SENSITIVITY)
        # If a part is not positive there is no harmonic mean, and AVX is zero.
        positive = torch.where(parts > 0, parts, torch.ones_like(parts))
        mean = len(parts) / positive.reciprocal().sum(0)
        return torch.where(usable & (parts > 0).all(0), mean, torch.zeros_like(mean))


def compare_with(
    whole: WholeImages,
    examples: Tensor,
    masked_images: Tensor,
    confidences: Tensor,
    masked_confidences: Tensor,
    target: Tensor,
    class_sensitivity: Tensor,
    protocol: Protocol,
) -> VisualExplainability:
    """:func:`visual_explainability` of masked images (P, C, H, W) of some examples (P,)."""
    parts = QuickParts.of(
        whole, examples, masked_images, confidences, masked_confidences, target, protocol
    )
    fsim = whole.fsim(examples, masked_images)
    return VisualExplainability(
        avx=parts.avx(fsim, class_sensitivity),
        average_drop=parts.average_drop,
        ssim=parts.ssim,
        fsim=fsim,
        mse=parts.mse,
        class_sensitivity=class_sensitivity,
        hit=parts.hit,
        increase_in_confidence=parts.increase_in_confidence,
        average_gain=parts.average_gain,
    )
