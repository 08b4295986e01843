"""A model on masked inputs: which inputs a map can mask, and what replaces the hidden part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from captum._utils.typing import BaselineType
from captum.attr._utils.common import _format_input_baseline, _validate_input
from torch import Tensor

from captum_advise._core.layer_pass import LayerPass, run_model
from captum_advise._core.targets import Target
from captum_advise.metrics.insertion_deletion import blurred
from captum_advise.pixels import PixelSpace, black, masked_images, normalize_maps, upsample_maps

if TYPE_CHECKING:
    from typing_extensions import Self

# Masked examples in one pass: few, so that a CPU keeps their memory, and many to fill a GPU.
_ON_CPU, _ON_GPU = 4, 32


def maskable_inputs(layer_pass: LayerPass) -> tuple[int, ...]:
    """Indices of the inputs that a map of the layer can mask.

    They are real tensors (N, C, ...), or (N, ...) if no input has channels. They have as many
    spatial dimensions as the layer, and at least one value. Where the layer ran several times, the
    run that is explained saw them.
    """
    inputs, n_spatial = layer_pass.call.inputs, layer_pass.feature_maps[0].dim() - 2
    maskable = _maskable(inputs, n_spatial, range(len(inputs)))
    others = layer_pass.call.additional_forward_args or ()
    has_others = any(isinstance(one, Tensor) and one.is_floating_point() for one in others)
    if max(layer_pass.runs) > 1 and (len(maskable) > 1 or has_others):
        return _maskable(inputs, n_spatial, layer_pass.call.inputs_seen())
    return maskable


def _maskable(inputs: tuple[Tensor, ...], n_spatial: int, among: Iterable[int]) -> tuple[int, ...]:
    fitting = [
        index
        for index in among
        if n_spatial in (1, 2, 3)
        and inputs[index].is_floating_point()
        and inputs[index].dim() - n_spatial in (1, 2)
        and inputs[index].numel() > 0
    ]
    # Beside images with channels, what has none is another kind of input.
    return tuple(i for i in fitting if inputs[i].dim() - n_spatial == 2) or tuple(fitting)


def images_of(layer_pass: LayerPass, maskable: tuple[int, ...]) -> Tensor | None:
    """The input that holds images, (N, 1 or 3, H, W); None where there is none, or several."""
    if len(maskable) != 1:
        return None
    inputs = layer_pass.call.inputs[maskable[0]]
    return inputs.detach() if is_image(inputs, layer_pass.feature_maps[0].dim() - 2) else None


def check_maskable(selection: str, layer_pass: LayerPass, maskable: tuple[int, ...]) -> None:
    """Require inputs that the maps can mask, where groups are compared."""
    inputs, layer_shape = layer_pass.call.inputs, tuple(layer_pass.feature_maps[0].shape)
    shapes, n_spatial = [tuple(tensor.shape) for tensor in inputs], len(layer_shape) - 2
    if not maskable and any(
        not tensor.is_floating_point() and is_image(tensor, n_spatial) for tensor in inputs
    ):
        raise ValueError(
            f'unit_selection="{selection}" masks the image, and the inputs {shapes} hold integers: '
            "convert them to floating point, as the model's transform does."
        )
    if not maskable and max(layer_pass.runs) > 1 and layer_pass.call.additional_forward_args:
        raise ValueError(
            f'unit_selection="{selection}" masks the image, and the run of the layer that is '
            "explained sees none of the inputs: pass what it sees as an input, as in "
            "attribute((image, other)), not in additional_forward_args."
        )
    if selection == "avx" and images_of(layer_pass, maskable) is None:
        raise ValueError(
            'unit_selection="avx" compares images: it needs one input N x 1 or 3 x H x W and a '
            f"layer N x C x H x W, got inputs {shapes} and a layer {layer_shape}. For tokens or a "
            'channels-last layer give reshape_transform; otherwise use "average_drop", a relevance '
            "or None."
        )
    if not maskable:
        raise ValueError(
            'unit_selection="average_drop" lays the map on an input, and none of the inputs '
            f"{shapes} has the {n_spatial} spatial dimensions of the layer {layer_shape}. Use a "
            "relevance or None."
        )


def is_image(inputs: Tensor, n_spatial: int) -> bool:
    """Whether inputs are N x 1 or 3 x H x W, as the layer is N x C x H x W."""
    return n_spatial == 2 and inputs.dim() == 4 and inputs.shape[1] in (1, 3)


def as_masks(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    r"""The positive part of maps (N, 1, \*spatial), min-max to [0, 1], enlarged to ``size``."""
    # Interpolation has no kernel for every half-precision type.
    evidence = maps.relu().to(torch.promote_types(maps.dtype, torch.float32))
    return upsample_maps(normalize_maps(evidence), tuple(size))


def resolve_baselines(
    layer_pass: LayerPass,
    maskable: tuple[int, ...],
    baselines: BaselineType,
    pixel_space: PixelSpace | None,
) -> tuple[Tensor, ...]:
    """One baseline per maskable input, in the model's inputs. Default: black images, else zero."""
    inputs, n_spatial = layer_pass.call.inputs, layer_pass.feature_maps[0].dim() - 2
    if baselines is None:
        return tuple(
            black(inputs[index].detach(), pixel_space)
            if is_image(inputs[index], n_spatial)
            else inputs[index].new_zeros(())
            for index in maskable
        )
    try:
        _, formatted = _format_input_baseline(inputs, baselines)
        _validate_input(inputs, formatted)
    except (AssertionError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "baselines must be a number or a tensor like the inputs (one example, or as many), or "
            f"a tuple of them, one per input ({reason})."
        ) from error
    resolved = []
    for index in maskable:
        baseline = torch.as_tensor(formatted[index]).detach().to(inputs[index])
        shape = tuple(inputs[index].shape)
        sizes = zip(reversed(baseline.shape), reversed(shape), strict=False)
        if baseline.dim() > len(shape) or any(own not in (1, size) for own, size in sizes):
            raise ValueError(
                f"baselines of shape {tuple(baseline.shape)} cannot be spread over inputs of shape "
                f"{shape}."
            )
        resolved.append(baseline)
    return tuple(resolved)


@dataclass(frozen=True, kw_only=True)
class MaskedModel:
    """A model and N examples whose inputs are masked."""

    forward_func: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    # Tensors with N rows belong to the examples.
    additional_forward_args: tuple[Any, ...] | None = None
    maskable: tuple[int, ...] = (0,)  # which of the inputs are masked
    baselines: tuple[Tensor, ...]  # for each of these, what replaces the hidden part
    confidence: Callable[[Tensor], Tensor]
    target: Target
    internal_batch_size: int
    outputs: Tensor  # of the unmasked examples

    @classmethod
    def of(cls, layer_pass: LayerPass, *, internal_batch_size: int | None, **fields: Any) -> Self:
        """A model and the examples of a forward pass."""
        call, on_cpu = layer_pass.call, layer_pass.outputs.device.type == "cpu"
        model = cls(
            forward_func=call.forward_func,
            inputs=tuple(tensor.detach() for tensor in call.inputs),
            additional_forward_args=call.additional_forward_args,
            outputs=layer_pass.outputs.detach(),
            internal_batch_size=internal_batch_size or (_ON_CPU if on_cpu else _ON_GPU),
            **fields,
        )
        model._check_arguments()
        return model

    def mask(
        self, examples: Tensor, maps: Tensor, as_mask: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        r"""The inputs of some examples (P,), showing only what their maps mark."""
        n_spatial = maps.dim() - 2
        inputs = [tensor[examples] for tensor in self.inputs]
        for index, baseline in zip(self.maskable, self.baselines, strict=True):
            images = inputs[index]
            masks = as_mask(as_masks(maps, images.shape[-n_spatial:]))
            n_channel_dims = images.dim() - n_spatial - 1
            masks = masks.reshape(len(images), *(1,) * n_channel_dims, *masks.shape[2:])
            if self._is_per_example(baseline):
                baseline = baseline[examples]
            inputs[index] = masked_images(images, masks.to(images), baseline)
        return tuple(inputs)

    def masked_confidences(self, examples: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """Confidences (P, K) of all classes for inputs in place of those of ``examples`` (P,)."""
        outputs = run_model(self.forward_func, inputs, self._arguments(examples))
        self._check_columns(outputs)
        return self.target[examples].class_rows(self.confidence(outputs)).float()

    @torch.no_grad()
    def confidence_occluded(self, hidden: Tensor, is_blurred: Tensor) -> Tensor:
        """Confidence (N, S) in the target with regions of each image hidden.

        ``hidden`` and ``is_blurred`` are those of ``Occlusions``.
        """
        hidden = hidden.to(self.inputs[0].device)
        is_blurred = is_blurred.to(hidden.device)[:, None, None, None]
        confidences, which = [], self.maskable[0]
        for example, image in enumerate(self.inputs[which]):
            baseline, blurred_image = self.baselines[0], blurred(image[None])
            if self._is_per_example(baseline):
                baseline = baseline[example]
            for start in range(0, len(hidden), self.internal_batch_size):
                chunk = slice(start, start + self.internal_batch_size)
                fill = torch.where(is_blurred[chunk], blurred_image, baseline)
                examples = torch.full((len(fill),), example, device=image.device)
                inputs = [tensor[examples] for tensor in self.inputs]
                inputs[which] = masked_images(image, (1 - hidden[chunk]).to(image), fill)
                of_classes = self.masked_confidences(examples, tuple(inputs))
                confidences.append(of_classes[:, self.target.classes[example]])
        return torch.cat(confidences).view(-1, len(hidden))

    def _is_per_example(self, baseline: Tensor) -> bool:
        n_examples = len(self.inputs[0])
        return baseline.dim() > 0 and len(baseline) == n_examples and n_examples > 1

    def _check_arguments(self) -> None:
        """Require that further arguments with a row per example belong to the examples.

        Two prompts for two images have two rows as well, and give N x 2 scores.
        """
        n_examples = len(self.inputs[0])
        has_rows = any(self._has_rows(argument) for argument in self.additional_forward_args or ())
        if not has_rows or self.outputs.dim() < 2 or self.outputs.shape[1] != n_examples:
            return
        first = torch.zeros(1, dtype=torch.int64, device=self.outputs.device)
        inputs = tuple(tensor[first.to(tensor.device)] for tensor in self.inputs)
        with torch.no_grad():
            alone = run_model(self.forward_func, inputs, self._arguments(first))
        self._check_columns(alone)

    def _check_columns(self, outputs: Tensor) -> None:
        if outputs.shape[1:] != self.outputs.shape[1:]:
            raise ValueError(
                f"The model returns {tuple(outputs.shape[1:])} scores per example for some of the "
                f"examples and {tuple(self.outputs.shape[1:])} for all: an argument in "
                "additional_forward_args has as many rows as there are examples, and does not "
                "belong to them. Bind it in a function, as in "
                "lambda images: model(images, prompts)."
            )

    def _has_rows(self, argument: Any) -> bool:
        """Whether an argument is taken to belong to the examples."""
        n_examples = len(self.inputs[0])
        return isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == n_examples

    def _arguments(self, examples: Tensor) -> tuple[Any, ...] | None:
        if self.additional_forward_args is None:
            return None
        return tuple(
            argument[examples] if self._has_rows(argument) else argument
            for argument in self.additional_forward_args
        )
