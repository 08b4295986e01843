"""The subject of a check, and the checks that any model can take.

Each check raises :class:`AxiomViolation` if its claim fails. The notation, and the reason for the
tolerance, are in ``captum_advise.axioms.claims``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_advise._utils.errors import reason
from captum_advise._utils.modes import in_eval_mode

TOLERANCE = 1e-9


class AxiomViolation(AssertionError):  # noqa: N818 - named after what it reports
    """A subject does not fulfil an axiom; the message shows the case."""


@dataclass(frozen=True)
class Subject:
    """A Captum attribution that uses a layer, with fixed arguments.

    Attributes:
        name: The name in messages and tables.
        attribution: Factory ``(model, layer) -> Attribution``, or the class itself.
        arguments: Further keyword arguments of the factory or of ``attribute``.
        spatial_dims: The numbers of spatial dimensions that inputs may have: 1, 2 or 3.
        channels: The numbers of channels that inputs may have.
        does_not_hold: Axioms that it is known not to fulfil, each with the reason.

    Example::

        >>> subject = Subject("Grad-CAM", LayerGradCam)
        >>> subject(net, net.conv4, images, torch.tensor([3, 3])).shape
        torch.Size([2, 1, 8, 8])
    """

    name: str
    attribution: Callable[..., Attribution] = field(repr=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    spatial_dims: tuple[int, ...] = (1, 2, 3)
    channels: tuple[int, ...] = (1, 2, 3)
    does_not_hold: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __call__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
    ) -> Tensor:
        r"""Attributions of ``inputs`` (N, ...) for classes (N,): (N, 1 or units, \*spatial).

        The target is not passed if ``attribute`` takes no argument of that name. Warnings are not
        part of any axiom and are not shown.
        """
        arguments, known = dict(self.arguments), inspect.signature(self.attribution).parameters
        made = {name: arguments.pop(name) for name in self.arguments if name in known}
        attribute = self.attribution(model, layer, **made).attribute
        takes = inspect.signature(attribute).parameters
        if "target" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values()):
            arguments["target"] = target
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attributions: Any = attribute(inputs, **arguments)
        if isinstance(attributions, tuple) and len(attributions) == 1:
            (attributions,) = attributions
        if not isinstance(attributions, Tensor):
            raise TypeError(
                f"{self.name} must return one tensor for a layer with one tensor, got "
                f"{type(attributions).__name__}."
            )
        if attributions.dim() < 2 or len(attributions) != len(inputs):
            raise TypeError(
                f"{self.name} must return one tensor (N, 1 or units, *spatial), got "
                f"{tuple(attributions.shape)} for {len(inputs)} examples."
            )
        return attributions.detach()


def repeated(
    subject: Subject, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, how: str
) -> Tensor:
    """Attributions that a call gives after one that did not fail: to fail is a violation."""
    try:
        return subject(model, layer, inputs, target)
    except Exception as error:
        raise AxiomViolation(
            f"{subject.name} fails {how}: {type(error).__name__}: {reason(error)}."
        ) from error


def claim_of(function: Callable[..., Any]) -> str:
    """What a function of this package claims or does: the first line of its docstring."""
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")


def determinism(
    subject: Subject, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The same call gives the same bits, whatever the random state.

    Needs: the same number of threads, and kernels that are deterministic, as on a CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = subject(model, layer, inputs, target)
        torch.default_generator.manual_seed(2)
        second = repeated(subject, model, layer, inputs, target, "at the second call")
    require_equal(subject, second, first, "the same call gave different attributions")


def batch_invariance(
    subject: Subject, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """A batch gives what each of its examples gives.

    Needs: a model that treats each example independently (eval mode). Tolerance: that of this
    module, because libraries multiply matrices of different sizes in different orders.
    """
    together = subject(model, layer, inputs, target)
    how = "on one example of a batch"
    rows = [slice(i, i + 1) for i in range(len(inputs))]
    single = torch.cat([repeated(subject, model, layer, inputs[i], target[i], how) for i in rows])
    require_close(subject, together, single, "an example's attributions depend on its batch")


def caller_invariance(
    subject: Subject, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The caller's grad mode, flags and leftover `.grad` do not matter.

    M is bitwise the same under ``torch.no_grad()``, with frozen parameters, and with inputs that
    require a gradient. So it is in training mode (but for modules with buffers, as batch norm), and
    with any ``.grad`` from earlier backward passes. The call leaves the grad mode and every
    ``.grad`` unchanged. Needs: no dropout in the model.
    """
    expected = subject(model, layer, inputs, target)
    tracked = inputs.clone().requires_grad_()
    model, layer = copy.deepcopy((model, layer))
    tensors = [*model.parameters(), tracked]

    def require_same(where: str, inputs: Tensor) -> None:
        attributions = repeated(subject, model, layer, inputs, target, where)
        require_equal(subject, attributions, expected, f"attributions differ {where}")

    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            require_same(f"where gradients are {'on' if enabled else 'off'}", inputs)
            if torch.is_grad_enabled() != enabled:
                raise AxiomViolation(f"{subject.name} changed the grad mode of its caller.")
    model.requires_grad_(False)
    require_same("for frozen parameters", inputs)
    model.requires_grad_(True)
    for module in model.modules():
        module.training = not list(module.buffers())
    require_same("in training mode", inputs)
    require_same("for inputs that require a gradient", tracked)
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, 3.0)
    require_same("where .grad is left over", tracked)
    if any(tensor.grad is None or tensor.grad.ne(3).any() for tensor in tensors):
        raise AxiomViolation(f"{subject.name} changed .grad.")


def model_unchanged(
    subject: Subject, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The model is left unchanged.

    Parameters, buffers and inputs are bitwise the same. Training flags (a mixture of both),
    ``requires_grad`` flags and ``.grad`` are the same. No forward or backward hook is left.
    """
    with in_eval_mode(model):
        for number, module in enumerate(model.modules()):
            # Batch norm in training mode changes its running statistics by itself.
            module.training = number % 2 == 0 and not list(module.buffers())
        before = _state(model, inputs)
        subject(model, layer, inputs, target)
        after = _state(model, inputs)
    for name, value in before.items():
        now = after.get(name)
        same = (
            isinstance(now, Tensor) and torch.equal(value, now)
            if isinstance(value, Tensor)
            else value == now
        )
        if not same:
            shown = "" if isinstance(value, Tensor) else f": {value} became {now}"
            raise AxiomViolation(f"{subject.name} changed {name}{shown}.")


def _state(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    # Not the model's state_dict, which leaves out some buffers.
    tensors = *model.named_parameters(), *model.named_buffers()
    state: dict[str, Any] = {f"the value of {k}": v.detach().clone() for k, v in tensors}
    for name, parameter in model.named_parameters():
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f".grad of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"the hooks of {name}"] = len(parameter._backward_hooks or ())
    for name, module in model.named_modules():
        state[f"the training flag of {name or 'the model'}"] = module.training
        state[f"the hooks of {name or 'the model'}"] = sum(
            len(value) for key, value in vars(module).items() if key.endswith("_hooks")
        )
    return {
        **state,
        "the inputs": inputs.detach().clone(),
        "requires_grad of the inputs": inputs.requires_grad,
    }


def require_close(subject: Subject, actual: Tensor, expected: Tensor, what: str) -> None:
    """Require attributions that are equal up to :data:`TOLERANCE`."""
    if actual.shape == expected.shape:
        largest = max(float(t.abs().max()) if t.numel() else 0.0 for t in (actual, expected))
        is_close = (actual - expected).abs().le(TOLERANCE * max(1.0, largest)).all()
        # NaN is never close, and an infinite magnitude would make the tolerance infinite.
        if is_close and largest < torch.inf:
            return
    raise AxiomViolation(_difference(subject, actual, expected, what))


def require_equal(subject: Subject, actual: Tensor, expected: Tensor, what: str) -> None:
    """Require attributions that are bitwise equal."""
    if not torch.equal(actual, expected):
        raise AxiomViolation(_difference(subject, actual, expected, what))


def require_zero(subject: Subject, actual: Tensor, because: str) -> None:
    """Require attributions of exactly zero."""
    if actual.ne(0).any():
        raise AxiomViolation(
            f"{subject.name}: {because}, but its attribution is not zero: "
            f"{actual[actual.ne(0)][0].item():.6g}, at most {actual.abs().max().item():.6g}."
        )


def _difference(subject: Subject, actual: Tensor, expected: Tensor, what: str) -> str:
    if actual.shape != expected.shape:
        shapes = f"{tuple(actual.shape)} and {tuple(expected.shape)}"
        return f"{subject.name}: {what}: shapes {shapes}."
    distance = (actual - expected).abs().nan_to_num(torch.inf)
    index = tuple(int(i) for i in torch.unravel_index(distance.argmax(), distance.shape))
    return (
        f"{subject.name}: {what}: by up to {distance.max().item():.3g}, at {index}: "
        f"{actual[index].item():.9g} instead of {expected[index].item():.9g}."
    )
