"""ADVISE as a Captum layer attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from captum._utils.common import _format_output
from captum._utils.typing import BaselineType, TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_advise._core import arguments
from captum_advise._core.grad_cam import combine_units, unit_contributions
from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.masked_model import (
    check_maskable,
    images_of,
    maskable_inputs,
    resolve_baselines,
)
from captum_advise._core.scoring import MapScorer, contributions_of, in_pixels
from captum_advise._core.setting_warnings import (
    choice_messages,
    missing_relevance,
    pass_messages,
    several_runs,
    suspicious_layout,
    warn_of,
)
from captum_advise._core.setup import LayerSetup
from captum_advise._core.targets import Target, resolve_target
from captum_advise._core.unit_choice import Selection, UnitSelection, candidates_of, has_relevance
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.explanation import (
    GRAD_CAM,
    LAYER_ADVISE,
    Explanation,
    Units,
    candidates_of_examples,
)
from captum_advise.layouts import ReshapeTransform
from captum_advise.metrics import AVXProtocol
from captum_advise.pixels import PixelSpace
from captum_advise.relevance import (
    ActivationRange,
    DensityOptions,
    counted_ranges,
    modes_of,
    relevance_of,
    unit_densities,
)

__all__ = ["LayerAdvise", "UnitSelection"]


class LayerAdvise(LayerSetup, LayerAttribution, GradientAttribution):
    r"""Computes ADVISE attributions for a chosen layer: Grad-CAM from the units whose
    activation density has a chosen number of modes.

    Each unit of the layer gets a relevance: the number of modes of an adaptive-bandwidth
    kernel density estimate of its activations. Units with the same relevance form a
    group, and each group gives a map as Grad-CAM does. For each example, the group is
    selected whose map explains the prediction best. By default this is the group with
    the highest visual explainability (AVX).

    Source: Dehshibi, Ashtari-Majlan, Adhane and Masip, "ADVISE: ADaptive Feature
    Relevance and VISual Explanations for Convolutional Neural Networks",
    https://arxiv.org/abs/2203.01289

    Args:
        forward_func, layer, device_ids: As in ``captum.attr.LayerGradCam``. For
                      ``unit_selection="avx"`` and ``"average_drop"``, forward_func returns
                      class scores N x K (x ...).
        pixel_space (PixelSpace, optional): How the model's inputs relate to images
                      in [0, 1]. None: the minimum of each example is black and its
                      maximum is white.
        confidence (Callable, optional): Turns what forward_func returns into
                      probabilities of the same shape. Pass ``torch.sigmoid`` for
                      independent or single logits, and ``torch.nn.Identity()`` for a
                      model that returns probabilities.
                      Default: that of forward_func if it is a wrapper of
                      :mod:`captum_advise.targets`, else softmax over dimension 1
        reshape_transform (Callable, optional): Rearranges the layer's tensor, and its
                      gradients, as (N, C, \*spatial), for layers that have another layout.
                      N x H x W x C (Swin): :func:`captum_advise.layouts.channels_last`.
                      N x tokens x C (ViT): :class:`captum_advise.layouts.Tokens`.
                      A function of your own may permute, reshape and slice.
        activation_range, min_prominence (optional): How modes are counted, as in
                      :func:`captum_advise.unit_relevance`.
        protocol (AVXProtocol, optional): Reading of the paper's protocol;
                      ``AVXProtocol.reference()`` is that of the authors' program.
        layer_run (int, optional): Which run of the layer to explain, where it runs
                      several times in a forward pass: 0 is the first, -1 the last.
                      Default: the last, with a warning

    Raises:
        TypeError, ValueError: An argument is of the wrong type or out of its range.

    A hook on a layer sees every call of it, so LayerAdvise runs one forward pass at a
    time, in all threads together. Do not call the model from other threads meanwhile,
    except through LayerAdvise.

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
        confidence: Callable[[Tensor], Tensor] | None = None,
        reshape_transform: ReshapeTransform | None = None,
        activation_range: ActivationRange = (0.0, 1.0),
        min_prominence: float = 1e-6,
        protocol: AVXProtocol = AVXProtocol(),  # noqa: B008 - frozen
        layer_run: int | None = None,
    ) -> None:
        arguments.check_layer("layer", layer)
        arguments.check_reshape_transform(reshape_transform)
        arguments.check_protocol(protocol)
        self._set_up(
            forward_func, (layer,), (reshape_transform,), pixel_space, confidence, layer_run
        )
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.reshape_transform = reshape_transform
        self.density = DensityOptions(activation_range, min_prominence)
        self.protocol = protocol

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
        unit_selection: UnitSelection = "avx",
        baselines: BaselineType = None,
        internal_batch_size: int | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""Computes the Grad-CAM map of the units that ``unit_selection`` selects.

        Args:
            inputs, target, additional_forward_args, attribute_to_layer_input, grad_kwargs: As in
                        ``LayerGradCam.attribute``. The target None means each example's
                        predicted class, on a classifier (outputs N x K). Tensors among the
                        further arguments that have a row per example belong to the examples.
            relu_attributions, attr_dim_summation (bool, optional): Likewise: whether to apply a
                        ReLU, as the Grad-CAM and ADVISE papers do, and to sum over the units
                        (dimension 1). Metrics are always those of the map under ReLU.
            unit_selection (optional): Which units make the map.

                        - ``"avx"``: per example, the group with the
                          highest AVX (the lowest relevance on ties). Needs images
                          N x 1 or 3 x H x W.
                        - ``"average_drop"``: per example, the group with the smallest
                          average drop. Takes inputs of any shape that the map can
                          mask: those with as many spatial dimensions as the layer.
                          Other inputs are passed on unchanged.
                        - an int or a collection of ints: the units with these
                          relevances; zero where an example has none.
                        - None: every unit, as in ``LayerGradCam``. A map of zeros gives no
                          warning.
            baselines (scalar, Tensor, tuple of scalar, or Tensor, optional): What
                        replaces the parts of the inputs that a map masks, in the
                        units of the model's inputs, as elsewhere in Captum.
                        Default: black for images, zero for other inputs
            internal_batch_size (int, optional): Number of masked examples in one
                        forward pass. Bounds memory. Default: 4 on a CPU, 32 on a GPU

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x \*spatial for a layer
            N x C x \*spatial; a tuple if the layer has several tensors (then ``unit_selection`` is
            None or relevances, which apply to each tensor separately). Their graph may begin at the
            layer, unless unit_selection is None or grad_kwargs ask for create_graph.

        Raises:
            TypeError, ValueError: An argument is of the wrong type or out of its range.
                        The target does not name one output per example. The inputs
                        do not suit the selection. It compares groups, and
                        activations, gradients or confidences are not finite. Errors
                        of forward_func itself pass unchanged.

        Warns:
            UserWarning: No group of an example has a map with evidence, so all its
                        units are selected; no group explains the prediction, because
                        the AVX of all is 0; no unit has a relevance that was asked
                        for; batch norm or dropout is in training mode; or
                        pixel_space, confidence or reshape_transform seem not to suit
                        the model. The message says what was seen and what to pass.

        Examples::

            >>> advise = LayerAdvise(net, net.conv4)
            >>> best = advise.attribute(images)
            >>> unimodal = advise.attribute(images, target=3, unit_selection=1)
            >>> grad_cam = advise.attribute(images, target=3, unit_selection=None)
        """
        how = arguments.choice_arguments(
            unit_selection, target, grad_kwargs, baselines, internal_batch_size
        )
        call = self._layer_call(inputs, additional_forward_args, attribute_to_layer_input)
        arguments.check_examples(call.inputs)
        selection: Selection = how["selection"]
        form = {"summed": attr_dim_summation, "relu": relu_attributions}
        # The layer pass. All units give the tensor of LayerGradCam, with its graph.
        whole_graph = selection is None or how["grad_kwargs"].get("create_graph", False)
        layer_pass = call.run(whole_graph=whole_graph)
        if not isinstance(selection, str):
            return self._without_comparison(layer_pass, selection, how, form)

        # What each unit contributes to a map: alpha_u A_u, as in Grad-CAM.
        feature_map = layer_pass.only_feature_map()
        resolved = resolve_target(layer_pass.outputs, how["target"])
        scorer = self._scorer(layer_pass, resolved, how, compares_images=selection == "avx")
        assert scorer is not None
        contributions, of_runner_up = contributions_of(layer_pass, resolved, scorer, how)

        # Relevance: the number of modes of each unit's density.
        relevance = relevance_of(feature_map, self.density)

        # Groups of units with the same relevance, and their maps.
        candidates = candidates_of(
            selection, relevance, contributions.detach(), of_runner_up, scorer.confidences
        )

        # Scores: the protocol on inputs that the maps mask.
        criterion = scorer.criterion(selection, candidates, of_runner_up)

        # The choice: the group with the largest criterion, for each example.
        units = candidates.units_of(candidates.best(criterion))
        unexplained = candidates.unexplained(criterion, selection)
        warn_of(
            choice_messages(
                *(layer_pass, how, scorer, candidates, contributions.detach(), unexplained),
                self._asked_confidence,
            )
        )

        # The attributions: the map of its units.
        return combine_units(contributions, units, **form)

    def explain(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        unit_selection: UnitSelection = "avx",
        baselines: BaselineType = None,
        internal_batch_size: int | None = None,
        with_metrics: bool = True,
        keep_units: bool = False,
    ) -> Explanation:
        """Computes the map of the selected units, and how it came about.

        Args:
            inputs, target, ...: As in :meth:`attribute`. The layer has one tensor.
            with_metrics (bool, optional): Compute the metrics of all candidates. False
                        takes no longer than :meth:`attribute`, which masks the input
                        only with maps that may be the best; ``metrics`` are None then.
            keep_units (bool, optional): Keep the activations, contributions and
                        densities of all units in ``units``.

        Returns:
            Explanation: ``candidates`` are the groups that were compared, or the units that
            were asked for. Inputs that are not images have the metrics of confidence alone.
            For relevances or None, ``metrics`` are None if the outputs are not class scores
            or no input can be masked.

        Errors and warnings are those of :meth:`attribute`.

        Examples::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> explanation.selected.shape, explanation.metrics.avx.shape
            (torch.Size([2]), torch.Size([2]))
        """
        how = arguments.choice_arguments(
            unit_selection, target, grad_kwargs, baselines, internal_batch_size
        )
        call = self._layer_call(inputs, additional_forward_args, attribute_to_layer_input)
        arguments.check_examples(call.inputs)
        return self._explanation(call.run(), how, with_metrics=with_metrics, keep_units=keep_units)

    @torch.no_grad()
    def unit_relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Relevance of each unit, int64 N x C: the number of modes of its activation density.

        A tuple if the layer has several tensors. Needs no gradient and no target.

        Args:
            inputs, additional_forward_args, ...: As in :meth:`attribute`, also what is refused.

        Examples::

            >>> relevance = LayerAdvise(net, net.conv4).unit_relevance(images)  # Nx50
        """
        call = self._layer_call(inputs, additional_forward_args, attribute_to_layer_input)
        feature_maps, runs = call.feature_maps()
        warn_of([several_runs(call, runs), suspicious_layout(call, feature_maps)])
        relevance = tuple(relevance_of(feature_map, self.density) for feature_map in feature_maps)
        return cast("Tensor | tuple[Tensor, ...]", _format_output(len(relevance) > 1, relevance))

    def _explanation(
        self,
        layer_pass: LayerPass,
        how: dict[str, Any],
        *,
        with_metrics: bool,
        keep_units: bool,
        with_grad_cam: bool = False,
        messages: Sequence[str | None] = (),
    ) -> Explanation:
        """What :meth:`explain` returns, from a forward pass that may serve other maps too."""
        selection, feature_map = how["selection"], layer_pass.only_feature_map().detach()
        resolved = resolve_target(layer_pass.outputs, how["target"])
        needs_images = with_metrics or selection == "avx"
        scorer = self._scorer(layer_pass, resolved, how, compares_images=needs_images)
        contributions, of_runner_up = contributions_of(layer_pass, resolved, scorer, how)
        contributions = contributions.detach()
        confidences = None if scorer is None else scorer.confidences
        densities = relevance = None
        if selection is not None or keep_units:
            densities = unit_densities(feature_map, self.density)
            if selection is not None:
                relevance = modes_of(densities, self.density).to(feature_map.device)
        candidates = candidates_of(selection, relevance, contributions, of_runner_up, confidences)

        metrics = grad_cam_metrics = criterion = None
        if scorer is not None and with_metrics:
            metrics = scorer.metrics(candidates, of_runner_up)
            if with_grad_cam:
                every = candidates_of(None, None, contributions, of_runner_up, None)
                grad_cam_metrics = scorer.metrics(every, of_runner_up)
        if scorer is not None and isinstance(selection, str):
            criterion = scorer.criterion(selection, candidates, of_runner_up, metrics)
        selected = candidates.best(criterion)
        selected_units = candidates.units_of(selected)
        unexplained = candidates.unexplained(criterion, selection)
        found = choice_messages(
            layer_pass, how, scorer, candidates, contributions, unexplained, self._asked_confidence
        )
        if relevance is not None and isinstance(selection, frozenset):
            found.append(missing_relevance(relevance, selection))
        warn_of([*messages, *found])

        attributions = combine_units(contributions, selected_units)
        of_selected = None if metrics is None else metrics[candidates.selected_pairs(selected)]
        map_metrics = {LAYER_ADVISE: of_selected, GRAD_CAM: grad_cam_metrics}
        images = images_of(layer_pass, maskable_inputs(layer_pass))
        if images is not None:
            images = in_pixels(images, self.pixel_space, images)
        units = None
        if keep_units and densities is not None:
            ranges = counted_ranges(feature_map, self.density.activation_range)
            units = Units(feature_map, contributions, densities, ranges)
        return Explanation(
            maps={LAYER_ADVISE: attributions, GRAD_CAM: combine_units(contributions, None)},
            map_metrics={name: found for name, found in map_metrics.items() if found is not None},
            attributions=attributions,
            target=resolved.public(),
            confidence=None if scorer is None else scorer.confidence_in_target(),
            confidences=confidences,
            unit_relevance=relevance,
            selected=selected.new_tensor(candidates.relevance)[selected],
            selected_units=selected_units,
            fallback=candidates.fallback,
            unexplained=unexplained,
            metrics=of_selected,
            candidates=candidates_of_examples(candidates, metrics),
            images=images,
            units=units,
        )

    def _without_comparison(
        self,
        layer_pass: LayerPass,
        selection: frozenset[int] | None,
        how: dict[str, Any],
        form: dict[str, bool],
    ) -> Tensor | tuple[Tensor, ...]:
        """Attributions of all units or of some relevances, whatever ``LayerGradCam`` accepts."""
        gradients = layer_pass.gradients(how["target"], **how["grad_kwargs"])
        messages, attributions = pass_messages(layer_pass), []
        for feature_map, gradient in zip(layer_pass.feature_maps, gradients, strict=True):
            units, contributions = None, unit_contributions(feature_map, gradient)
            if selection is not None:
                relevance = relevance_of(feature_map, self.density)
                units = has_relevance(relevance, selection)
                messages.append(missing_relevance(relevance, selection))
            attributions.append(combine_units(contributions, units, **form))
        warn_of(messages)
        formatted = _format_output(len(attributions) > 1, tuple(attributions))
        return cast("Tensor | tuple[Tensor, ...]", formatted)

    def _scorer(
        self, layer_pass: LayerPass, target: Target, how: dict[str, Any], *, compares_images: bool
    ) -> MapScorer | None:
        """A scorer of maps for the examples of a forward pass.

        None where nothing is compared, and the inputs or the outputs do not allow it.
        """
        maskable, outputs = maskable_inputs(layer_pass), layer_pass.outputs
        is_single = outputs.dim() < 2 or outputs.shape[1] < 2
        if isinstance(how["selection"], str):
            check_maskable(how["selection"], layer_pass, maskable)
        elif not maskable or (is_single and self.confidence is softmax_over_classes):
            return None
        return MapScorer.of(
            layer_pass,
            maskable=maskable,
            baselines=resolve_baselines(layer_pass, maskable, how["baselines"], self.pixel_space),
            confidence=self.confidence,
            target=target,
            internal_batch_size=how["internal_batch_size"],
            compares_images=compares_images and images_of(layer_pass, maskable) is not None,
            pixel_space=self.pixel_space,
            protocol=self.protocol,
        )
