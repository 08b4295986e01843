"""The protocol applied to maps, from the model's answer to masked inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.masked_model import MaskedModel, as_masks
from captum_advise._core.targets import Target
from captum_advise._core.unit_choice import TIE, Candidates
from captum_advise._utils.probabilities import target_confidence
from captum_advise.metrics import AVXProtocol, VisualExplainability
from captum_advise.metrics.class_sensitivity import correlation
from captum_advise.metrics.fsim import fsim_features, fsim_of_features
from captum_advise.metrics.mse import mse
from captum_advise.metrics.ssim import local_statistics, ssim_with
from captum_advise.metrics.visual_explainability import compare, highest_avx
from captum_advise.pixels import PixelSpace, to_pixels

__all__ = ["MapScorer", "as_masks"]


@dataclass(frozen=True, kw_only=True)
class MapScorer(MaskedModel):
    """Scores maps of given examples."""

    compares_images: bool = True  # else only confidences are compared
    pixel_space: PixelSpace | None
    protocol: AVXProtocol

    def __call__(
        self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None
    ) -> VisualExplainability:
        r"""Metrics of maps (P, 1, \*spatial), each for the example (P,) that it belongs to."""
        sensitivity = _sensitivity(maps, runner_up_maps)
        every = torch.arange(len(examples), device=maps.device)
        return VisualExplainability.concatenate(
            [self._score(examples[i], maps[i], sensitivity[i]) for i in self._chunks(every)]
        )

    def metrics(
        self, candidates: Candidates, runner_up_contributions: Tensor | None
    ) -> VisualExplainability:
        """Metrics of the map of each of the pairs."""
        rivals = candidates.maps_from(runner_up_contributions)
        of_pairs = None if rivals is None else rivals[candidates.places]
        return self(candidates.examples, candidates.pair_maps, of_pairs)

    def criterion(
        self,
        selection: str,
        candidates: Candidates,
        runner_up_contributions: Tensor | None,
        metrics: VisualExplainability | None = None,
    ) -> Tensor:
        """A number (S, N) that is highest for the best candidate of an example."""
        if selection == "avx" and metrics is None:
            return self._highest_avx(candidates, runner_up_contributions)
        metrics = metrics or self.metrics(candidates, runner_up_contributions)
        return candidates.table(metrics.avx if selection == "avx" else -metrics.average_drop)

    @torch.no_grad()
    def _highest_avx(
        self, candidates: Candidates, runner_up_contributions: Tensor | None
    ) -> Tensor:
        """AVX (S, N) of maps, minus infinity where another map of the example has certainly more.

        Similarity bounds AVX from above: the network runs, and FSIMc is computed, only where AVX
        could still be the highest. The only map of an example needs no AVX; it has zero.
        """
        rivals = candidates.maps_from(runner_up_contributions)
        n_groups, n_examples = len(candidates.maps) - 1, len(candidates.fallback)
        if self._takes_as_long_for_one and n_groups * n_examples <= self.internal_batch_size:
            return self._avx_of_groups(candidates, rivals)
        examples, maps = candidates.examples, candidates.pair_maps
        sensitivity = _sensitivity(maps, None if rivals is None else rivals[candidates.places])
        # On the CPU: only two more steps wait for a GPU, those that look for what is enough.
        n_maps = candidates.pairs[:, 1].bincount()
        contested = (n_maps[candidates.pairs[:, 1]] > 1).nonzero().squeeze(1).to(maps.device)
        several = (n_maps > 1).nonzero().squeeze(1).to(maps.device)
        if not len(contested):
            return candidates.table(maps.new_zeros(len(maps)))
        # SSIM, FSIMc, which is at most one, and MSE.
        similarity = self._whole[0].new_ones(3, len(maps))
        avx = similarity.new_zeros(len(maps)).index_fill_(0, contested, -torch.inf)

        def masked(part: Tensor) -> tuple[Tensor, ...]:
            return self.mask(examples[part], maps[part], self.protocol.masks)

        def run(part: Tensor, inputs: tuple[Tensor, ...]) -> None:
            known = similarity[:, part], sensitivity[part]
            avx[part] = self._compare(examples[part], inputs, *known).avx

        for part in self._chunks(contested):
            quick = self._quick_similarity(examples[part], masked(part))
            similarity[0, part], similarity[2, part] = quick
        bound = highest_avx(*similarity)
        most_similar = candidates.selected_pairs(candidates.table(bound).argmax(0))[several]
        for part in self._chunks(most_similar):
            inputs = masked(part)
            similarity[1, part] = self._fsim(examples[part], inputs)
            run(part, inputs)

        enough = candidates.table(avx).amax(0)[examples] - TIE
        bound[most_similar] = -torch.inf
        pairs = contested[(bound >= enough)[contested]]
        for part in self._chunks(pairs):
            similarity[1, part] = self._fsim(examples[part], masked(part))
        for part in self._chunks(pairs[(highest_avx(*similarity) >= enough)[pairs]]):
            run(part, masked(part))
        return candidates.table(avx)

    def _avx_of_groups(self, candidates: Candidates, rivals: Tensor | None) -> Tensor:
        """AVX (S, N) of all groups; of those without evidence, too, to ask a GPU for none."""
        # The last candidate is all units, which is never compared.
        maps, n_examples = candidates.maps[:-1].flatten(0, 1), len(candidates.fallback)
        examples = torch.arange(n_examples, device=maps.device).repeat(len(maps) // n_examples)
        found = self(examples, maps, None if rivals is None else rivals[:-1].flatten(0, 1))
        avx = found.avx.nan_to_num(nan=-1e9).view(-1, n_examples)
        avx = torch.cat([avx, avx.new_zeros(1, n_examples)])
        return avx.masked_fill(~candidates.eligible, -torch.inf)

    @property
    def _takes_as_long_for_one(self) -> bool:
        """Whether a forward pass of a full batch takes hardly longer than that of one example."""
        return self.outputs.device.type != "cpu"

    @cached_property
    def confidences(self) -> Tensor:
        """(N, K) of all classes where the target points, for the unmasked inputs."""
        values: Any = self.confidence(self.outputs)
        if not isinstance(values, Tensor) or values.shape != self.outputs.shape:
            got = getattr(values, "shape", type(values).__name__)
            raise ValueError(
                "confidence must return probabilities of the outputs' shape, "
                f"{tuple(self.outputs.shape)}, got {got}."
            )
        return self.target.class_rows(values).float()

    def _chunks(self, pairs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(pairs, self.internal_batch_size) if len(pairs) else ()

    def runner_up(self) -> Target | None:
        """The class of highest confidence other than the target.

        None if there is one class, or no class sensitivity without similarity.
        """
        if not self.compares_images or self.confidences.shape[1] < 2:
            return None
        others = self.confidences.scatter(1, self.target.classes[:, None], -torch.inf)
        return self.target.with_classes(others.argmax(1))

    def confidence_in_target(self) -> Tensor:
        """(N,) confidence in the target for the unmasked inputs."""
        return target_confidence(self.confidences, self.target.classes)

    @torch.no_grad()
    def _score(self, examples: Tensor, maps: Tensor, sensitivity: Tensor) -> VisualExplainability:
        inputs = self.mask(examples, maps, self.protocol.masks)
        if not self.compares_images:
            absent = self.confidences.new_full((3, len(examples)), torch.nan)
            return replace(self._compare(examples, inputs, absent, sensitivity), avx=absent[0])
        ssim, error = self._quick_similarity(examples, inputs)
        similarity = torch.stack([ssim, self._fsim(examples, inputs), error])
        return self._compare(examples, inputs, similarity, sensitivity)

    def _compare(
        self,
        examples: Tensor,
        inputs: tuple[Tensor, ...],
        similarity: Tensor,
        sensitivity: Tensor,
    ) -> VisualExplainability:
        """All metrics of masked inputs whose SSIM, FSIMc and MSE (3, P) are known."""
        masked_confidences = self.masked_confidences(examples, inputs)
        classes = self.target[examples].classes
        ssim, fsim, error = similarity
        with _full_precision(similarity):
            return compare(
                *(ssim, fsim, error),
                self.confidences[examples],
                masked_confidences,
                classes,
                sensitivity,
                self.protocol,
            )

    def _quick_similarity(
        self, examples: Tensor, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """SSIM and MSE (P,) of masked inputs."""
        whole, statistics = (features[examples] for features in self._whole[:2])
        with _full_precision(whole):
            images = self._images(examples, inputs)
            return ssim_with(images, whole, statistics), mse(images, whole)

    def _fsim(self, examples: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """FSIMc (P,) of masked inputs, which costs more than the others."""
        whole = self._whole[2][examples]
        with _full_precision(whole):
            return fsim_of_features(fsim_features(self._images(examples, inputs)), whole)

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """The unmasked images, and what SSIM and FSIMc compare of them."""
        inputs = self.inputs[self.maskable[0]]
        with _full_precision(inputs):
            images = in_pixels(inputs, self.pixel_space, inputs)
            return images, local_statistics(images), fsim_features(images)

    def _images(self, examples: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        which = self.maskable[0]
        return in_pixels(inputs[which], self.pixel_space, self.inputs[which][examples])


def in_pixels(inputs: Tensor, pixel_space: PixelSpace | None, whole: Tensor) -> Tensor:
    """Images in [0, 1], single precision at least: half has no Fourier transform."""
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    return to_pixels(inputs.to(dtype), pixel_space, whole).clamp(0, 1)


def _sensitivity(maps: Tensor, runner_up_maps: Tensor | None) -> Tensor:
    """Class sensitivity (P,) of maps, which are finite; zero without a runner-up."""
    if runner_up_maps is None:
        return maps.new_zeros(len(maps), dtype=torch.float32)
    with _full_precision(maps):
        return correlation(maps.relu(), runner_up_maps.relu()).float()


def _full_precision(maps: Tensor) -> torch.autocast:
    """Autocast is for the network: it would compute similarities in half precision."""
    return torch.autocast(maps.device.type, enabled=False)


def contributions_of(
    layer_pass: LayerPass, target: Target, scorer: MapScorer | None, how: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    r"""alpha_u A_u, (N, C, \*spatial), for the target, and for the runner-up if it is needed."""
    runner_up = None if scorer is None else scorer.runner_up()
    has_rival, grad_kwargs = runner_up is not None, how["grad_kwargs"]
    contributions = layer_pass.contributions(target, keep_graph=has_rival, **grad_kwargs)
    if runner_up is None:
        return contributions, None
    return contributions, layer_pass.contributions(runner_up, **grad_kwargs).detach()
