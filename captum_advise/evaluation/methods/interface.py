"""What an explanation method is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.evaluation.methods.layer_views import LayerViews
from captum_advise.layouts import ReshapeTransform
from captum_advise.pixels import PixelSpace, black


@dataclass(frozen=True)
class Context:
    """What a method is given besides the model, the layer, the inputs and the classes.

    Attributes:
        pixel_space: How the model's inputs relate to images in [0, 1], as in ``LayerAdvise``.
        confidence: Class scores to probabilities.
        internal_batch_size: How many images should go through the model at once.
        image: The name of the image that is explained, if it has one.
        layers: The modules that the method explains, from the first to the last. The last is
            the argument ``layer``. Empty: that argument alone.
        reshape_transforms: One per module of ``layers``: how to rearrange what it returns as
            (N, C, H, W), None where it is so.

    Example::

        >>> from captum_advise.evaluation import get_methods
        >>> gaussian = get_methods(["gaussian"])["gaussian"]
        >>> gaussian(net, net.conv4, images, torch.tensor([3, 3]), Context()).shape
        torch.Size([2, 1, 32, 32])
    """

    pixel_space: PixelSpace | None = None
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes
    internal_batch_size: int = 8
    image: str = ""
    layers: tuple[nn.Module, ...] = ()
    reshape_transforms: tuple[ReshapeTransform | None, ...] = ()

    def black(self, inputs: Tensor) -> Tensor:
        """One black image per example, like ``inputs`` (N, C, H, W), in the model's inputs."""
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
    - ``"convolutions"``, all of them down to this layer, likewise; in transformers normalisations;
    - ``"attention"``, that of all blocks of a transformer;
    - ``"gated-grad-cam"``: the layers that :class:`captum_advise.GatedGradCam` takes, likewise;
    - ``"input"``, or ``"-"`` for a method that explains neither.

    An attribute ``selects_by_avx`` that is true says that the method selects by the AVX metric,
    which then favours it. Reports say so.

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
    """A :class:`Method` from a function that takes settings as further arguments.

    It gets layers of tokens or channels last as feature maps (N, C, H, W).
    """

    layers: str
    function: Callable[..., Tensor | ClassMaps]
    settings: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, str] | None = None  # a module, and the extra that brings it
    selects_by_avx: bool = False

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor | ClassMaps:
        """Make maps."""
        if any(context.reshape_transforms):
            layers, transforms = context.layers or (layer,), context.reshape_transforms
            model = LayerViews(model, layers, transforms)
            layer = model.layers[-1]
            context = replace(context, layers=model.layers, reshape_transforms=())
        with inputs_cast(model, inputs):
            return self.function(model, layer, inputs, target, context, **self.settings)


def selecting_by_avx(methods: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the methods that select by AVX, in order."""
    return tuple(name for name, method in methods.items() if getattr(method, "selects_by_avx", 0))


@contextmanager
def inputs_cast(model: nn.Module, like: Tensor) -> Iterator[None]:
    """Let a model in half precision take the noise that methods add in single precision."""
    if like.dtype not in (torch.float16, torch.bfloat16):
        yield
        return

    def cast(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0].to(like.dtype), *arguments[1:])

    with model.register_forward_pre_hook(cast):
        yield
