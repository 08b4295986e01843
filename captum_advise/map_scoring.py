"""The protocol applied to maps: mask the inputs, run the network, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from captum._utils.typing import BaselineType
from captum.attr._utils.common import _format_input_baseline, _validate_input
from torch import Tensor

from captum_advise.class_scores import Target
from captum_advise.forward_pass import run_model
from captum_advise.metrics import (
    Protocol,
    VisualExplainability,
    average_drop,
    blurred,
    class_sensitivity,
    deletion_auc,
    hit,
    increase_in_confidence,
    insertion_auc,
    target_confidence,
    visual_explainability,
)
from captum_advise.pixels import (
    PixelSpace,
    explanation_pictures,
    normalize_maps,
    stretch,
    upsample_maps,
)

# Of insertion and deletion, where a choice goes by them.
STEPS = 8


def maskable(inputs: tuple[Tensor, ...], n_spatial: int) -> tuple[int, ...]:
    """Which inputs a map with so many spatial dimensions can mask.

    Those of real numbers with as many spatial dimensions, behind the batch and at most one
    channel dimension.
    """
    if n_spatial not in (1, 2, 3):
        return ()
    return tuple(
        place
        for place, tensor in enumerate(inputs)
        if tensor.is_floating_point() and tensor.dim() - n_spatial in (1, 2)
    )


def is_picture(tensor: Tensor, n_spatial: int) -> bool:
    """Whether an input is (N, 1 or 3, H, W) and maps have two spatial dimensions."""
    return n_spatial == 2 and tensor.dim() == 4 and tensor.shape[1] in (1, 3)


def masked_baselines(
    inputs: tuple[Tensor, ...],
    masked: tuple[int, ...],
    baselines: BaselineType,
    pixel_space: PixelSpace | None,
    n_spatial: int,
) -> tuple[Tensor, ...]:
    """One baseline per masked input, in the model's inputs; by default what shows nothing."""
    if baselines is None:
        return tuple(_empty(inputs[place].detach(), pixel_space, n_spatial) for place in masked)
    try:
        _, given = _format_input_baseline(inputs, baselines)
        _validate_input(inputs, given)
    except (AssertionError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "baselines must be a number or a tensor like the inputs (one example, or as many), or "
            f"a tuple of them, one per input ({reason})."
        ) from error
    found = tuple(torch.as_tensor(given[place]).detach().to(inputs[place]) for place in masked)
    for place, baseline in zip(masked, found, strict=True):
        shape = tuple(inputs[place].shape)
        sizes = zip(reversed(baseline.shape), reversed(shape), strict=False)
        if baseline.dim() > len(shape) or any(own not in (1, size) for own, size in sizes):
            raise ValueError(
                f"baselines of shape {tuple(baseline.shape)} cannot be spread over inputs of shape "
                f"{shape}."
            )
    return found


def _empty(inputs: Tensor, pixel_space: PixelSpace | None, n_spatial: int) -> Tensor:
    if not is_picture(inputs, n_spatial):
        return inputs.new_zeros(())
    if pixel_space is None:
        return stretch(inputs)[0]
    return pixel_space.from_pixels(inputs.new_zeros(1, inputs.shape[1], 1, 1))


@dataclass(frozen=True)
class MapScorer:
    """Scores maps of given examples.

    ``masked`` tells which of ``inputs`` are masked, with one entry of ``baselines`` for each, in
    the model's inputs. With ``similarity`` the one masked input is a picture, and
    the whole protocol is run; otherwise its confidences only.
    """

    forward_func: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    additional_forward_args: tuple[Any, ...] | None
    masked: tuple[int, ...]
    baselines: tuple[Tensor, ...]
    pixel_space: PixelSpace | None
    confidence: Callable[[Tensor], Tensor]
    confidences: Tensor
    target: Target
    protocol: Protocol
    similarity: bool
    internal_batch_size: int

    def __call__(
        self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None
    ) -> VisualExplainability:
        """Scores of maps (P, 1, *spatial), each for the example (P,) that it belongs to."""
        parts = []
        for start in range(0, len(examples), self.internal_batch_size):
            chunk = slice(start, start + self.internal_batch_size)
            runner_up = None if runner_up_maps is None else runner_up_maps[chunk]
            parts.append(self._score(examples[chunk], maps[chunk], runner_up))
        return VisualExplainability.concatenate(parts)

    def insertion(self, examples: Tensor, maps: Tensor) -> Tensor:
        """Insertion (P,) in :data:`STEPS` steps, of maps (P, 1, H, W) on examples (P,)."""
        return self._areas(examples, maps, lambda _: insertion_auc)

    def deletion(self, examples: Tensor, maps: Tensor) -> Tensor:
        """Deletion to the baseline, likewise."""
        return self._areas(
            examples,
            maps,
            lambda example: partial(deletion_auc, baselines=self._baseline_of(example)),
        )

    def _areas(
        self, examples: Tensor, maps: Tensor, area_on: Callable[[int], Callable[..., Tensor]]
    ) -> Tensor:
        areas = maps.new_zeros(len(maps), dtype=torch.float32)
        for example in sorted(set(examples.tolist())):
            here = examples == example
            picture = self._picture_of(example)
            found = area_on(example)(
                partial(self._confidences_of, example),
                picture,
                _masks(maps[here], picture.shape[-2:]).transpose(0, 1),
                self.target.classes[example][None],
                steps=STEPS,
                confidence=torch.nn.Identity(),
                internal_batch_size=self.internal_batch_size,
            )
            areas[here] = found.flatten()
        return areas

    @torch.no_grad()
    def confidence_without(self, hidden: Tensor) -> Tensor:
        """Confidence (N, S) in the target without cells (S, h, w) of each example's picture.

        The cells are blurred in every other set, from the first on; in the others they become the
        baseline.
        """
        hidden = hidden.to(self.inputs[0].device)
        is_blurred = torch.arange(len(hidden), device=hidden.device)[:, None, None, None] % 2 == 0
        confidences = []
        for example in range(len(self.inputs[0])):
            picture, baseline = self._picture_of(example), self._baseline_of(example)
            without_detail = blurred(picture)
            for start in range(0, len(hidden), self.internal_batch_size):
                some = slice(start, start + self.internal_batch_size)
                cells = hidden[some, None].float()
                pixels = F.interpolate(cells, picture.shape[-2:], mode="nearest") > 0
                filling = torch.where(is_blurred[some], without_detail, baseline)
                shown = torch.where(pixels, filling, picture)
                found = self._confidences_of(example, shown)
                confidences.append(found[:, self.target.classes[example]])
        return torch.cat(confidences).view(-1, len(hidden))

    def _picture_of(self, example: int) -> Tensor:
        return self.inputs[self.masked[0]][example][None]

    def _baseline_of(self, example: int) -> Tensor:
        (baseline,) = self.baselines
        per_example = _per_example(baseline, len(self.inputs[self.masked[0]]))
        return baseline[example][None] if per_example else baseline

    def _confidences_of(self, example: int, pictures: Tensor) -> Tensor:
        """Confidences (M, K) for pictures (M, C, H, W) in the place of one example's."""
        examples = torch.full((len(pictures),), example, device=pictures.device)
        inputs = [tensor[examples] for tensor in self.inputs]
        inputs[self.masked[0]] = pictures
        outputs = run_model(self.forward_func, tuple(inputs), self._arguments(examples))
        return self.target[examples].class_rows(self.confidence(outputs)).float()

    def runner_up(self) -> Target | None:
        """The class of highest confidence beside the target; None where there is no other."""
        if self.confidences.shape[1] < 2:
            return None
        others = self.confidences.scatter(1, self.target.classes[:, None], -torch.inf)
        return self.target.with_classes(others.argmax(1))

    def confidence_in_target(self) -> Tensor:
        """(N,) confidence in the target for the whole inputs."""
        return target_confidence(self.confidences, self.target.classes)

    @torch.no_grad()
    def _score(
        self, examples: Tensor, maps: Tensor, runner_up_maps: Tensor | None
    ) -> VisualExplainability:
        n_spatial = maps.dim() - 2
        inputs = [tensor[examples] for tensor in self.inputs]
        for place, baseline in zip(self.masked, self.baselines, strict=True):
            whole = inputs[place]
            masks = self.protocol.masks(_masks(maps, whole.shape[-n_spatial:]))
            masks = masks.reshape(
                len(whole), *(1,) * (whole.dim() - n_spatial - 1), *masks.shape[2:]
            )
            fill = (
                baseline[examples] if _per_example(baseline, len(self.inputs[place])) else baseline
            )
            inputs[place] = explanation_pictures(whole, masks.to(whole), fill)
        outputs = run_model(self.forward_func, tuple(inputs), self._arguments(examples))
        explained = self.target[examples].class_rows(self.confidence(outputs)).float()
        # Autocast is for the network: it would compute similarities in half precision.
        with torch.autocast(maps.device.type, enabled=False):
            return self._compare(examples, tuple(inputs), explained, maps, runner_up_maps)

    def _compare(
        self,
        examples: Tensor,
        inputs: tuple[Tensor, ...],
        explained: Tensor,
        maps: Tensor,
        runner_up_maps: Tensor | None,
    ) -> VisualExplainability:
        """Scores of explanation inputs, of which the network has said what it thinks."""
        confidences = self.confidences[examples]
        classes = self.target[examples].classes
        sensitivity = self._sensitivity(maps, runner_up_maps)
        if self.similarity:
            place = self.masked[0]
            return visual_explainability(
                self._pixels(self.inputs[place][examples], examples),
                self._pixels(inputs[place], examples),
                confidences,
                explained,
                classes,
                sensitivity,
                self.protocol,
            )
        before = target_confidence(confidences, classes)
        after = self.protocol.explained_confidence(explained, classes)
        absent = torch.full_like(before, torch.nan)
        return VisualExplainability(
            avx=absent,
            average_drop=average_drop(before, after),
            ssim=absent,
            fsim=absent,
            mse=absent,
            class_sensitivity=sensitivity,
            hit=hit(explained, classes),
            increase_in_confidence=increase_in_confidence(before, after),
        )

    def _sensitivity(self, maps: Tensor, runner_up_maps: Tensor | None) -> Tensor:
        if runner_up_maps is None:
            return maps.new_zeros(len(maps), dtype=torch.float32)
        return class_sensitivity(maps.relu(), runner_up_maps.relu()).float()

    def _pixels(self, inputs: Tensor, examples: Tensor) -> Tensor:
        """Pictures in [0, 1], single precision at least: half has no Fourier transform."""
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        if self.pixel_space is not None:
            return self.pixel_space.to_pixels(inputs).clamp(0, 1)
        lowest, highest = (end[examples] for end in stretch(self.inputs[self.masked[0]].to(inputs)))
        span = highest - lowest
        return ((inputs - lowest) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)

    def _arguments(self, examples: Tensor) -> tuple[Any, ...] | None:
        if self.additional_forward_args is None:
            return None
        n_examples = len(self.inputs[0])
        return tuple(
            argument[examples]
            if isinstance(argument, Tensor) and argument.dim() and len(argument) == n_examples
            else argument
            for argument in self.additional_forward_args
        )


def _masks(maps: Tensor, size: torch.Size) -> Tensor:
    # Interpolation has no kernel for every half-precision type.
    evidence = maps.relu().to(torch.promote_types(maps.dtype, torch.float32))
    return upsample_maps(normalize_maps(evidence), tuple(size))


def _per_example(baseline: Tensor, n_examples: int) -> bool:
    return baseline.dim() > 0 and len(baseline) == n_examples and n_examples > 1
