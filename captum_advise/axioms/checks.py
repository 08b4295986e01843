r"""The axioms as plain functions. Each raises :class:`AxiomViolation` if its claim fails.

Notation: x are the inputs, A(x) the feature maps (N, C, \*spatial) of the explained layer, and s
the target's class score. The rest of the network is g, so that s = g(A). M(x) are the method's
attributions: one map per example (N, 1, \*spatial), or one per unit (N, C, \*spatial).

Tolerance. Where two networks evaluate the same real numbers in another order, attributions are
compared up to ``1e-9 * max(1, largest magnitude)``. In double precision, each of the few hundred
operations rounds by 1.1e-16 of its terms. The tolerance therefore leaves six orders of magnitude
for cancellation, while attributions that really differ are further apart.

A method that *decides* (ADVISE counts modes and selects groups) is compared in the same way. On
parameters and inputs from continuous distributions, a decision lies within rounding of a tie with
a probability of about 1e-10. Equal activations, whose order rounding could change, occur only where
an activation function or a maximum makes them exactly equal, in both networks. Claims marked
*exact* or *bitwise* have no tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_advise.axioms.equivalence import EquivalentPair
from captum_advise.axioms.method import AxiomViolation, Method

TOLERANCE = 1e-9


def implementation_invariance(
    method: Method, pair: EquivalentPair, inputs: Tensor, target: Tensor
) -> None:
    """Functionally equivalent networks with corresponding layers have equal attributions.

    Sundararajan, Taly and Yan (2017) require this of attributions to inputs. Attributions to a
    layer depend on the layer, so the claim is as follows. Let s' = s for all inputs, and let unit
    j of A' be, up to a positive factor, unit ``unit_map[j]`` of A. Then M' = M for methods with
    one map. For methods with one map per unit, M'_j = M_unit_map[j], and zero for added units.

    Needs: nothing. Tolerance: none where the pair is bitwise equal, else that of this module.
    """
    original = method(pair.original, pair.original_layer, inputs, target)
    rewritten = method(pair.rewritten, pair.rewritten_layer, inputs, pair.rewritten_target(target))
    if original.shape[1] == 1 and rewritten.shape[1] == 1:
        expected = original
    else:
        if rewritten.shape[1] != len(pair.unit_map):
            raise AxiomViolation(
                f"{method.name} returned {rewritten.shape[1]} maps for {len(pair.unit_map)} units."
            )
        zero = torch.zeros_like(original[:, 0])
        expected = torch.stack(
            [zero if unit is None else original[:, unit] for unit in pair.unit_map], 1
        )
    what = f"{pair.name}: equivalent networks ({pair.reason}) have different attributions"
    if pair.exactness == "bitwise":
        _require_equal(method, rewritten, expected, what)
    else:
        _require_close(method, rewritten, expected, what)


def zero_units(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, unit: int
) -> None:
    """Sensitivity(b), dummy: a unit on which no class score depends is attributed exactly zero.

    For methods with one map per unit. For methods with one map, :func:`equal_attributions`
    compares two networks that differ in such a unit only.

    Needs: dg/dA_unit = 0 for all inputs, guaranteed by the caller. Exact: the gradient with
    respect to a value that is multiplied by zero is zero in floating point as well.
    """
    attributions = method(model, layer, inputs, target)
    if attributions.shape[1] > 1:
        _require_zero(
            method, attributions[:, unit], f"unit {unit} has no influence on the class scores"
        )


def zero_location(
    method: Method,
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    location: tuple[int, ...],
) -> None:
    """Sensitivity(b), dummy: a location on which no class score depends gets exactly zero.

    Methods that average the gradient over locations (Grad-CAM, ADVISE) do not fulfil it: a
    unit's weight comes from all locations and is applied to all of them.

    Needs: dg/dA at ``location`` is 0 for all units and inputs, guaranteed by the caller. Exact.
    """
    attributions = method(model, layer, inputs, target)
    index: tuple[Any, ...] = (slice(None), slice(None), *location)
    _require_zero(
        method,
        attributions[index],
        f"location {location} has no influence on the class scores",
    )


def zero_class(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """Sensitivity(b), dummy, for the whole layer: a constant class score is attributed zero.

    Needs: the target's class score is the same for all inputs, guaranteed by the caller. Exact.
    """
    attributions = method(model, layer, inputs, target)
    _require_zero(method, attributions, "the target's class score is constant")


def equal_attributions(
    method: Method,
    first: tuple[nn.Module, nn.Module],
    second: tuple[nn.Module, nn.Module],
    inputs: Tensor,
    target: Tensor,
    because: str,
) -> None:
    """Two networks (model, layer) that a method must not distinguish have equal attributions.

    Two claims use this check. *Dummy unit*, for methods with one map: the networks differ only in
    the incoming weights of a unit that nothing reads. *Locality*: the networks have equal A(x) and
    agree on a neighbourhood of A(x). Locality holds for methods that use activations and gradients
    at x only. It does not hold for methods that evaluate the network elsewhere, along a path from
    a baseline or at masked inputs; for them this is not a flaw.

    Needs: what ``because`` states, guaranteed by the caller. Tolerance: that of this module.
    """
    expected = method(*first, inputs, target)
    attributions = method(*second, inputs, target)
    _require_close(method, attributions, expected, f"attributions differ although {because}")


def sensitivity(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, where: str
) -> None:
    """Sensitivity(a): if the only difference from the baseline matters, it gets attribution.

    The form for a layer, with zero feature maps as the baseline: if A has one unit that is not
    zero, and g(A) differs from g(0), then the attributions are not zero everywhere. The caller
    guarantees both, and describes the network in ``where``. Whether the claim holds depends on g:

    - g the mean over locations and then affine: M of Grad-CAM sums to g(A) - g(0), so it holds.
    - g affine: a unit's mean gradient can vanish while its effect does not. The claim does not
      hold for Grad-CAM; it holds for gradient times activation.
    - any g: gradients vanish where g is saturated, so it holds for path methods only.

    Needs: at the method's baseline A is zero. Tolerance: attributions that are all smaller than
    1e-12 count as zero.
    """
    largest = method(model, layer, inputs, target).flatten(1).abs().amax(1)
    if (largest < 1e-12).any():
        zero = (largest < 1e-12).nonzero().flatten().tolist()
        raise AxiomViolation(
            f"{method.name}: attributions are zero everywhere for the examples {zero}, although "
            f"their class scores differ from those of zero feature maps, {where}."
        )


def linearity(
    method: Method,
    models: tuple[nn.Module, nn.Module, nn.Module],
    layers: tuple[nn.Module, nn.Module, nn.Module],
    factors: tuple[float, float],
    inputs: Tensor,
    target: Tensor,
) -> None:
    """Linearity in the head: if s3 = a s1 + b s2 and A is the same, then M3 = a M1 + b M2.

    It holds for ADVISE with a fixed group of units, because relevance depends on A alone. It does
    not hold where the group is *selected*, because the selection depends on the head.

    Needs: signed attributions (no ReLU on them). Tolerance: that of this module.
    """
    first, second, both = (
        method(model, layer, inputs, target) for model, layer in zip(models, layers, strict=True)
    )
    a, b = factors
    _require_close(
        method, both, a * first + b * second, f"attributions of {a:g} s1 + {b:g} s2 are not linear"
    )


def determinism(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The same call twice gives bitwise equal attributions, whatever the random state.

    Needs: the same number of threads, and kernels that are deterministic, as on a CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = method(model, layer, inputs, target)
        torch.default_generator.manual_seed(2)
        second = method(model, layer, inputs, target)
    _require_equal(method, second, first, "the same call gave different attributions")


def batch_invariance(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """Attributions of n examples are those of each example alone.

    Needs: a model that treats each example independently (eval mode). Tolerance: that of this
    module, because libraries multiply matrices of different sizes in different orders.
    """
    together = method(model, layer, inputs, target)
    single = torch.cat(
        [method(model, layer, inputs[i : i + 1], target[i : i + 1]) for i in range(len(inputs))]
    )
    _require_close(method, together, single, "an example's attributions depend on its batch")


def grad_mode_invariance(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The caller's grad mode, and ``requires_grad`` of parameters and inputs, do not matter.

    Claim: M is bitwise the same under ``torch.no_grad()``, with all parameters frozen, and with
    inputs that require a gradient. The call leaves the grad mode unchanged.
    """
    expected = method(model, layer, inputs, target)
    with torch.no_grad():
        attributions = method(model, layer, inputs, target)
        if torch.is_grad_enabled():
            raise AxiomViolation(f"{method.name} switched gradients on for its caller.")
    _require_equal(method, attributions, expected, "attributions differ under torch.no_grad()")
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        raise AxiomViolation(f"{method.name} switched gradients off for its caller.")
    flags = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        attributions = method(model, layer, inputs, target)
    finally:
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    _require_equal(method, attributions, expected, "attributions differ for frozen parameters")
    tracked = inputs.clone().requires_grad_()
    _require_equal(
        method,
        method(model, layer, tracked, target),
        expected,
        "attributions differ for inputs that require a gradient",
    )


def training_flag_invariance(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """If a model computes the same in training and eval mode, M is bitwise the same in both.

    Needs: no dropout and no batch norm in the model.
    """
    flags = [module.training for module in model.modules()]
    try:
        model.eval()
        expected = method(model, layer, inputs, target)
        model.train()
        attributions = method(model, layer, inputs, target)
    finally:
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag
    _require_equal(method, attributions, expected, "attributions differ in training mode")


def leftover_gradient_invariance(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """Gradients of earlier backward passes in ``.grad`` neither change M nor are changed.

    Claim: with arbitrary ``.grad`` of parameters and inputs, M is bitwise the same, and the call
    leaves every ``.grad`` bitwise unchanged.
    """
    expected = method(model, layer, inputs, target)
    tracked = inputs.clone().requires_grad_()
    tensors = [*model.parameters(), tracked]
    before = [tensor.grad for tensor in tensors]
    leftover = [torch.full_like(tensor, 3.0) for tensor in tensors]
    for tensor, grad in zip(tensors, leftover, strict=True):
        tensor.grad = grad.clone()
    try:
        attributions = method(model, layer, tracked, target)
        changed = sum(
            tensor.grad is None or not torch.equal(tensor.grad, grad)
            for tensor, grad in zip(tensors, leftover, strict=True)
        )
    finally:
        for tensor, earlier in zip(tensors, before, strict=True):
            tensor.grad = earlier
    _require_equal(method, attributions, expected, "attributions depend on leftover .grad")
    if changed:
        raise AxiomViolation(f"{method.name} changed the .grad of {changed} tensors.")


def model_unchanged(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The call leaves the model and the inputs unchanged.

    Claim: parameters, buffers and inputs are bitwise the same. Training flags (a mixture of both),
    ``requires_grad`` flags and ``.grad`` are the same. No forward or backward hook is left.
    """
    flags = [module.training for module in model.modules()]
    for number, module in enumerate(model.modules()):
        # Batch norm in training mode changes its running statistics by itself.
        module.training = number % 2 == 0 and not list(module.buffers())
    try:
        before, values = _state(model, inputs), inputs.clone()
        method(model, layer, inputs, target)
        after = _state(model, inputs)
    finally:
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag
    for name, value in before.items():
        now = after.get(name)
        same = (
            isinstance(now, Tensor) and torch.equal(value, now)
            if isinstance(value, Tensor)
            else value == now
        )
        if not same:
            shown = "" if isinstance(value, Tensor) else f": {value} became {now}"
            raise AxiomViolation(f"{method.name} changed {name}{shown}.")
    if not torch.equal(values, inputs):
        raise AxiomViolation(f"{method.name} changed the inputs.")


def _state(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    state: dict[str, Any] = {f"the value of {k}": v.clone() for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f".grad of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"the hooks of {name}"] = len(parameter._backward_hooks or ())
    for name, module in model.named_modules():
        state[f"the training flag of {name or 'the model'}"] = module.training
        state[f"the hooks of {name or 'the model'}"] = sum(
            len(value) for key, value in vars(module).items() if key.endswith("_hooks")
        )
    state["requires_grad of the inputs"] = inputs.requires_grad
    return state


def _require_close(method: Method, actual: Tensor, expected: Tensor, what: str) -> None:
    _require_shape(method, actual, expected, what)
    largest = max(float(t.abs().max()) if t.numel() else 0.0 for t in (actual, expected))
    is_close = (actual - expected).abs().le(TOLERANCE * max(1.0, largest)).all()
    # NaN is never close, and an infinite magnitude would make the tolerance infinite.
    if not is_close or largest == torch.inf:
        raise AxiomViolation(_difference(method, actual, expected, what))


def _require_equal(method: Method, actual: Tensor, expected: Tensor, what: str) -> None:
    _require_shape(method, actual, expected, what)
    if not torch.equal(actual, expected):
        raise AxiomViolation(_difference(method, actual, expected, what))


def _require_shape(method: Method, actual: Tensor, expected: Tensor, what: str) -> None:
    if actual.shape != expected.shape:
        raise AxiomViolation(
            f"{method.name}: {what}: shapes {tuple(actual.shape)} and {tuple(expected.shape)}."
        )


def _require_zero(method: Method, actual: Tensor, because: str) -> None:
    if actual.ne(0).any():
        raise AxiomViolation(
            f"{method.name}: {because}, but its attribution is not zero: "
            f"{actual[actual.ne(0)][0].item():.6g}, at most {actual.abs().max().item():.6g}."
        )


def _difference(method: Method, actual: Tensor, expected: Tensor, what: str) -> str:
    distance = (actual - expected).abs().nan_to_num(torch.inf)
    index = tuple(int(i) for i in torch.unravel_index(distance.argmax(), distance.shape))
    return (
        f"{method.name}: {what}: by up to {distance.max().item():.3g}, at {index}: "
        f"{actual[index].item():.9g} instead of {expected[index].item():.9g}."
    )


@contextmanager
def shown_with(case: object) -> Iterator[None]:
    """Add the case to the message of a violation."""
    try:
        yield
    except AxiomViolation as violation:
        raise AxiomViolation(f"{violation}\nCase: {case!r}") from violation
