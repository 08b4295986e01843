r"""The axioms: each claims something about attributions, and has networks on which to try it.

Notation: x are the inputs, A(x) the feature maps (N, C, \*spatial) of the explained layer, and s
the target's class score. The rest of the network is g, so that s = g(A). M(x) are the subject's
attributions: one map per example (N, 1, \*spatial), or one per unit (N, C, \*spatial).

Tolerance. Where two networks evaluate the same real numbers in another order, attributions are
compared up to ``1e-9 * max(1, largest magnitude)``. In double precision, each of the few hundred
operations rounds by 1.1e-16 of its terms. The tolerance therefore leaves six orders of magnitude
for cancellation, while attributions that really differ are further apart.

A subject that *decides* (ADVISE counts modes and selects groups) is compared in the same way. On
parameters and inputs from continuous distributions, a decision lies within rounding of a tie with
a probability of about 1e-10. Equal activations, whose order rounding could change, occur only where
an activation function or a maximum makes them exactly equal, in both networks. Claims marked
*exact* or *bitwise* have no tolerance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_advise.axioms import checks
from captum_advise.axioms.checks import AxiomViolation, Subject
from captum_advise.axioms.networks import SmallNetwork, draw_parameters, generator
from captum_advise.axioms.rewrites import REWRITES, Rewrite
from captum_advise.axioms.strategies import Case, cases


@dataclass(frozen=True)
class Axiom:
    """A claim about attributions that can be searched for a counterexample.

    Attributes:
        name: The name on the command line and in tests.
        claim: The first line of the docstring of the function in ``captum_advise.axioms.claims`` or
            ``captum_advise.axioms.checks``, whose other lines have the exact statement.
        run: Raises :class:`AxiomViolation` if a subject fails on a case.
        allowed: The networks to try: values of attributes of :class:`NetworkSpec`.
        examples: Smallest and largest number of examples in a case.

    Example::

        >>> AXIOMS["dummy_class"].claim
        'Sensitivity(b): a constant class score is attributed zero'
        >>> from captum_advise.axioms import NetworkSpec
        >>> AXIOMS["dummy_class"].run(Subject("Grad-CAM", LayerGradCam), Case(NetworkSpec(), (0,)))
    """

    name: str
    claim: str
    run: Callable[[Subject, Case], None] = field(repr=False)
    allowed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    examples: tuple[int, int] = (1, 3)

    def cases(self, subject: Subject) -> st.SearchStrategy[Case]:
        """The cases to try, among those that the subject takes."""
        of_subject = {"spatial_dims": subject.spatial_dims, "channels": subject.channels}
        return cases(self.examples, **{**of_subject, **self.allowed})


def implementation_invariance(rewrite: Rewrite, subject: Subject, case: Case) -> None:
    """Functionally equivalent networks with corresponding layers have equal attributions.

    Sundararajan, Taly and Yan (2017) require this of attributions to inputs. Attributions to a
    layer depend on the layer, so the claim is as follows. Let s' = s for all inputs, and let unit
    j of A' be, up to a positive factor, unit ``unit_map[j]`` of A. Then M' = M for subjects with
    one map. For subjects with one map per unit, M'_j = M_unit_map[j], and zero for added units.

    Tolerance: none where the pair is bitwise equal, else that of this module.
    """
    network, unit_map = rewrite(case.spec, case.rewrite_seed)
    original = _attributions(subject, case, SmallNetwork(case.spec))
    name = rewrite.build.__name__
    rewritten = _attributions(subject, case, network, f"on an equivalent network ({name})")
    expected = original
    if original.shape[1] > 1 or rewritten.shape[1] > 1:
        if rewritten.shape[1] != len(unit_map):
            raise AxiomViolation(
                f"{subject.name} returned {rewritten.shape[1]} maps for {len(unit_map)} units."
            )
        zero = torch.zeros_like(original[:, 0])
        expected = torch.stack([zero if u is None else original[:, u] for u in unit_map], 1)
    what = f"{name}: equivalent networks ({rewrite.reason}) have different attributions"
    require = checks.require_equal if rewrite.is_bitwise else checks.require_close
    require(subject, rewritten, expected, what)


def dummy_unit(subject: Subject, case: Case) -> None:
    """Sensitivity(b): a unit without influence gets zero and changes nothing.

    For subjects with one map per unit: its attribution is exactly zero. The gradient with respect
    to a value that is multiplied by zero is zero in floating point as well. For all subjects: two
    networks that differ only in the incoming weights of such a unit have equal attributions.

    Tolerance: that of this module, in the second claim.
    """
    unit = case.rewrite_seed % case.spec.units
    network = SmallNetwork(case.spec)
    network.outgoing()[:, unit] = 0
    attributions = _attributions(subject, case, network)
    if attributions.shape[1] > 1:
        because = f"unit {unit} has no influence on the class scores"
        checks.require_zero(subject, attributions[:, unit], because)
    other = copy.deepcopy(network)
    redrawn = copy.deepcopy(network.convolution)
    draw_parameters(redrawn, generator(case.rewrite_seed))
    for parameter, new in zip(other.convolution.parameters(), redrawn.parameters(), strict=True):
        parameter.data[unit] = new.data[unit]
    what = (
        f"attributions differ although the networks differ in unit {unit} only, which has no "
        "influence on the class scores"
    )
    how = f"where unit {unit}, which has no influence on the class scores, has other weights"
    others = _attributions(subject, case, other, how)
    checks.require_close(subject, others, attributions, what)


def dummy_location(subject: Subject, case: Case) -> None:
    """Sensitivity(b): a location without influence gets zero.

    Subjects that average the gradient over locations (Grad-CAM, ADVISE) do not fulfil it: a
    unit's weight comes from all locations and is applied to all of them. Exact.
    """
    network = SmallNetwork(case.spec)
    outgoing = network.outgoing()
    location = case.rewrite_seed % outgoing.shape[2]
    outgoing[:, :, location] = 0
    shape = (case.spec.map_size,) * case.spec.spatial_dims
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(location), shape))
    everywhere: tuple[Any, ...] = (slice(None), slice(None))
    attributions = _attributions(subject, case, network)[everywhere + index]
    because = f"location {index} has no influence on the class scores"
    checks.require_zero(subject, attributions, because)


def dummy_class(subject: Subject, case: Case) -> None:
    """Sensitivity(b): a constant class score is attributed zero.

    Exact.
    """
    network = SmallNetwork(case.spec)
    network.last.weight.data[list(case.targets)] = 0
    attributions = _attributions(subject, case, network)
    checks.require_zero(subject, attributions, "the target's class score is constant")


def locality(subject: Subject, case: Case) -> None:
    """Attributions depend on the network near the input's feature maps only.

    Networks with equal A(x) that agree on a neighbourhood of A(x) have equal attributions. It holds
    for subjects that use activations and gradients at x only. It does not hold for subjects that
    evaluate the network elsewhere, along a path from a baseline or at masked inputs; for them this
    is not a flaw.

    Tolerance: that of this module.
    """
    network = SmallNetwork(case.spec)
    unit = case.rewrite_seed % case.spec.units
    activation = _mean_activation(network, case.inputs, unit)
    baseline = _mean_activation(network, torch.zeros_like(case.inputs), unit)
    assume(abs(activation - baseline) > 1e-6)
    # Close to the activation, so that subjects that evaluate the network elsewhere cross it.
    threshold = activation + 0.05 * (baseline - activation)
    sign = 1.0 if baseline > activation else -1.0
    gated = copy.deepcopy(network)
    gated.branch = _UnitTerm(case, unit, lambda mean: (sign * (mean - threshold)).relu())
    checks.require_close(
        subject,
        _attributions(subject, case, gated),
        _attributions(subject, case, network),
        "attributions differ although the networks have equal feature maps and agree on a "
        "neighbourhood of them",
    )


def sensitivity(kind: str, subject: Subject, case: Case) -> None:
    """Sensitivity(a): if the only difference from the baseline matters, it gets attribution.

    The form for a layer, with zero feature maps as the baseline: if A has one unit that is not
    zero, and g(A) differs from g(0), then the attributions are not zero everywhere. Whether the
    claim holds depends on g:

    - g the mean over locations and then affine: M of Grad-CAM sums to g(A) - g(0), so it holds.
    - g affine: a unit's mean gradient can vanish while its effect does not. The claim does not
      hold for Grad-CAM; it holds for gradient times activation.
    - any g: gradients vanish where g is saturated, so it holds for path methods only.

    Needs: at the subject's baseline A is zero. Tolerance: attributions that are all smaller than
    1e-12 count as zero.
    """
    inputs = case.inputs
    network = SmallNetwork(case.spec)
    unit = case.rewrite_seed % case.spec.units
    others = [other for other in range(case.spec.units) if other != unit]
    network.convolution.weight.data[others] = 0
    outgoing = network.outgoing()
    if kind == "affine":
        # Weights whose mean over locations is zero: an edge in the layer, not its average.
        locations = torch.randperm(outgoing.shape[2], generator=generator(case.rewrite_seed))[:2]
        weights = outgoing[:, unit, locations[0]].clone()
        outgoing[:, unit] = 0
        outgoing[:, unit, locations] = torch.stack([weights, -weights], 1)
    if kind == "saturated":
        outgoing.zero_()
        limit = _mean_activation(network, inputs, unit) / 2
        bounds = {"max": limit} if limit > 0 else {"min": limit}
        network.branch = _UnitTerm(case, unit, lambda mean: mean.clamp(**bounds))
    with torch.no_grad():
        difference = network(inputs) - network(torch.zeros_like(inputs))
    assume(bool((difference.gather(1, case.target[:, None]).abs() > 1e-6).all()))
    largest = _attributions(subject, case, network).abs().flatten(1).amax(1)
    if not bool((largest >= 1e-12).all()):
        are = "not numbers" if bool(largest.isnan().any()) else "zero everywhere"
        raise AxiomViolation(
            f"{subject.name}: attributions are {are}, although the class score differs "
            f"from that of zero feature maps, in a network that is {_WHERE[kind]}."
        )


def linearity(subject: Subject, case: Case) -> None:
    """Attributions are linear in the head.

    If s3 = a s1 + b s2 and A is the same, then M3 = a M1 + b M2. It holds for ADVISE with a fixed
    group of units, because relevance depends on A alone. It does not hold where the group is
    *selected*, because the selection depends on the head.

    Needs: signed attributions (no ReLU on them). Tolerance: that of this module.
    """
    source = generator(case.rewrite_seed)
    networks = first, second, both = [SmallNetwork(case.spec) for _ in range(3)]
    draw_parameters(second.last, source)
    a, b = (4 * torch.rand(2, generator=source) - 2).tolist()
    with torch.no_grad():
        for combined, one, other in zip(
            both.last.parameters(), first.last.parameters(), second.last.parameters(), strict=True
        ):
            combined.copy_(a * one + b * other)
    of_first, of_second, of_both = (_attributions(subject, case, network) for network in networks)
    what = f"attributions of {a:g} s1 + {b:g} s2 are not linear"
    checks.require_close(subject, of_both, a * of_first + b * of_second, what)


class _UnitTerm(nn.Module):
    """``function`` of one unit's mean activation, times a factor for each class."""

    def __init__(self, case: Case, unit: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.unit = unit
        self.function = function
        source = generator(case.rewrite_seed)
        self.factors = 100 * torch.randn(case.spec.classes, generator=source, dtype=torch.float64)

    def forward(self, features: Tensor) -> Tensor:
        term = self.function(features[:, self.unit].flatten(1).mean(1, keepdim=True))
        return term * self.factors


def _attributions(
    subject: Subject, case: Case, network: SmallNetwork, repeats: str | None = None
) -> Tensor:
    """Attributions of a case. To fail is a violation if another call, which it repeats, did not."""
    call = subject if repeats is None else partial(checks.repeated, subject, how=repeats)
    attributions = call(network, network.layer, case.inputs, case.target)
    if attributions.dim() != case.inputs.dim():
        raise TypeError(
            f"{subject.name} must return one tensor (N, 1 or units, *spatial), got "
            f"{tuple(attributions.shape)} for inputs {tuple(case.inputs.shape)}."
        )
    return attributions


@torch.no_grad()
def _mean_activation(network: SmallNetwork, inputs: Tensor, unit: int) -> float:
    features: list[Tensor] = []
    hook = network.pooling.register_forward_hook(lambda _m, _i, output: features.append(output))
    network(inputs)
    hook.remove()
    return float(features[0][0, unit].mean())


def _axiom(run: Callable[[Subject, Case], None], **options: Any) -> Axiom:
    return Axiom(run.__name__, checks.claim_of(run), run, **options)


def _of_any_model(
    check: Callable[[Subject, nn.Module, nn.Module, Tensor, Tensor], None], **options: Any
) -> Axiom:
    @wraps(check)
    def run(subject: Subject, case: Case) -> None:
        network = SmallNetwork(case.spec)
        check(subject, network, network.layer, case.inputs, case.target)

    return _axiom(run, **options)


# Networks whose head reads locations one by one.
_FLAT: dict[str, Sequence[Any]] = {"head": ("flat", "hidden"), "pooling": ("none",)}
# Networks whose layer can be zero except for one unit, with zero maps for zero inputs.
_ONE_UNIT: dict[str, Sequence[Any]] = {
    "activation": ("relu", "leaky_relu", "tanh", "gelu", "none"),
    "layer": ("activation",),
    "batch_norm": (False,),
    "bias": (False,),
    "pooling": ("none",),
    "stride": (1,),
}
# By kind of sensitivity, where the network is how.
_WHERE = {
    "pooled": "affine after the mean over locations",
    "affine": "affine after the layer",
    "saturated": "saturated after the layer",
}

_ALL = (
    *(
        Axiom(
            name,
            f"Implementation invariance: {claim[:1].lower()}{claim[1:]}",
            partial(implementation_invariance, rewrite),
            rewrite.needs,
        )
        for name, rewrite in REWRITES.items()
        for claim in [checks.claim_of(rewrite.build)]
    ),
    _axiom(dummy_unit),
    _axiom(dummy_location, allowed=_FLAT),
    _axiom(dummy_class),
    # The more units, the more groups to select from.
    _axiom(locality, allowed={"units": (8,)}, examples=(1, 1)),
    *(
        Axiom(
            f"sensitivity_{kind}",
            f"Sensitivity(a) where the network is {where}",
            partial(sensitivity, kind),
            {**_ONE_UNIT, "head": ("flat" if kind == "affine" else "pooled",)},
            (1, 1),
        )
        for kind, where in _WHERE.items()
    ),
    _axiom(linearity),
    _of_any_model(checks.determinism),
    _of_any_model(checks.batch_invariance, examples=(2, 4)),
    _of_any_model(checks.caller_invariance),
    _of_any_model(checks.model_unchanged),
)

AXIOMS: dict[str, Axiom] = {axiom.name: axiom for axiom in _ALL}
"""All axioms by name, in the order of the tables."""
