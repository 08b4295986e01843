"""What an explanation method is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from captum_advise._utils.checks import check_count
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.evaluation.methods.layers import LayerChoice
from captum_advise.pixels import PixelSpace, black


@dataclass(frozen=True)
class MethodSettings:
    """Settings of single methods. They are part of a run's configuration.

    Args:
        integrated_gradients_steps: Points on the path from black to the image.
        expected_gradients_samples: Points on paths from images of one random colour.
        smooth_grad_samples: Noisy images of SmoothGrad.
        rise_masks: Random masks of RISE.
        lime_samples: Images with some superpixels blacked out, per map of LIME or Kernel SHAP.
        lime_grid: Their superpixels per side of the image.
        occlusion_windows: The side of the image divided by the side of the black window, which
            moves by half of its side.
        smooth_grad_cam_samples: Noisy images of Smooth Grad-CAM++.
        is_cam_samples: Steps of IS-CAM, each with one forward pass per unit.

    Raises:
        TypeError: One of them is not an int.
        ValueError: One of them is below one.

    Example::

        >>> MethodSettings(lime_samples=200).lime_samples
        200
    """

    integrated_gradients_steps: int = 32
    expected_gradients_samples: int = 32
    smooth_grad_samples: int = 32
    rise_masks: int = 4000
    lime_samples: int = 1000
    lime_grid: int = 8
    occlusion_windows: int = 7
    smooth_grad_cam_samples: int = 4
    is_cam_samples: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_count(name, value, at_least=1)


@dataclass(frozen=True)
class Context:
    """What a method is given besides the model, the layer, the inputs and the classes.

    Attributes:
        pixel_space: How the model's inputs relate to images in [0, 1], as in ``LayerAdvise``.
        confidence: Class scores to probabilities.
        settings: Settings of single methods.
        internal_batch_size: How many images should go through the model at once.
        image: The name of the image that is explained, if it has one.
        layers: The modules that the method explains, from the first to the last. The last is
            the argument ``layer``. Empty: that argument alone.

    Example::

        >>> from captum_advise.evaluation import get_methods
        >>> gaussian = get_methods(["gaussian"])["gaussian"]
        >>> gaussian(net, net.conv4, images, torch.tensor([3, 3]), Context()).shape
        torch.Size([2, 1, 32, 32])
    """

    pixel_space: PixelSpace | None = None
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes
    settings: MethodSettings = field(default_factory=MethodSettings)
    internal_batch_size: int = 8
    image: str = ""
    layers: tuple[nn.Module, ...] = ()

    def black(self, inputs: Tensor) -> Tensor:
        """One black image per example.

        Args:
            inputs: (N, C, H, W) model inputs.

        Returns:
            Tensor like ``inputs``, in the model's inputs.
        """
        return black(inputs.detach(), self.pixel_space).expand_as(inputs)


@dataclass(frozen=True)
class ClassMaps:
    """Maps of a method that can explain another class without being called again.

    ADVISE, for example, explains the runner-up class with the units that it selected for the
    target.

    Attributes:
        maps: (N, 1, h, w) for the target.
        of_class: Classes (N,) to their maps (N, 1, h, w). None: there is no map of another class,
            and class sensitivity is not known.

    Example::

        >>> def grad_cam_of_first_units(model, layer, inputs, target, context):
        ...     def of_class(classes):
        ...         grad_cam = LayerGradCam(model, layer)
        ...         units = grad_cam.attribute(inputs, classes, attr_dim_summation=False)
        ...         return units[:, :10].sum(1, keepdim=True).detach()
        ...     return ClassMaps(of_class(target), of_class)
    """

    maps: Tensor
    of_class: Callable[[Tensor], Tensor] | None


class Method(Protocol):
    """An explanation method.

    It is called with the model in eval mode, one of its layers, inputs (N, C, H, W), classes
    int64 (N,) and a :class:`Context`. It returns maps (N, 1, h, w) of any size, or (N, C, h, w),
    which are summed over C. Only positive evidence counts.

    The method may draw random numbers from torch, NumPy and Python, which are seeded for each
    image. It is called again for the runner-up class, to measure class sensitivity, unless it
    returns :class:`ClassMaps`.

    It may have an attribute ``layers``: what it explains, which the column ``layer`` of the results
    names. This is one of

    - ``"layer"``, the layer of the run, which is the default;
    - ``"activation"``, the module that applies the activation function of this layer. It is the
      layer itself if there is none;
    - ``"stages"``, the last activation of each size of feature maps down to this one, in
      ``context.layers``;
    - ``"gated-grad-cam"``: the layers that :class:`captum_advise.GatedGradCam` takes, likewise;
    - ``"input"``, or ``"-"`` for a method that explains neither;
    - a list of modules or their names.

    Example::

        >>> from captum_advise.evaluation import get_methods
        >>> def brightness(model, layer, inputs, target, context):
        ...     return inputs.mean(1, keepdim=True)
        >>> brightness.layers = "input"
        >>> methods = {"brightness": brightness, **get_methods(["grad-cam"])}
    """

    def __call__(  # noqa: D102
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor | ClassMaps: ...


@dataclass(frozen=True)
class MethodAt:
    """A method with what it explains.

    Attributes:
        layers: As the attribute of a :class:`Method`.
        method: The method itself.
    """

    layers: LayerChoice
    method: Method

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor | ClassMaps:
        """Call the method."""
        return self.method(model, layer, inputs, target, context)
