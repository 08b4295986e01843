"""Explanation methods under one interface: a network, a layer, inputs and classes to maps."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import isclass
from typing import Any, Protocol, TypeAlias, cast

import torch
from captum.attr import (
    Attribution,
    GuidedGradCam,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    LayerGradientXActivation,
    Lime,
    Occlusion,
)
from torch import Tensor, nn

from captum_advise import metrics
from captum_advise.class_scores import softmax_over_classes
from captum_advise.evaluation.extras import package
from captum_advise.layer_advise import LayerAdvise
from captum_advise.map_scoring import masked_baselines
from captum_advise.pixels import PixelSpace


@dataclass(frozen=True)
class MethodSettings:
    """Settings of the methods that have any, part of a run's configuration.

    Args:
        integrated_gradients_steps: Points on the path from black to the picture.
        lime_samples: Pictures with some superpixels blacked out per explanation.
        lime_grid: The superpixels are this many squares a side.
        occlusion_windows: The black window has a side of one part in this many of the picture's,
            and moves by half of it.
        smooth_grad_cam_samples: Noisy pictures of Smooth Grad-CAM++.
        is_cam_samples: Steps of IS-CAM, each of one forward pass per unit.

    Raises:
        ValueError: One of them is below one.

    Example::

        >>> MethodSettings(lime_samples=200).lime_samples
        200
    """

    integrated_gradients_steps: int = 32
    lime_samples: int = 1000
    lime_grid: int = 8
    occlusion_windows: int = 7
    smooth_grad_cam_samples: int = 4
    is_cam_samples: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class Context:
    """What methods may need to know beside the network, the layer, the inputs and the classes.

    Attributes:
        pixel_space: How the model's inputs relate to pictures, as in ``LayerAdvise``.
        confidence: Class scores to probabilities.
        settings: Of the methods that have any.
        internal_batch_size: How many pictures should go through the model at once.

    Example::

        >>> gaussian = by_name(["gaussian"])["gaussian"]
        >>> gaussian(net, net.conv4, images, torch.tensor([3, 3]), Context()).shape
        torch.Size([2, 1, 32, 32])
    """

    pixel_space: PixelSpace | None = None
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes
    settings: MethodSettings = field(default_factory=MethodSettings)
    internal_batch_size: int = 8

    def black(self, inputs: Tensor) -> Tensor:
        """A black picture per example.

        Args:
            inputs: (N, C, H, W) model inputs.

        Returns:
            Tensor like ``inputs``, in the model's inputs.
        """
        (baseline,) = masked_baselines((inputs,), (0,), None, self.pixel_space, 2)
        return baseline.expand_as(inputs)


@dataclass(frozen=True)
class ClassMaps:
    """Maps of a method that explains another class with what it chose for the target.

    Attributes:
        maps: (N, 1, h, w) for the target.
        of_class: Classes (N,) to their maps (N, 1, h, w).

    Example::

        >>> def grad_cam_of_first_units(model, layer, inputs, target, context):
        ...     def of_class(classes):
        ...         grad_cam = LayerGradCam(model, layer)
        ...         units = grad_cam.attribute(inputs, classes, attr_dim_summation=False)
        ...         return units[:, :10].sum(1, keepdim=True).detach()
        ...     return ClassMaps(of_class(target), of_class)
    """

    maps: Tensor
    of_class: Callable[[Tensor], Tensor]


class Method(Protocol):
    """An explanation method.

    Called with the model in eval mode, one of its layers, inputs (N, C, H, W), classes int64 (N,)
    and a :class:`Context`, it returns maps (N, 1, h, w) of any size, or (N, C, h, w), which are
    summed over C. Only positive evidence counts. It may draw from torch's, NumPy's and Python's
    random numbers, which are seeded for each picture. To tell how much its maps depend on the
    class, it is called again for the runner-up class, unless it returns :class:`ClassMaps`.

    Example::

        >>> def brightness(model, layer, inputs, target, context):
        ...     return inputs.mean(1, keepdim=True)
        >>> methods = {"brightness": brightness, **by_name(["grad-cam"])}
    """

    def __call__(  # noqa: D102
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor | ClassMaps: ...


MethodLike: TypeAlias = Method | Attribution | type[Attribution]


def names() -> tuple[str, ...]:
    """The methods known by name, those of the ``peers`` extra included.

    Example::

        >>> names()
        ('advise', 'advise-minmax', 'advise-reference', 'advise-faithful', 'grad-cam', ...)
    """
    return tuple(_METHODS)


def by_name(wanted: Iterable[str]) -> dict[str, Method]:
    """Methods by name, in the order given.

    Args:
        wanted: Some of :func:`names`.

    Returns:
        Name to method.

    Raises:
        ValueError: An unknown name, a repeated one, or none at all.
        ModuleNotFoundError: The package of the ``peers`` extra, or of another one, is missing.

    Example::

        >>> list(by_name(["advise", "grad-cam"]))
        ['advise', 'grad-cam']
    """
    found: dict[str, Method] = {}
    for name in wanted:
        if name not in _METHODS:
            close = difflib.get_close_matches(name, _METHODS, n=2)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise ValueError(
                f"There is no method {name!r}{hint}: the methods are {', '.join(_METHODS)}."
            )
        if name in found:
            raise ValueError(f"The method {name} is named twice.")
        found[name] = _METHODS[name]
        if name in _NEEDED:
            package(*_NEEDED[name])
    if not found:
        raise ValueError(f"Name at least one method: {', '.join(_METHODS)}.")
    return found


def as_method(method: MethodLike) -> Method:
    """A Captum attribution (object or class) or a callable, as a :class:`Method`.

    A class is made with the model, and with the layer if it is one of Captum's layer attributions
    or ``GuidedGradCam``, when it is called; an object is used as it is. Either is asked for
    ``attribute(inputs, target=classes)``.

    Args:
        method: Attribution or callable.

    Raises:
        TypeError: It is none of these.

    Example::

        >>> grad_cam = as_method(LayerGradCam)
        >>> grad_cam(net, net.conv4, images, torch.tensor([3, 3]), Context()).shape
        torch.Size([2, 1, 8, 8])
    """
    if isclass(method) and issubclass(method, Attribution):
        made = cast("Callable[..., Attribution]", method)
        with_layer = issubclass(method, LayerAttribution | GuidedGradCam)

        def of_class(
            model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
        ) -> Tensor:
            attribution = made(model, layer) if with_layer else made(model)
            return _attribute(attribution, inputs, target)

        return of_class
    if isinstance(method, Attribution):
        attribution = method

        def of_object(
            model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
        ) -> Tensor:
            return _attribute(attribution, inputs, target)

        return of_object
    if callable(method):
        return cast(Method, method)
    raise TypeError(
        "A method is a Captum attribution (object or class) or a callable, got "
        f"{type(method).__name__}."
    )


def _attribute(attribution: Attribution, inputs: Tensor, target: Tensor, **options: Any) -> Tensor:
    found = attribution.attribute(inputs, target=target, **options)
    if isinstance(found, tuple) and len(found) == 1:
        (found,) = found
    if not isinstance(found, Tensor):
        raise ValueError(
            f"{type(attribution).__name__} gives {type(found).__name__} instead of one tensor."
        )
    return found.detach()


def _advise(**options: Any) -> Method:
    def advise(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        attribution = LayerAdvise(
            model, layer, pixel_space=context.pixel_space, confidence=context.confidence
        )
        explanation = attribution.explain(
            inputs, target, internal_batch_size=context.internal_batch_size, **options
        )
        weights = explanation.unit_weights[..., None, None]

        def of_class(classes: Tensor) -> Tensor:
            units = attribution.attribute(
                inputs, classes, attr_dim_summation=False, unit_selection=None
            )
            return (cast(Tensor, units).detach() * weights).sum(1, keepdim=True)

        return ClassMaps(explanation.attributions, of_class)

    return advise


def _integrated_gradients(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    return _attribute(
        IntegratedGradients(model),
        inputs,
        target,
        baselines=context.black(inputs),
        n_steps=context.settings.integrated_gradients_steps,
        internal_batch_size=context.internal_batch_size,
    )


def _of_any_class(method: Method) -> Method:
    """The method, with scores that serve the runner-up class too.

    For methods that run the model on pictures which do not depend on the class.
    """

    def of_any_class(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        random_state = torch.get_rng_state()
        first = _Remembering(model)
        maps = cast(Tensor, method(first, layer, inputs, target, context))

        def of_class(classes: Tensor) -> Tensor:
            torch.set_rng_state(random_state)
            again = _Remembering(model, first.scores)
            return cast(Tensor, method(again, layer, inputs, classes, context))

        return ClassMaps(maps, of_class)

    return of_any_class


class _Remembering(nn.Module):
    """A model that records its scores without gradients, or gives recorded ones in their order."""

    def __init__(self, model: nn.Module, recorded: list[Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)
        self.scores: list[Tensor] = []
        self._recorded = None if recorded is None else iter(recorded)

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return cast(Tensor, self.model(inputs))
        if self._recorded is not None:
            return next(self._recorded)
        self.scores.append(self.model(inputs))
        return self.scores[-1]


def _occlusion(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    parts = context.settings.occlusion_windows
    window = [max(1, side // parts) for side in inputs.shape[-2:]]
    return _attribute(
        Occlusion(model),
        inputs,
        target,
        sliding_window_shapes=(inputs.shape[1], *window),
        strides=(inputs.shape[1], *(max(1, side // 2) for side in window)),
        baselines=context.black(inputs),
        perturbations_per_eval=context.internal_batch_size,
    )


def _lime(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    found = [
        _attribute(
            Lime(model),
            picture,
            one,
            baselines=context.black(picture),
            feature_mask=superpixels(picture, context.settings.lime_grid),
            n_samples=context.settings.lime_samples,
            perturbations_per_eval=context.internal_batch_size,
        )
        for picture, one in zip(_rows(inputs), _rows(target), strict=True)
    ]
    # Every channel of a superpixel carries the superpixel's weight.
    return torch.cat(found)[:, :1]


def _rows(tensor: Tensor) -> list[Tensor]:
    return [tensor[row : row + 1] for row in range(len(tensor))]


def superpixels(inputs: Tensor, grid: int) -> Tensor:
    """Numbers of ``grid`` x ``grid`` equal rectangles, int64 (1, 1, H, W)."""
    height, width = inputs.shape[-2:]
    down = torch.arange(height, device=inputs.device) * min(grid, height) // height
    across = torch.arange(width, device=inputs.device) * min(grid, width) // width
    return (down[:, None] * min(grid, width) + across)[None, None]


def _random(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    # Of a coarse map's size, so that it differs from a real map by its content alone. On the CPU,
    # so that a seed means the same map on every device.
    size = [max(2, side // 32) for side in inputs.shape[-2:]]
    return torch.rand(len(inputs), 1, *size).to(inputs)


def _gaussian(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    # A quarter of the side as standard deviation: the border is at two.
    down, across = (
        torch.exp(-8 * (torch.linspace(-0.5, 0.5, side, device=inputs.device) ** 2))
        for side in inputs.shape[-2:]
    )
    return (down[:, None] * across).expand(len(inputs), 1, -1, -1)


@contextmanager
def _parameter_gradients_kept(model: nn.Module) -> Iterator[None]:
    """For torchcam before 0.4.1, the last for Python 3.10, which adds to them."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _torchcam(
    extractor: str, options: Callable[[Context], Mapping[str, Any]] = lambda _: {}
) -> Method:
    def cam(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        make = getattr(package("torchcam.methods", "peers"), extractor)
        # Frozen networks keep no graph of their own.
        watched = inputs.detach().clone().requires_grad_()
        with (
            _parameter_gradients_kept(model),
            torch.enable_grad(),
            make(model, layer, **options(context)) as explain,
            # An in-place ReLU behind the layer would overwrite what torchcam has kept.
            layer.register_forward_hook(lambda _module, _inputs, output: output.clone()),
        ):
            scores = model(watched)
            (maps,) = explain(target.tolist(), scores, normalized=False)
        return cast(Tensor, maps).detach()[:, None]

    return cam


_NEEDED = {"lime": ("sklearn", "evaluation")}
_PEERS = {
    "grad-cam++": _torchcam("GradCAMpp"),
    "smooth-grad-cam++": _torchcam(
        "SmoothGradCAMpp", lambda context: {"num_samples": context.settings.smooth_grad_cam_samples}
    ),
    "xgrad-cam": _torchcam("XGradCAM"),
    "layer-cam": _torchcam("LayerCAM"),
    "score-cam": _of_any_class(
        _torchcam("ScoreCAM", lambda context: {"batch_size": context.internal_batch_size})
    ),
    "is-cam": _of_any_class(
        _torchcam(
            "ISCAM",
            lambda context: {
                "batch_size": context.internal_batch_size,
                "num_samples": context.settings.is_cam_samples,
            },
        )
    ),
}
_NEEDED.update(dict.fromkeys(_PEERS, ("torchcam", "peers")))
_METHODS: dict[str, Method] = {
    "advise": _advise(),
    "advise-minmax": _advise(activation_range="minmax"),
    "advise-reference": _advise(protocol=metrics.Protocol.reference()),
    "advise-faithful": _advise(unit_selection="faithfulness"),
    "grad-cam": as_method(LayerGradCam),
    "guided-grad-cam": as_method(GuidedGradCam),
    "layer-gradient-x-activation": as_method(LayerGradientXActivation),
    "integrated-gradients": _integrated_gradients,
    "occlusion": _of_any_class(_occlusion),
    "lime": _of_any_class(_lime),
    "random": _random,
    "gaussian": _gaussian,
    **_PEERS,
}
