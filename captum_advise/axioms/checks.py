r"""The axioms as plain functions. Each raises :class:`AxiomViolation` where its claim fails.

Notation: x are the inputs, A(x) the feature maps (N, C, \*spatial) of the explained layer, s the
target's score, g the rest of the network, s = g(A), and M(x) the method's attributions, either one
map per example (N, 1, \*spatial) or one per unit (N, C, \*spatial).

Tolerance. Where two networks evaluate the same real numbers in another order, attributions are
compared up to ``1e-9 * max(1, largest magnitude)``. In double precision each of the few hundred
operations rounds by 1.1e-16 of its terms, so that 1e-9 leaves six orders of magnitude for
cancellation, and an attribution that really differs does not come so near. A method that
*decides* (ADVISE counts modes and chooses groups) is compared in the same way: on parameters and
inputs from continuous distributions its decisions lie within rounding of a tie with a probability
of about 1e-10 per decision. Equal activations, whose order rounding could turn, occur only where an
activation function or a maximum makes them exactly equal, in both networks alike. Claims marked
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

    Sundararajan, Taly and Yan (2017) ask this of attributions to inputs. Attributions at a layer
    depend on what the layer is, so the claim is: if s' = s for all inputs, and unit j of A' is, up
    to a positive factor, unit ``unit_map[j]`` of A, then M' = M for methods with one map, and
    M'_j = M_unit_map[j] for methods with one map per unit, zero for added units.

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
    """Sensitivity(b), dummy: a unit on which no score depends is attributed exactly zero.

    For methods with one map per unit. Methods with one map have :func:`equal_attributions` of two
    networks that differ in such a unit alone.

    Needs: dg/dA_unit = 0 for all inputs, guaranteed by the caller. Exact: a gradient with respect
    to what is multiplied by zero is zero in floating point as well.
    """
    found = method(model, layer, inputs, target)
    if found.shape[1] > 1:
        _require_zero(method, found[:, unit], f"unit {unit} has no influence on the scores")


def zero_location(
    method: Method,
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    location: tuple[int, ...],
) -> None:
    """Sensitivity(b), dummy: a location of the layer on which no score depends gets exactly zero.

    Methods that average the gradient over locations (Grad-CAM, ADVISE) do not fulfil it: a
    unit's weight comes from all locations, and is applied to all of them.

    Needs: dg/dA at ``location`` is 0 for all units and inputs, guaranteed by the caller. Exact.
    """
    found = method(model, layer, inputs, target)
    place: tuple[Any, ...] = (slice(None), slice(None), *location)
    _require_zero(
        method,
        found[place],
        f"location {location} has no influence on the scores",
    )


def zero_class(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """Sensitivity(b), dummy, for all of the layer: a constant score is attributed exactly zero.

    Needs: the target's score is the same for all inputs, guaranteed by the caller. Exact.
    """
    _require_zero(method, method(model, layer, inputs, target), "the target's score is constant")


def equal_attributions(
    method: Method,
    first: tuple[nn.Module, nn.Module],
    second: tuple[nn.Module, nn.Module],
    inputs: Tensor,
    target: Tensor,
    because: str,
) -> None:
    """Two networks (model, layer) between which a method must not tell have equal attributions.

    Used for two claims. *Dummy unit*, for methods with one map: networks that differ in nothing
    but the incoming weights of a unit that nothing reads. *Locality*: networks with equal A(x)
    that agree on a neighbourhood of A(x). Locality holds for what is computed from activations and
    gradients at x. It does not hold for methods that look elsewhere, along a path from a baseline
    or at masked inputs, and is no flaw there.

    Needs: what ``because`` says, guaranteed by the caller. Tolerance: that of this module.
    """
    expected = method(*first, inputs, target)
    found = method(*second, inputs, target)
    _require_close(method, found, expected, f"attributions differ although {because}")


def sensitivity(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, of: str
) -> None:
    """Sensitivity(a): if the only thing that differs from the baseline matters, it shows.

    The form for a layer, with zero feature maps as the baseline: if A has one unit that is not
    zero, and g(A) differs from g(0), then the attributions are not zero everywhere. The caller
    guarantees both. Whether it holds depends on g:

    - g the mean over locations and then affine: M of Grad-CAM sums to g(A) - g(0), so it holds.
    - g affine: a unit's mean gradient can vanish while its effect does not, so it does not hold
      for Grad-CAM; it does for gradient times activation.
    - any g: gradients vanish where g is saturated, so it holds for path methods only.

    Needs: at the method's baseline A is zero. Tolerance: attributions that are all smaller than
    1e-12 count as zero.
    """
    found = method(model, layer, inputs, target).flatten(1).abs().amax(1)
    if (found < 1e-12).any():
        missing = (found < 1e-12).nonzero().flatten().tolist()
        raise AxiomViolation(
            f"{method.name}: attributions are zero everywhere for the examples {missing}, although "
            f"their scores differ from those of zero feature maps, {of}."
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

    It holds for ADVISE while the group of units is fixed, as relevance depends on A alone. A
    group that is *chosen* depends on the head, and then it does not hold.

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
    """Attributions of n examples are those of each by itself.

    Needs: a model that treats examples by themselves (eval mode). Tolerance: that of this module,
    as libraries multiply matrices of different sizes in different orders.
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
    inputs that require a gradient; and the grad mode is afterwards what it was.
    """
    expected = method(model, layer, inputs, target)
    with torch.no_grad():
        found = method(model, layer, inputs, target)
        if torch.is_grad_enabled():
            raise AxiomViolation(f"{method.name} switched gradients on for its caller.")
    _require_equal(method, found, expected, "attributions differ under torch.no_grad()")
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        raise AxiomViolation(f"{method.name} switched gradients off for its caller.")
    flags = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        found = method(model, layer, inputs, target)
    finally:
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
    _require_equal(method, found, expected, "attributions differ for frozen parameters")
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
    """For a model that computes the same in train and eval mode, M is bitwise the same in both.

    Needs: no dropout and no batch norm in the model.
    """
    flags = [module.training for module in model.modules()]
    try:
        model.eval()
        expected = method(model, layer, inputs, target)
        model.train()
        found = method(model, layer, inputs, target)
    finally:
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag
    _require_equal(method, found, expected, "attributions differ in train mode")


def leftover_gradient_invariance(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """What earlier backward passes left in ``.grad`` neither changes M nor is changed.

    Claim: with arbitrary ``.grad`` of parameters and inputs, M is bitwise the same, and every
    ``.grad`` is bitwise what it was.
    """
    expected = method(model, layer, inputs, target)
    tracked = inputs.clone().requires_grad_()
    tensors = [*model.parameters(), tracked]
    before = [tensor.grad for tensor in tensors]
    left = [torch.full_like(tensor, 3.0) for tensor in tensors]
    for tensor, grad in zip(tensors, left, strict=True):
        tensor.grad = grad.clone()
    try:
        found = method(model, layer, tracked, target)
        changed = sum(
            tensor.grad is None or not torch.equal(tensor.grad, grad)
            for tensor, grad in zip(tensors, left, strict=True)
        )
    finally:
        for tensor, earlier in zip(tensors, before, strict=True):
            tensor.grad = earlier
    _require_equal(method, found, expected, "attributions depend on leftover .grad")
    if changed:
        raise AxiomViolation(f"{method.name} changed the .grad of {changed} tensors.")


def model_unchanged(
    method: Method, model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor
) -> None:
    """The call leaves the model and the inputs as they were.

    Claim: parameters, buffers and inputs are bitwise the same; train flags (a mixture of both),
    ``requires_grad`` flags and ``.grad`` are the same; no forward or backward hook is left.
    """
    flags = [module.training for module in model.modules()]
    for place, module in enumerate(model.modules()):
        # Batch norm in train mode changes its running statistics by itself.
        module.training = place % 2 == 0 and not list(module.buffers())
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
        state[f"the train flag of {name or 'the model'}"] = module.training
        state[f"the hooks of {name or 'the model'}"] = sum(
            len(value) for key, value in vars(module).items() if key.endswith("_hooks")
        )
    state["requires_grad of the inputs"] = inputs.requires_grad
    return state


def _require_close(method: Method, found: Tensor, expected: Tensor, what: str) -> None:
    _require_shape(method, found, expected, what)
    largest = max(float(t.abs().max()) if t.numel() else 0.0 for t in (found, expected))
    # NaN is never close, and infinite magnitudes are no measure of it.
    if not (found - expected).abs().le(TOLERANCE * max(1.0, largest)).all() or largest == torch.inf:
        raise AxiomViolation(_difference(method, found, expected, what))


def _require_equal(method: Method, found: Tensor, expected: Tensor, what: str) -> None:
    _require_shape(method, found, expected, what)
    if not torch.equal(found, expected):
        raise AxiomViolation(_difference(method, found, expected, what))


def _require_shape(method: Method, found: Tensor, expected: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise AxiomViolation(
            f"{method.name}: {what}: shapes {tuple(found.shape)} and {tuple(expected.shape)}."
        )


def _require_zero(method: Method, found: Tensor, because: str) -> None:
    if found.ne(0).any():
        raise AxiomViolation(
            f"{method.name}: {because}, but its attribution is not zero: "
            f"{found[found.ne(0)][0].item():.6g}, at most {found.abs().max().item():.6g}."
        )


def _difference(method: Method, found: Tensor, expected: Tensor, what: str) -> str:
    distance = (found - expected).abs().nan_to_num(torch.inf)
    place = tuple(int(i) for i in torch.unravel_index(distance.argmax(), distance.shape))
    return (
        f"{method.name}: {what}: by up to {distance.max().item():.3g}, at {place}: "
        f"{found[place].item():.9g} instead of {expected[place].item():.9g}."
    )


@contextmanager
def shown_with(case: object) -> Iterator[None]:
    """Add the case to the message of a violation."""
    try:
        yield
    except AxiomViolation as violation:
        raise AxiomViolation(f"{violation}\nCase: {case!r}") from violation
