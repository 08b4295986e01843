"""The protocol applied to maps, from the model's answer to masked inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from captum._utils.typing import BaselineType
from torch import Tensor

from captum_advise._core.candidates import TIE
from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.masked_model import (
    InputLayout,
    MaskedModel,
    as_masks,
    resolve_baselines,
)
from captum_advise._core.targets import Target
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.metrics import (
    AVXProtocol,
    VisualExplainability,
    class_sensitivity,
    target_confidence,
)
from captum_advise.metrics.visual_explainability import Similarity, WholeImages, compare
from captum_advise.pixels import OwnRange, PixelSpace, black, resolve_pixel_space

__all__ = ["MapScorer", "as_masks", "check_probabilities", "image_scorer"]


@dataclass(frozen=True)
class MapScorer:
    """Scores maps of given examples.

    Attributes:
        model: Masks the examples and runs the model.
        confidences: (N, K) for the unmasked inputs.
        pixels: How the masked input relates to images in [0, 1]. None: the inputs are not images,
            or similarity is not needed; then only confidences are compared.
        protocol: Reading of the protocol.
    """

    model: MaskedModel
    confidences: Tensor
    pixels: PixelSpace | OwnRange | None
    protocol: AVXProtocol

    def __call__(
        self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None
    ) -> VisualExplainability:
        r"""Metrics of maps (P, 1, \*spatial), each for the example (P,) that it belongs to."""
        parts = []
        for start in range(0, len(examples), self.model.internal_batch_size):
            chunk = slice(start, start + self.model.internal_batch_size)
            runner_up = None if runner_up_maps is None else runner_up_maps[chunk]
            parts.append(self._score(examples[chunk], maps[chunk], runner_up))
        return VisualExplainability.concatenate(parts)

    @torch.no_grad()
    def highest_avx(self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None) -> Tensor:
        r"""AVX (P,) of maps, minus infinity where another map of the example has certainly more.

        Similarity bounds AVX from above: the network runs, and FSIMc is computed, only where AVX
        could still be the highest. The only map of an example needs no AVX; it has zero.
        """
        maps_of = examples.new_zeros(len(self.confidences))
        maps_of.index_add_(0, examples, torch.ones_like(examples))
        contested = (maps_of[examples] > 1).nonzero().squeeze(1)
        if not len(contested):
            return maps.new_zeros(len(examples))
        rivals = None if runner_up_maps is None else runner_up_maps[contested]
        avx = self._highest_avx(examples[contested], maps[contested], rivals)
        return avx.new_zeros(len(examples)).index_copy_(0, contested, avx)

    def _highest_avx(self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None) -> Tensor:
        def highest(values: Tensor) -> Tensor:
            """The highest value of each pair's example."""
            none = values.new_full((len(self.confidences),), -torch.inf)
            return none.scatter_reduce(0, examples, values, "amax")[examples]

        every = torch.arange(len(examples), device=maps.device)
        parts = [self._quick_similarity(examples[part], maps[part]) for part in self._chunks(every)]
        similarity = Similarity(*map(torch.cat, zip(*parts, strict=True)))
        bound = similarity.highest_avx()
        avx = torch.full_like(bound, -torch.inf)
        most_similar = bound == highest(bound)
        for candidates in (most_similar, ~most_similar):
            enough = highest(avx) - TIE
            pairs = every[candidates & (bound >= enough)]
            for part in self._chunks(pairs):
                similarity.fsim[part] = self._fsim(examples[part], maps[part])
            bound = similarity.highest_avx()
            pairs = pairs[(bound >= enough)[pairs]]
            for part in self._chunks(pairs):
                rivals = None if runner_up_maps is None else runner_up_maps[part]
                inputs = self.model.mask(examples[part], maps[part], self.protocol.masks)
                of_part = Similarity(*(values[part] for values in similarity))
                avx[part] = self._compare(of_part, examples[part], inputs, maps[part], rivals).avx
        return avx

    def _chunks(self, pairs: Tensor) -> tuple[Tensor, ...]:
        size = self.model.internal_batch_size
        return torch.split(pairs, size) if len(pairs) else ()

    def runner_up(self) -> Target | None:
        """The class of highest confidence other than the target.

        None if there is one class, or no class sensitivity without similarity.
        """
        if self.pixels is None or self.confidences.shape[1] < 2:
            return None
        target = self.model.target
        others = self.confidences.scatter(1, target.classes[:, None], -torch.inf)
        return target.with_classes(others.argmax(1))

    def confidence_in_target(self) -> Tensor:
        """(N,) confidence in the target for the unmasked inputs."""
        return target_confidence(self.confidences, self.model.target.classes)

    @torch.no_grad()
    def _score(
        self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None
    ) -> VisualExplainability:
        inputs = self.model.mask(examples, maps, self.protocol.masks)
        if self.pixels is None:
            absent = self.confidences.new_full((len(examples),), torch.nan)
            similarity = Similarity(absent, absent, absent)
            metrics = self._compare(similarity, examples, inputs, maps, runner_up_maps)
            return replace(metrics, avx=absent)
        images = self._masked_images(examples, inputs)
        with _full_precision(maps):
            similarity = self._whole.similarity(examples, images)
            similarity = similarity._replace(fsim=self._whole.fsim(examples, images))
        return self._compare(similarity, examples, inputs, maps, runner_up_maps)

    def _compare(
        self,
        similarity: Similarity,
        examples: Tensor,
        inputs: tuple[Tensor, ...],
        maps: Tensor,
        runner_up_maps: Tensor | None,
    ) -> VisualExplainability:
        """All metrics of masked inputs whose similarity is known."""
        masked_confidences = self.model.confidences(examples, inputs)
        sensitivity = self._sensitivity(maps, runner_up_maps)
        with _full_precision(maps):
            return compare(
                similarity,
                self.confidences[examples],
                masked_confidences,
                self.model.target[examples].classes,
                sensitivity,
                self.protocol,
            )

    def _quick_similarity(self, examples: Tensor, maps: Tensor) -> Similarity:
        inputs = self.model.mask(examples, maps, self.protocol.masks)
        with _full_precision(maps):
            return self._whole.similarity(examples, self._masked_images(examples, inputs))

    def _fsim(self, examples: Tensor, maps: Tensor) -> Tensor:
        inputs = self.model.mask(examples, maps, self.protocol.masks)
        with _full_precision(maps):
            return self._whole.fsim(examples, self._masked_images(examples, inputs))

    @staticmethod
    def _sensitivity(maps: Tensor, runner_up_maps: Tensor | None) -> Tensor:
        if runner_up_maps is None:
            return maps.new_zeros(len(maps), dtype=torch.float32)
        with _full_precision(maps):
            return class_sensitivity(maps.relu(), runner_up_maps.relu()).float()

    @cached_property
    def _whole(self) -> WholeImages:
        inputs = self.model.inputs[self.model.maskable[0]]
        return WholeImages.of(self._images(inputs, torch.arange(len(inputs), device=inputs.device)))

    def _masked_images(self, examples: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        return self._images(inputs[self.model.maskable[0]], examples)

    def _images(self, inputs: Tensor, examples: Tensor) -> Tensor:
        """Images in [0, 1], single precision at least: half has no Fourier transform."""
        assert self.pixels is not None
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        return self.pixels.select(examples).to_pixels(inputs).clamp(0, 1)


def _full_precision(maps: Tensor) -> torch.autocast:
    """Autocast is for the network: it would compute similarities in half precision."""
    return torch.autocast(maps.device.type, enabled=False)


def scorer_of(
    layer_pass: LayerPass,
    layout: InputLayout,
    target: Target,
    *,
    baselines: BaselineType,
    pixel_space: PixelSpace | None,
    confidence: Callable[[Tensor], Tensor],
    protocol: AVXProtocol,
    internal_batch_size: int,
    is_needed: bool,
    needs_similarity: bool,
) -> MapScorer | None:
    """A scorer of maps for the examples of a forward pass."""
    inputs, outputs = layer_pass.call.inputs, layer_pass.outputs.detach()
    is_single = outputs.dim() < 2 or outputs.shape[1] < 2
    if not is_needed and (
        not layout.maskable or (is_single and confidence is softmax_over_classes)
    ):
        return None
    pixels = None
    if layout.is_image and needs_similarity:
        images = inputs[layout.maskable[0]].detach()
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        pixels = resolve_pixel_space(pixel_space, images)
    model = MaskedModel(
        forward_func=layer_pass.call.forward_func,
        inputs=tuple(tensor.detach() for tensor in inputs),
        additional_forward_args=layer_pass.call.additional_forward_args,
        maskable=layout.maskable,
        baselines=resolve_baselines(inputs, layout, baselines, pixel_space),
        confidence=confidence,
        target=target,
        internal_batch_size=internal_batch_size,
        outputs=outputs,
    )
    model.check_arguments()
    return MapScorer(
        model=model,
        confidences=class_confidences(confidence, outputs, target),
        pixels=pixels,
        protocol=protocol,
    )


def image_scorer(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    outputs: Tensor,
    target: Target,
    *,
    pixel_space: PixelSpace | None,
    confidence: Callable[[Tensor], Tensor],
    protocol: AVXProtocol,
    internal_batch_size: int,
) -> MapScorer:
    """A scorer for images (N, C, H, W), with black as the baseline."""
    model = MaskedModel(
        forward_func=forward_func,
        inputs=(inputs,),
        additional_forward_args=None,
        maskable=(0,),
        baselines=(black(inputs, pixel_space),),
        confidence=confidence,
        target=target,
        internal_batch_size=internal_batch_size,
        outputs=outputs,
    )
    return MapScorer(
        model, confidence(outputs).float(), resolve_pixel_space(pixel_space, inputs), protocol
    )


def class_confidences(
    confidence: Callable[[Tensor], Tensor], outputs: Tensor, target: Target
) -> Tensor:
    """Confidences (N, K) of all classes where the target points."""
    values: Any = confidence(outputs)
    if not isinstance(values, Tensor) or values.shape != outputs.shape:
        got = getattr(values, "shape", type(values).__name__)
        raise ValueError(
            "confidence must return probabilities of the outputs' shape, "
            f"{tuple(outputs.shape)}, got {got}."
        )
    return target.class_rows(values).float()


def check_probabilities(confidences: Tensor) -> None:
    """Require values in [0, 1]."""
    # Rounding in half precision may leave the interval.
    if not bool(((confidences >= -1e-2) & (confidences <= 1 + 1e-2)).all()):
        raise ValueError(
            "confidence must return probabilities, and some are NaN or outside [0, 1]: pass the "
            "function that turns the model's outputs into probabilities (softmax over dimension 1 "
            "by default, torch.sigmoid for independent logits), and check that the outputs are "
            "finite."
        )
