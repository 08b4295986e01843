"""ADVISE as a Captum layer attribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from captum._utils.common import _format_output
from captum._utils.typing import BaselineType, TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_advise._core.choice import Choice, Weighting
from captum_advise._core.comparison import compare, weigh
from captum_advise._core.layer_pass import LayerCall, ReshapeTransform
from captum_advise._core.request import (
    LayerRequest,
    Request,
    check_constructor,
    warn_of_training_mode,
)
from captum_advise._core.selection import UnitSelection
from captum_advise._core.setting_warnings import suspicious_layout
from captum_advise._core.targets import softmax_over_classes
from captum_advise.explanation import Explanation
from captum_advise.metrics import AVXProtocol
from captum_advise.pixels import PixelSpace
from captum_advise.relevance import ActivationRange, DensityOptions, relevance_of

__all__ = ["LayerAdvise", "UnitSelection"]

_INTERNAL_BATCH_SIZE = 8


class LayerAdvise(LayerAttribution, GradientAttribution):
    r"""Computes ADVISE attributions for a chosen layer: Grad-CAM from the units whose
    activation density has a chosen number of modes.

    Each unit of the layer gets a relevance: the number of modes of an adaptive-bandwidth
    kernel density estimate of its activations. Units with the same relevance form a
    group, and each group gives a map as Grad-CAM does. For each example, the group is
    selected whose map explains the prediction best. By default this is the group with
    the highest visual explainability (AVX).

    With ``unit_selection=None`` this class is ``captum.attr.LayerGradCam``.

    Source: Dehshibi, Ashtari-Majlan, Adhane and Masip, "ADVISE: ADaptive Feature
    Relevance and VISual Explanations for Convolutional Neural Networks",
    https://arxiv.org/abs/2203.01289

    Args:
        forward_func (Callable): The forward function of the model or any
                      modification of it. For ``unit_selection="avx"`` and
                      ``"average_drop"`` it returns class scores N x K (x ...).
        layer (torch.nn.Module): Layer for which attributions are computed.
        device_ids (list[int], optional): Device ID list, necessary only if
                      forward_func applies a DataParallel model.
                      Default: None
        pixel_space (PixelSpace, optional): How the model's inputs relate to images
                      in [0, 1]. None: the minimum of each example is black and its
                      maximum is white.
                      Default: None
        confidence (Callable, optional): Turns what forward_func returns into
                      probabilities of the same shape. Pass ``torch.sigmoid`` for
                      independent or single logits, and ``torch.nn.Identity()`` for a
                      model that returns probabilities.
                      Default: softmax over dimension 1
        reshape_transform (Callable, optional): Rearranges the layer's tensor as
                      (N, C, \*spatial), for layers that have another layout:
                      :func:`captum_advise.layouts.channels_last` (Swin, N x H x W x C),
                      :class:`captum_advise.layouts.Tokens` (ViT, N x tokens x C), or a
                      function of your own that permutes, reshapes and slices. Gradients
                      are rearranged in the same way.
                      Default: None

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
        confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
        reshape_transform: ReshapeTransform | None = None,
    ) -> None:
        check_constructor(forward_func, layer, pixel_space, confidence, reshape_transform)
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
        unit_selection: UnitSelection = "avx",
        n_bandwidths: int = 10,
        activation_range: ActivationRange = (0.0, 1.0),
        min_prominence: float = 1e-6,
        baselines: BaselineType = None,
        protocol: AVXProtocol = AVXProtocol(),  # noqa: B008 - frozen
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
                        the Grad-CAM and ADVISE papers do. Metrics are always those of
                        the map under ReLU.
                        Default: False
            attr_dim_summation (bool, optional): Sum over the units (dimension 1).
                        Default: True
            grad_kwargs (Dict[str, Any], optional): Additional keyword arguments for
                        torch.autograd.grad.
                        Default: None
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
                        - None: every unit. The result is that of ``LayerGradCam``.

                        Default: "avx"
            n_bandwidths (int, optional): Number of candidate bandwidths of the
                        density estimate, at least 2.
                        Default: 10
            activation_range (tuple[float, float] or str, optional): Only activations
                        between these two numbers count in the density of a unit;
                        (0.0, 1.0) is what the authors' program does. ``"minmax"``
                        maps each unit's own range onto [0, 1], so that rescaling a
                        unit does not change its relevance.
                        Default: (0.0, 1.0)
            min_prominence (float, optional): The least prominence of a mode, as a
                        share of the density's maximum; see
                        :func:`captum_advise.count_modes`. 0 counts every local
                        maximum, as the authors' program does; many of these are
                        rounding on layers of 14 x 14 and more.
                        Default: 1e-6
            baselines (scalar, Tensor, tuple of scalar, or Tensor, optional): What
                        replaces the parts of the inputs that a map masks, in the
                        units of the model's inputs, as elsewhere in Captum.
                        Default: black for images, zero for other inputs
            protocol (AVXProtocol, optional): Reading of the paper's protocol;
                        ``AVXProtocol.reference()`` is that of the authors' program.
                        Default: AVXProtocol()
            internal_batch_size (int, optional): Number of masked examples in one
                        forward pass. Bounds memory.
                        Default: 8

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                        N x 1 x \*spatial for a layer N x C x \*spatial; a tuple if the
                        layer has several tensors (then ``unit_selection`` is None or
                        relevances, which apply to each tensor separately).

        Raises:
            TypeError, ValueError: An argument is of the wrong type or out of its range,
                        the target does not name one output per example, the inputs
                        do not suit the selection, or it compares groups and
                        activations, gradients or confidences are not finite. Errors
                        of forward_func itself pass unchanged.

        Warns:
            UserWarning: No group of an example has a map with evidence, so all its
                        units are selected; no unit has a relevance that was asked
                        for; batch norm or dropout is in training mode; or
                        pixel_space, confidence or reshape_transform seem not to suit
                        the model. The message says what was seen and what to pass.

        Examples::

            >>> advise = LayerAdvise(net, net.conv4)
            >>> best = advise.attribute(images)
            >>> unimodal = advise.attribute(images, target=3, unit_selection=1)
            >>> grad_cam = advise.attribute(images, target=3, unit_selection=None)
        """
        request = Request.of(
            LayerRequest.of(
                inputs,
                additional_forward_args,
                attribute_to_layer_input,
                DensityOptions(n_bandwidths, activation_range, min_prominence),
            ),
            target,
            grad_kwargs,
            unit_selection,
            baselines,
            protocol,
            internal_batch_size,
        )
        outcome = self._select(request, in_detail=False, with_metrics=False, stacklevel=4)
        return outcome.attributions(attr_dim_summation, relu_attributions)

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
        unit_selection: UnitSelection = "avx",
        n_bandwidths: int = 10,
        activation_range: ActivationRange = (0.0, 1.0),
        min_prominence: float = 1e-6,
        baselines: BaselineType = None,
        protocol: AVXProtocol = AVXProtocol(),  # noqa: B008 - frozen
        internal_batch_size: int = _INTERNAL_BATCH_SIZE,
        with_metrics: bool = True,
    ) -> Explanation:
        r"""Attributions, and how they came about.

        Args:
            inputs, target, ...: As in :meth:`attribute`. The layer has one tensor.
            with_metrics (bool, optional): Compute the metrics of all candidates. False
                        takes no longer than :meth:`attribute`, which masks the input
                        only with maps that may be the best; ``metrics`` are None then.
                        Default: True

        Returns:
            Explanation: ``candidates`` are the groups among which ``"avx"`` or
            ``"average_drop"`` chose, or the units that were asked for. Their metrics are
            those of the protocol for images, and of its confidences alone for other
            inputs. There are no metrics for relevances or None if the outputs are not
            class scores or no input can be masked.

        Examples::

            >>> explanation = LayerAdvise(net, net.conv4).explain(images)
            >>> explanation.selected.shape, explanation.metrics.avx.shape
            (torch.Size([2]), torch.Size([2]))
        """
        request = Request.of(
            LayerRequest.of(
                inputs,
                additional_forward_args,
                attribute_to_layer_input,
                DensityOptions(n_bandwidths, activation_range, min_prominence),
            ),
            target,
            grad_kwargs,
            unit_selection,
            baselines,
            protocol,
            internal_batch_size,
        )
        outcome = self._select(request, in_detail=True, with_metrics=with_metrics, stacklevel=3)
        return cast(Choice, outcome).explanation(attr_dim_summation, relu_attributions)

    @torch.no_grad()
    def unit_relevance(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        n_bandwidths: int = 10,
        activation_range: ActivationRange = (0.0, 1.0),
        min_prominence: float = 1e-6,
    ) -> Tensor | tuple[Tensor, ...]:
        """Relevance of each unit: the number of modes of its activation density. Needs no
        gradient and no target.

        Args:
            inputs, additional_forward_args, ...: As in :meth:`attribute`.

        Returns:
            int64 *Tensor* N x C, or a tuple if the layer has several tensors.

        Examples::

            >>> relevance = LayerAdvise(net, net.conv4).unit_relevance(images)  # Nx50
        """
        request = LayerRequest.of(
            inputs,
            additional_forward_args,
            attribute_to_layer_input,
            DensityOptions(n_bandwidths, activation_range, min_prominence),
        )
        warn_of_training_mode(self.forward_func, stacklevel=3)
        feature_maps = self._layer_call(request).feature_maps()
        message = suspicious_layout(request.inputs, feature_maps, self.reshape_transform)
        if message is not None:
            warnings.warn(message, stacklevel=3)
        relevance = tuple(
            relevance_of(feature_map, request.density) for feature_map in feature_maps
        )
        return cast("Tensor | tuple[Tensor, ...]", _format_output(len(relevance) > 1, relevance))

    def _select(
        self, request: Request, *, in_detail: bool, with_metrics: bool, stacklevel: int
    ) -> Choice | Weighting:
        """Run the layer and select units.

        Args:
            request: The arguments.
            in_detail: Keep the candidates, even if nothing is compared. The layer has one tensor.
            with_metrics: Compute all metrics, not only those that the selection needs.
            stacklevel: Of the user's call, for warnings.
        """
        warn_of_training_mode(self.forward_func, stacklevel=stacklevel)
        layer_pass = self._layer_call(request.layer).run()
        layout = suspicious_layout(
            request.layer.inputs, layer_pass.feature_maps, self.reshape_transform
        )
        outcome: Choice | Weighting
        if in_detail or request.selection.compares:
            outcome = compare(
                request,
                layer_pass,
                self.forward_func,
                self.pixel_space,
                self.confidence,
                all_metrics=with_metrics,
            )
        else:
            outcome = weigh(request, layer_pass)
        for message in filter(None, (layout, *outcome.suspicions)):
            warnings.warn(message, stacklevel=stacklevel)
        return outcome

    def _layer_call(self, request: LayerRequest) -> LayerCall:
        return LayerCall(
            self.forward_func,
            (self.layer,),
            request.inputs,
            request.additional_forward_args,
            self.device_ids,
            request.attribute_to_layer_input,
            (self.reshape_transform,),
        )
