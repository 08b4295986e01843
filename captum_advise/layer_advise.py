"""ADVISE as a Captum layer attribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _format_output,
)
from captum._utils.typing import BaselineType, TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_advise.class_scores import Target, resolve_target, softmax_over_classes
from captum_advise.explanation import Explanation
from captum_advise.fitted_weights import fitted_weights
from captum_advise.forward_pass import LayerPass, ReshapeTransform, run_layer, run_to_layer
from captum_advise.groups import (
    MEASURED,
    ON_PICTURES,
    Choice,
    Selection,
    checked_selection,
    choose_sets,
    having_scores,
    mean_gradients,
    merits,
    score_sets,
    summarised,
    unit_contributions,
    unit_sets,
)
from captum_advise.map_scoring import MapScorer, is_picture, maskable, masked_baselines
from captum_advise.metrics import Protocol
from captum_advise.pixels import PixelSpace
from captum_advise.relevance import ActivationRange, check_activation_range, unit_relevance

UnitSelection: TypeAlias = (
    Literal["explainability", "confidence", "faithfulness"] | int | Collection[int] | None
)

_INTERNAL_BATCH_SIZE = 8


class LayerAdvise(LayerAttribution, GradientAttribution):
    r"""Computes ADVISE attributions for a chosen layer: Grad-CAM from those units whose
    activation density has a chosen number of modes.

    Each unit of the layer gets a relevance score, the number of modes of an
    adaptive-bandwidth kernel density estimate of its activations. Units with the same
    score form a group, each group gives a map as Grad-CAM does, and for each example
    the map is kept that explains the prediction best: that of highest visual
    explainability (AVX), say.

    With ``unit_selection=None`` this class is ``captum.attr.LayerGradCam``.

    Source: Dehshibi, Ashtari-Majlan, Adhane and Masip, "ADVISE: ADaptive Feature
    Relevance and VISual Explanations for Convolutional Neural Networks",
    https://arxiv.org/abs/2203.01289

    Args:
        forward_func (Callable): The forward function of the model or any
                      modification of it. For the selections ``"explainability"``
                      and ``"confidence"`` it returns class scores N x K (x ...).
        layer (torch.nn.Module): Layer for which attributions are computed.
        device_ids (list[int], optional): Device ID list, necessary only if
                      forward_func applies a DataParallel model.
                      Default: None
        pixel_space (PixelSpace, optional): How the model's inputs relate to
                      pictures in [0, 1]. None: each example is a picture up to one
                      affine map, its own minimum is black and its maximum is white.
                      Default: None
        confidence (Callable, optional): Turns what forward_func returns into
                      probabilities of the same shape. Pass ``torch.sigmoid`` for
                      independent or single logits, ``torch.nn.Identity()`` for a model
                      that returns probabilities.
                      Default: softmax over dimension 1
        reshape_transform (Callable, optional): Rearranges the layer's tensor as
                      (N, C, \*spatial), for layers that have it in another layout:
                      :func:`captum_advise.layouts.channels_last` (Swin, N x H x W x C) and
                      :class:`captum_advise.layouts.Tokens` (ViT, N x tokens x C), or your
                      own, with permute, reshape and slices. Gradients are rearranged in
                      the same way.
                      Default: None

    One forward pass runs at a time, whichever thread asks, because a hook on a layer sees every
    call of it. Do not call the model from other threads meanwhile, but through LayerAdvise.

    Examples::

        >>> # ImageClassifier takes a single input tensor of images Nx3x32x32,
        >>> # and returns an Nx10 tensor of class scores.
        >>> # It contains a layer conv4, whose output is Nx50x8x8.
        >>> net = ImageClassifier()
        >>> advise = LayerAdvise(net, net.conv4, pixel_space=PixelSpace.imagenet())
        >>> attributions = advise.attribute(images, target=3)  # Nx1x8x8
        >>> heatmap = LayerAttribution.interpolate(attributions, (32, 32), "bicubic")
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module,
        device_ids: list[int] | None = None,
        *,
        pixel_space: PixelSpace | None = None,
        confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        _check_parts(forward_func, layer, pixel_space, confidence, reshape_transform)
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.pixel_space = pixel_space
        self.confidence = confidence
        self.reshape_transform = reshape_transform

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        unit_selection: UnitSelection = "explainability",
        n_bandwidths: int = 10,
        activation_range: ActivationRange = "unit",
        tolerance: float = 0.0,
        baselines: BaselineType = None,
        protocol: Protocol = Protocol(),  # noqa: B008 - frozen
        internal_batch_size: int = _INTERNAL_BATCH_SIZE,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Args:
            inputs (Tensor or tuple[Tensor, ...]): As in ``LayerGradCam.attribute``:
                        dimension 0 of each tensor corresponds to the number of
                        examples.
            target (int, tuple, Tensor, or list, optional): As in
                        ``LayerGradCam.attribute``. None on a classifier (outputs
                        N x K) means each example's predicted class.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, after the inputs. Tensors with as many
                        entries in dimension 0 as there are examples are taken to
                        belong to the examples.
                        Default: None
            attribute_to_layer_input (bool, optional): Attribute to the layer's input
                        instead of its output.
                        Default: False
            relu_attributions (bool, optional): Apply a ReLU to the attributions, as
                        the Grad-CAM and ADVISE papers do. Scores are always those of
                        the map under ReLU.
                        Default: False
            attr_dim_summation (bool, optional): Sum over the units (dimension 1).
                        Default: True
            grad_kwargs (Dict[str, Any], optional): Additional keyword arguments for
                        torch.autograd.grad.
                        Default: None
            unit_selection (optional): Which units make the map.

                        - ``"explainability"``: per example, the group with the
                          highest AVX (the lowest score on ties). Needs pictures
                          N x 1 or 3 x H x W.
                        - ``"confidence"``: per example, the group with the smallest
                          average drop. Takes inputs of any shape that the map can
                          be laid on: those with as many spatial dimensions as the
                          layer; other inputs are passed on as they are.
                        - ``"faithfulness"``: per example, every unit with a weight that
                          it shares with the units of the same score and the same sign of
                          the mean gradient, fitted so that the map's mass foretells the
                          confidence lost where parts of the picture are hidden. Of these
                          weightings, and all units as they are (Grad-CAM), the one with
                          the highest insertion less deletion (8 steps) among those that
                          are worse than Grad-CAM in none of AVX, insertion and deletion.
                          Needs pictures, and some 200 forward passes.
                          What it is worth: docs/choosing-units.md.
                        - an int or a collection of ints: the units with these
                          relevance scores; zero where an example has none.
                        - None: every unit. The result is that of ``LayerGradCam``.

                        Default: "explainability"
            n_bandwidths (int, optional): Candidate bandwidths of the density
                        estimate, at least 2.
                        Default: 10
            activation_range (str, optional): ``"unit"`` estimates a unit's density
                        from those activations that lie in [0, 1]; ``"minmax"`` maps
                        each unit's activations onto [0, 1] first, so that rescaling
                        a unit does not change its score.
                        Default: "unit"
            tolerance (float, optional): How far the density estimate may stray for
                        speed. 0 is exact; 0.1 is faster and changes the score of
                        hardly any unit (README, Performance).
                        Default: 0
            baselines (scalar, Tensor, tuple of scalar, or Tensor, optional): What
                        replaces the parts of the inputs that a map leaves out while
                        it is scored, in the model's inputs, as elsewhere in Captum.
                        Default: black for pictures, zero for other inputs
            protocol (Protocol, optional): Reading of the protocol by which groups are
                        scored; ``Protocol.reference()`` is the authors' program's.
                        Default: Protocol()
            internal_batch_size (int, optional): How many masked examples go through
                        the model at once while groups are scored. Bounds memory.
                        Default: 8

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        N x 1 x \*spatial for a layer N x C x \*spatial; a tuple if the
                        layer has several tensors (then ``unit_selection`` is None or
                        relevance scores, which apply to each tensor by itself).

        Raises:
            TypeError, ValueError: An argument is of the wrong type or out of its range,
                        the target does not name one output per example, the inputs
                        do not suit the selection, or activations, gradients or
                        confidences are not finite. The message says what to do. Errors
                        of forward_func itself are left as they are.

        Warns:
            UserWarning: An example has no group whose map holds any evidence; all its
                        units are kept. Or batch norm or dropout is in training mode.

        Examples::

            >>> advise = LayerAdvise(net, net.conv4)
            >>> best = advise.attribute(images)
            >>> unimodal = advise.attribute(images, target=3, unit_selection=1)
            >>> grad_cam = advise.attribute(images, target=3, unit_selection=None)
        """
        request = _Request(
            inputs=_as_tuple(inputs),
            target=target,
            additional_forward_args=_format_additional_forward_args(additional_forward_args),
            to_layer_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            selection=checked_selection(unit_selection),
            n_bandwidths=n_bandwidths,
            activation_range=activation_range,
            tolerance=tolerance,
            baselines=baselines,
            protocol=protocol,
            internal_batch_size=internal_batch_size,
        )
        _warn_of_training_mode(self.forward_func)
        if request.selection in MEASURED:
            choice = self._choose(request, similarity=request.selection in ON_PICTURES)
            return summarised(
                choice.contributions, choice.weights, attr_dim_summation, relu_attributions
            )

        run = self._run(request)
        contributions = unit_contributions(
            run, run.gradients(_gradient_target(run, target), **request.gradient_options)
        )
        attributions = tuple(
            summarised(
                contribution,
                request.fixed_units(feature_map),
                attr_dim_summation,
                relu_attributions,
            )
            for contribution, feature_map in zip(contributions, run.feature_maps, strict=True)
        )
        return cast(
            "Tensor | tuple[Tensor, ...]", _format_output(len(attributions) > 1, attributions)
        )

    def explain(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        unit_selection: UnitSelection = "explainability",
        n_bandwidths: int = 10,
        activation_range: ActivationRange = "unit",
        tolerance: float = 0.0,
        baselines: BaselineType = None,
        protocol: Protocol = Protocol(),  # noqa: B008 - frozen
        internal_batch_size: int = _INTERNAL_BATCH_SIZE,
    ) -> Explanation:
        r"""Attributions, and everything behind them.

        Args:
            inputs, target, ...: As in :meth:`attribute`. The layer has one tensor.

        Returns:
            Explanation: ``candidates`` are the groups among which ``"explainability"`` or
            ``"confidence"`` chose, or the one set of units that was asked for. Each is
            scored by the protocol where the inputs are pictures, by its confidences
            alone where they are not, and not at all for selections None or int when the
            outputs are no class scores or no input can be masked.

        Examples::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> explanation.selected.shape, explanation.scores.avx.shape
            (torch.Size([2]), torch.Size([2]))
        """
        request = _Request(
            inputs=_as_tuple(inputs),
            target=target,
            additional_forward_args=_format_additional_forward_args(additional_forward_args),
            to_layer_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
            selection=checked_selection(unit_selection),
            n_bandwidths=n_bandwidths,
            activation_range=activation_range,
            tolerance=tolerance,
            baselines=baselines,
            protocol=protocol,
            internal_batch_size=internal_batch_size,
        )
        _warn_of_training_mode(self.forward_func, stacklevel=3)
        choice = self._choose(request, similarity=True)
        attributions = summarised(
            choice.contributions, choice.weights, attr_dim_summation, relu_attributions
        )
        return choice.explanation(attributions.detach())

    @torch.no_grad()
    def unit_relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        n_bandwidths: int = 10,
        activation_range: ActivationRange = "unit",
        tolerance: float = 0.0,
    ) -> Tensor | tuple[Tensor, ...]:
        """Relevance score of each unit: the modes of its activation density. Needs no gradient
        and no target.

        Args:
            inputs, additional_forward_args, ...: As in :meth:`attribute`.

        Returns:
            int64 *Tensor* N x C, or a tuple if the layer has several tensors.

        Examples::

            >>> scores = LayerAdvise(net, net.conv4).unit_relevance(images)  # Nx50
        """
        _warn_of_training_mode(self.forward_func)
        feature_maps = run_to_layer(
            self.forward_func,
            self.layer,
            _as_tuple(inputs),
            _format_additional_forward_args(additional_forward_args),
            self.device_ids,
            attribute_to_layer_input,
            self.reshape_transform,
        )
        scores = tuple(
            unit_relevance(
                feature_map,
                n_bandwidths=n_bandwidths,
                activation_range=activation_range,
                tolerance=tolerance,
            )
            for feature_map in feature_maps
        )
        return cast("Tensor | tuple[Tensor, ...]", _format_output(len(scores) > 1, scores))

    def _run(self, request: _Request) -> LayerPass:
        return run_layer(
            self.forward_func,
            self.layer,
            request.inputs,
            request.additional_forward_args,
            self.device_ids,
            request.to_layer_input,
            self.reshape_transform,
        )

    def _choose(self, request: _Request, *, similarity: bool) -> Choice:
        """Forward pass, relevance, candidates, scores, choice: the method in order."""
        run = self._run(request)
        _check_examples(run, request.inputs)
        target = resolve_target(run.outputs, request.target)
        scorer = self._scorer(request, run, target, similarity)
        runner_up = scorer.runner_up() if scorer is not None and scorer.similarity else None
        gradients = run.gradients(
            target.captum, keep_graph=runner_up is not None, **request.gradient_options
        )
        (contributions,) = unit_contributions(run, gradients)
        other_contributions = None
        if runner_up is not None:
            other_gradients = run.gradients(runner_up.captum, **request.gradient_options)
            other_contributions = unit_contributions(run, other_gradients)[0].detach()

        evidence = contributions.detach()
        _check_finite(evidence)
        if scorer is not None:
            _check_probabilities(scorer.confidences)
        relevance = request.relevance(run.feature_maps[0])
        fitted = None
        if scorer is not None and request.selection == "faithfulness":
            helpful = mean_gradients(gradients)[0].flatten(1) > 0
            fitted = fitted_weights(scorer, relevance, evidence, helpful)
        sets = unit_sets(relevance, evidence, request.selection, fitted)
        if sets.fallback.any():
            warnings.warn(
                f"{int(sets.fallback.sum())} of {len(relevance)} examples have no group of units "
                "whose map holds any evidence for the target; all their units are kept, as in "
                "Grad-CAM.",
                stacklevel=4,
            )
        scores, merit = None, None
        if scorer is not None:
            scores = score_sets(scorer, sets, evidence, other_contributions)
            merit = merits(scorer, sets, evidence, scores, request.selection)
        return Choice(
            contributions=contributions,
            sets=sets,
            scores=scores,
            best=choose_sets(sets, merit),
            relevance=relevance,
            target=target.public(),
            confidence=None if scorer is None else scorer.confidence_in_target(),
        )

    def _scorer(
        self, request: _Request, run: LayerPass, target: Target, similarity: bool
    ) -> MapScorer | None:
        """What scores maps; None where that can't be done and the selection does not need it."""
        inputs, selection = request.inputs, request.selection
        layer_shape = tuple(run.feature_maps[0].shape)
        n_spatial = len(layer_shape) - 2
        masked = maskable(inputs, n_spatial)
        is_one_picture = len(masked) == 1 and is_picture(inputs[masked[0]], n_spatial)
        shapes = [tuple(tensor.shape) for tensor in inputs]
        if selection in ON_PICTURES and not is_one_picture:
            raise ValueError(
                f'unit_selection="{selection}" compares pictures: it needs one input '
                f"N x 1 or 3 x H x W and a layer N x C x H x W, got inputs {shapes} and a layer "
                f'{layer_shape}. Use "confidence", relevance scores or None.'
            )
        if selection == "confidence" and not masked:
            raise ValueError(
                'unit_selection="confidence" lays the map on an input, and none of the inputs '
                f"{shapes} has the {n_spatial} spatial dimensions of the layer {layer_shape}. "
                "Use relevance scores or None."
            )
        outputs = run.outputs.detach()
        if selection not in MEASURED:
            is_single = outputs.dim() < 2 or outputs.shape[1] < 2
            if not masked or (is_single and self.confidence is softmax_over_classes):
                return None
        confidences = self.confidence(outputs)
        if not isinstance(confidences, Tensor) or confidences.shape != outputs.shape:
            got = getattr(confidences, "shape", type(confidences).__name__)
            raise ValueError(
                "confidence must return probabilities of the outputs' shape, "
                f"{tuple(outputs.shape)}, got {got}."
            )
        return MapScorer(
            forward_func=self.forward_func,
            inputs=tuple(tensor.detach() for tensor in inputs),
            additional_forward_args=request.additional_forward_args,
            masked=masked,
            baselines=masked_baselines(
                inputs, masked, request.baselines, self.pixel_space, n_spatial
            ),
            pixel_space=self.pixel_space,
            confidence=self.confidence,
            confidences=target.class_rows(confidences).float(),
            target=target,
            protocol=request.protocol,
            similarity=similarity and is_one_picture,
            internal_batch_size=request.internal_batch_size,
        )


@dataclass(frozen=True)
class _Request:
    """The arguments of one call, in canonical form."""

    inputs: tuple[Tensor, ...]
    target: TargetType
    additional_forward_args: tuple[Any, ...] | None
    to_layer_input: bool
    grad_kwargs: dict[str, Any] | None
    selection: Selection
    n_bandwidths: int
    activation_range: ActivationRange
    tolerance: float
    baselines: BaselineType
    protocol: Protocol
    internal_batch_size: int

    def __post_init__(self) -> None:
        if any(tensor.dim() == 0 or len(tensor) == 0 for tensor in self.inputs):
            raise ValueError(
                "The inputs hold no example: dimension 0 of each is the batch, and it is empty or "
                "missing."
            )
        if any(tensor.is_meta for tensor in self.inputs):
            raise ValueError("The inputs are on the meta device, which holds no values.")
        _check_density_options(self.n_bandwidths, self.activation_range, self.tolerance)
        _check_count("internal_batch_size", self.internal_batch_size, at_least=1)
        if not isinstance(self.protocol, Protocol):
            raise TypeError(
                f"protocol must be a captum_advise.Protocol, got {type(self.protocol).__name__}."
            )
        if self.grad_kwargs is not None and not isinstance(self.grad_kwargs, dict):
            raise TypeError(
                "grad_kwargs must be a dict of arguments for torch.autograd.grad, got "
                f"{type(self.grad_kwargs).__name__}."
            )

    @property
    def gradient_options(self) -> dict[str, Any]:
        return self.grad_kwargs or {}

    def relevance(self, feature_map: Tensor) -> Tensor:
        return unit_relevance(
            feature_map,
            n_bandwidths=self.n_bandwidths,
            activation_range=self.activation_range,
            tolerance=self.tolerance,
        )

    def fixed_units(self, feature_map: Tensor) -> Tensor | None:
        """Units (N, C) of a selection that needs no scores; None for all of them."""
        if not isinstance(self.selection, frozenset):
            return None
        return having_scores(self.relevance(feature_map), self.selection)


def _gradient_target(run: LayerPass, target: TargetType) -> TargetType:
    """Captum's target, with None on a classifier replaced by the predicted classes."""
    if target is None and run.outputs.dim() == 2:
        return resolve_target(run.outputs, None).captum
    return target.to(run.outputs.device) if isinstance(target, Tensor) else target


def _as_tuple(inputs: object) -> tuple[Tensor, ...]:
    found = inputs if isinstance(inputs, tuple) else (inputs,)
    if not found or not all(isinstance(tensor, Tensor) for tensor in found):
        kinds = ", ".join(type(tensor).__name__ for tensor in found)
        raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {kinds or 'nothing'}.")
    return cast("tuple[Tensor, ...]", found)


def _check_parts(
    forward_func: object,
    layer: object,
    pixel_space: object,
    confidence: object,
    reshape_transform: object,
) -> None:
    if not callable(forward_func):
        raise TypeError(
            f"forward_func must be the model or a function, got {type(forward_func).__name__}."
        )
    if not isinstance(layer, Module):
        raise TypeError(
            "layer must be a module of the model, as in model.layer4 or "
            f'model.get_submodule("layer4"), got {type(layer).__name__}.'
        )
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            "The layer is a scripted or traced module, which calls no hooks: explain the model "
            "before torch.jit.script or torch.jit.trace."
        )
    if pixel_space is not None and not isinstance(pixel_space, PixelSpace):
        raise TypeError(
            f"pixel_space must be a captum_advise.PixelSpace or None, got "
            f"{type(pixel_space).__name__}."
        )
    for name, function in (("confidence", confidence), ("reshape_transform", reshape_transform)):
        if not callable(function) and not (name == "reshape_transform" and function is None):
            raise TypeError(f"{name} must be a function of a tensor, got {function!r}.")


def _check_density_options(
    n_bandwidths: object, activation_range: object, tolerance: object
) -> None:
    _check_count("n_bandwidths", n_bandwidths, at_least=2)
    check_activation_range(activation_range)
    if not isinstance(tolerance, int | float):
        raise TypeError(f"tolerance must be a number, got {type(tolerance).__name__}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and less than 1, got {tolerance}.")


def _check_count(name: str, value: object, *, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}.")


def _check_examples(run: LayerPass, inputs: tuple[Tensor, ...]) -> None:
    """What a choice among groups needs: one layer tensor, as many rows everywhere."""
    if len(run.feature_maps) != 1:
        raise ValueError(
            f"The layer has {len(run.feature_maps)} tensors, and a choice among groups of "
            "units needs a layer with one: use relevance scores or None as unit_selection."
        )
    rows = {
        "inputs": sorted({len(tensor) for tensor in inputs}),
        "layer": [len(run.feature_maps[0])],
        "outputs": [len(run.outputs)],
    }
    if len({tuple(found) for found in rows.values()}) > 1 or len(rows["inputs"]) > 1:
        counts = ", ".join(f"{name} {'/'.join(map(str, found))}" for name, found in rows.items())
        raise ValueError(
            f"Inputs, layer and outputs must have one row per example, and have: {counts}. Wrap "
            "forward_func, or give reshape_transform, so that dimension 0 is the examples."
        )


def _check_finite(contributions: Tensor) -> None:
    """Every map that units can make is finite; names the examples of which it is not."""
    total = (
        contributions.abs().flatten(2).sum((1, 2))
        if contributions.dim() > 2
        else (contributions.abs().sum(1))
    )
    finite = total.isfinite()
    if not bool(finite.all()):
        examples = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"Activations or gradients of the layer are NaN, infinite or overflow for examples "
            f"{_few(examples)}: leave them out, or run the model in float32 or float64, and check "
            "its inputs and weights."
        )


def _few(examples: list[int]) -> str:
    shown = ", ".join(map(str, examples[:5]))
    return f"{shown}, ... ({len(examples)} in all)" if len(examples) > 5 else shown


def _check_probabilities(confidences: Tensor) -> None:
    # Rounding in half precision may leave the interval.
    if not bool(((confidences >= -1e-2) & (confidences <= 1 + 1e-2)).all()):
        raise ValueError(
            "confidence must return probabilities, and some are NaN or outside [0, 1]: pass the "
            "function that turns the model's outputs into probabilities (softmax over dimension 1 "
            "by default, torch.sigmoid for independent logits), and check that the outputs are "
            "finite."
        )


def _warn_of_training_mode(forward_func: object, *, stacklevel: int = 4) -> None:
    if isinstance(forward_func, Module) and any(
        module.training
        and (isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0))
        for module in forward_func.modules()
    ):
        warnings.warn(
            "The model is in training mode: batch norm and dropout make the explanation random, "
            "and batch norm changes its statistics. Call model.eval() first.",
            stacklevel=stacklevel,
        )
