"""Grad-CAM refined by finer layers, as a Captum attribution at the size of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from captum._utils.typing import TargetType
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_advise._core import arguments
from captum_advise._core.gated_map import gated_map
from captum_advise._core.layer_pass import LayerCall, LayerPass
from captum_advise._core.occlusion_evidence import check_occlusions, corrected_by_occlusion
from captum_advise._core.setting_warnings import (
    extreme_pixels,
    pass_messages,
    suspicious_pixels,
    warn_of,
)
from captum_advise._core.setup import LayerSetup
from captum_advise._core.targets import resolve_target
from captum_advise._utils.probabilities import suspicious_confidence
from captum_advise.layouts import ReshapeTransform
from captum_advise.pixels import PixelSpace

__all__ = ["GatedGradCam"]


class GatedGradCam(LayerSetup, GradientAttribution):
    r"""Computes maps at the size of the image from several layers: Grad-CAM at the deepest
    layer, refined by the evidence of layers before it.

    .. math::
        \text{map} = G \sum_l E_l,
        \quad G = N([\text{Grad-CAM}]_+), \quad
        E_l = N\Bigl(\Bigl[ \sum_u \frac{\partial s}{\partial A_u} A_u \Bigr]_+\Bigr)

    G is the map of the last layer, enlarged with bicubic interpolation. E is gradient times
    activation of a layer before it, summed over the units at each position. It is averaged
    over 3 x 3 positions, and enlarged with bilinear interpolation. N stretches each
    example's map to [0, 1]. All of it takes one forward and one backward pass.

    With ``n_occlusions=S``, S more forward passes correct the map by occlusion:

    .. math::
        \text{map}' = N(\text{map}) \, (0.2 + 0.8 \, N(O_+))

    O is the confidence lost per hidden position: the posterior mean, on 14 x 14 positions,
    of Gaussian-process regression with the map as prior mean. The data are the losses of
    log-confidence when smooth random regions, the same for every image, are blurred or black.

    Source: Grad-CAM is from Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391.
    E is HiResCAM, Draelos and Carin 2020, https://arxiv.org/abs/2011.08891. Random masks enlarged
    from a coarse grid are from RISE, Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421. The
    combination is this package's own; it is not in the ADVISE paper.

    Args:
        forward_func, device_ids, layer_run, confidence: As in :class:`captum_advise.LayerAdvise`;
                      only ``n_occlusions`` needs the confidence.
        layers (Sequence[torch.nn.Module]): At least two layers, in the order of the
                      forward pass. The last one is the layer that Grad-CAM would
                      explain. The others give the evidence; at least one of them
                      should have a finer feature map.
                      :class:`captum_advise.zoo.Network` has them in ``layers``.
        pixel_space (PixelSpace, optional): How the model's inputs relate to images
                      in [0, 1]. Only ``n_occlusions`` needs it, for black. None: the
                      minimum of each example is black.
        reshape_transform (Callable or Sequence[Callable or None], optional):
                      As in :class:`captum_advise.LayerAdvise`: one function for all layers,
                      or one (or None) per layer.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: There are fewer than two layers, a layer is named twice, or the numbers
            of layers and transforms differ.

    Examples::

        >>> network = zoo.load("efficientnet-lite0")
        >>> inputs = network.transform(zoo.example_image())[None]
        >>> gated = GatedGradCam(network.model, network.layers)
        >>> gated.attribute(inputs, target=282).shape
        torch.Size([1, 1, 224, 224])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layers: Sequence[Module],
        device_ids: list[int] | None = None,
        *,
        pixel_space: PixelSpace | None = None,
        confidence: Callable[[Tensor], Tensor] | None = None,
        reshape_transform: ReshapeTransform | Sequence[ReshapeTransform | None] | None = None,
        layer_run: int | None = None,
    ) -> None:
        self.layers, self.reshape_transforms = arguments.several_layers(layers, reshape_transform)
        transforms = self.reshape_transforms
        self._set_up(forward_func, self.layers, transforms, pixel_space, confidence, layer_run)
        super().__init__(forward_func)
        self.device_ids = device_ids

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        n_occlusions: int = 0,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Computes the map of each example, at the size of its image.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The inputs of forward_func. Those of
                        four dimensions are images N x C x H x W, of one size.
            target, additional_forward_args, attribute_to_layer_input, grad_kwargs (optional):
                        As in :meth:`captum_advise.LayerAdvise.attribute`.
            n_occlusions (int, optional): Number of forward passes of occluded images that
                        correct the map of an example, even and at least 4; 32 is what
                        was measured. Needs class scores N x K, one input that holds
                        images, and torchvision. 0: no correction.
            internal_batch_size (int, optional): Number of occluded images in one
                        forward pass. Bounds memory. Default: 4 on a CPU, 32 on a GPU

        Returns:
            *Tensor* of **attributions**, N x 1 x H x W, without a graph. They go from 0 up to the
            number of layers before the last, and to 1 with ``n_occlusions``. They are float64 if
            a feature map of the model is, and float32 otherwise.

        Raises:
            TypeError, ValueError: An argument is of the wrong type. The target does not
                        name one output per example. No input holds images of one size.
                        A layer does not run, does not return one tensor N x C x H x W, or
                        runs after the last one. Values are not finite.
                        ``n_occlusions`` does not suit outputs or inputs.

        Warns:
            UserWarning: An example has no evidence for the target, so its map is zero;
                        batch norm or dropout is in training mode; a layer seems to
                        have another layout than N x C x H x W; or, with ``n_occlusions``,
                        ``pixel_space`` seems not to suit the inputs, or the outputs
                        are probabilities.

        Examples::

            >>> network = zoo.load("efficientnet-lite0")
            >>> inputs = network.transform(zoo.example_image())[None]
            >>> gated = GatedGradCam(
            ...     network.model, network.layers, pixel_space=network.pixel_space
            ... )
            >>> gated.attribute(inputs, target=282, n_occlusions=32).shape
            torch.Size([1, 1, 224, 224])
        """
        grad_kwargs = arguments.as_grad_kwargs(grad_kwargs)
        check_occlusions(n_occlusions)
        arguments.check_batch_size(internal_batch_size)
        call = self._layer_call(inputs, additional_forward_args, attribute_to_layer_input)
        arguments.check_examples(call.inputs)
        _images(call)  # before the model runs
        layer_pass = call.run()
        maps, messages = self._maps(
            layer_pass, target, grad_kwargs, n_occlusions, internal_batch_size
        )
        warn_of(messages)
        return maps

    def _maps(
        self,
        layer_pass: LayerPass,
        target: TargetType,
        grad_kwargs: dict[str, Any],
        n_occlusions: int = 0,
        internal_batch_size: int | None = None,
        *,
        keep_graph: bool = False,
    ) -> tuple[Tensor, list[str | None]]:
        """The maps from a forward pass, which may serve other maps too; and what to warn of."""
        images, size = _images(layer_pass.call)
        self._check_feature_maps(layer_pass)
        resolved = resolve_target(layer_pass.outputs, target)
        gradients = layer_pass.gradients(resolved, keep_graph=keep_graph, **grad_kwargs)
        maps = gated_map(layer_pass.feature_maps, gradients, size)
        tensors = layer_pass.call.inputs
        messages = pass_messages(layer_pass)
        if n_occlusions:
            maps = corrected_by_occlusion(
                maps,
                layer_pass,
                resolved,
                images,
                n_occlusions=n_occlusions,
                pixel_space=self.pixel_space,
                confidence=self.confidence,
                internal_batch_size=internal_batch_size,
            )
            if self._asked_confidence is not None:
                messages.append(suspicious_confidence(layer_pass.outputs, self._asked_confidence))
            messages += [
                suspicious_pixels(extreme_pixels(tensors[i], self.pixel_space), self.pixel_space)
                for i in images
            ]
        zero = ~maps.flatten(1).any(1)
        if bool(zero.any()):
            messages.append(
                f"{int(zero.sum())} of {len(zero)} examples have no evidence for the target that "
                "the layers agree on, so their maps by GatedGradCam are zero."
            )
        return maps, messages

    def _check_feature_maps(self, layer_pass: LayerPass) -> None:
        """Require one feature map N x C x H x W per layer, and one row per example."""
        feature_maps = layer_pass.feature_maps
        if len(feature_maps) != len(self.layers):
            raise ValueError(
                f"The {len(self.layers)} layers have {len(feature_maps)} tensors, and GatedGradCam "
                "needs one per layer: name modules inside them that return one tensor."
            )
        for index, feature_map in enumerate(feature_maps):
            if feature_map.dim() != 4:
                raise ValueError(
                    f"layers[{index}] has a tensor of shape {tuple(feature_map.shape)}, and "
                    "GatedGradCam needs feature maps N x C x H x W: name another layer, or give "
                    "reshape_transform, such as captum_advise.layouts.Tokens(n_prefix=1)."
                )
        layer_pass.check_examples()


def _images(call: LayerCall) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Which inputs hold images, and their height and width."""
    images = tuple(
        index
        for index, tensor in enumerate(call.inputs)
        if tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel()
    )
    sizes = {(call.inputs[index].shape[2], call.inputs[index].shape[3]) for index in images}
    if len(sizes) != 1:
        shapes = ", ".join(f"{tuple(one.shape)} {one.dtype}" for one in call.inputs)
        raise ValueError(
            "GatedGradCam needs images N x C x H x W of one size in floating point among the "
            f"inputs, and they are {shapes}: use LayerAdvise for other inputs."
        )
    return images, sizes.pop()
