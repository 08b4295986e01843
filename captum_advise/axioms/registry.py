"""The axioms: each has a name, a claim, cases to try, and a check that tries them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, assume, given
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from torch import Tensor, nn

from captum_advise.axioms import checks
from captum_advise.axioms.equivalence import REWRITES
from captum_advise.axioms.method import AxiomViolation, Method
from captum_advise.axioms.networks import (
    Head,
    NetworkSpec,
    SmallNetwork,
    draw_parameters,
    generator,
)
from captum_advise.axioms.strategies import (
    Case,
    cases,
    network_specs,
    one_unit_specs,
    rewritable_specs,
)


@dataclass(frozen=True)
class Axiom:
    """A claim about attributions that can be searched for a counterexample.

    Attributes:
        name: The name on the command line and in tests.
        claim: One line; the check's docstring has the exact statement.
        run: Raises :class:`AxiomViolation` if a method fails on a case.
        cases: Strategy for the cases that a method can take.

    Example::

        >>> AXIOMS["dummy_class"].claim
        'Sensitivity(b): a constant class score is attributed zero'
        >>> AXIOMS["dummy_class"].run(Method("Grad-CAM", LayerGradCam), Case(NetworkSpec(), (0,)))
    """

    name: str
    claim: str
    run: Callable[[Method, Case], None]
    cases: Callable[[Method], st.SearchStrategy[Case]]


def require(axiom: Axiom, method: Method, *, effort: float = 1.0, shrink: bool = True) -> None:
    """Search for a counterexample, with the current Hypothesis profile.

    Args:
        axiom: One of :data:`AXIOMS`.
        method: The method to try.
        effort: Factor on the profile's number of examples.
        shrink: Whether to search for the simplest counterexample, which takes longer.

    Raises:
        AxiomViolation: There is one; the message shows it.

    Example::

        >>> require(AXIOMS["dummy_unit"], Method("Grad-CAM", LayerGradCam))
    """
    profile = hypothesis.settings()
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @hypothesis.settings(
        profile,
        max_examples=max(1, round(profile.max_examples * effort)),
        phases=phases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(axiom.cases(method))
    def holds(case: Case) -> None:
        with checks.shown_with(case):
            axiom.run(method, case)

    try:
        holds()
    except Flaky as error:
        raise AxiomViolation(
            f"{method.name}: {axiom.name} fails on a case and later holds on the same case."
        ) from error


def violation(axiom: Axiom, method: Method, *, effort: float = 1.0) -> AxiomViolation | None:
    """A counterexample, if the search finds one.

    Args:
        axiom: One of :data:`AXIOMS`.
        method: The method to try.
        effort: Factor on the number of examples of the current Hypothesis profile.

    Returns:
        The error that shows the counterexample, or None.

    Example::

        >>> error = violation(AXIOMS["dummy_location"], Method("Grad-CAM", LayerGradCam))
        >>> isinstance(error, AxiomViolation)
        True
    """
    try:
        require(axiom, method, effort=effort, shrink=False)
    except AxiomViolation as error:
        return error
    return None


def _any_cases(method: Method, **options: object) -> st.SearchStrategy[Case]:
    specs = network_specs(spatial_dims=method.spatial_dims, channels=method.channels)
    return cases(specs, **options)  # type: ignore[arg-type]


def _rewrite(name: str, claim: str) -> Axiom:
    def run(method: Method, case: Case) -> None:
        pair = REWRITES[name](case.spec, case.rewrite_seed)
        checks.implementation_invariance(method, pair, case.inputs, case.target)

    def suitable(method: Method) -> st.SearchStrategy[Case]:
        return cases(
            rewritable_specs(name, spatial_dims=method.spatial_dims, channels=method.channels)
        )

    return Axiom(name, f"Implementation invariance: {claim}", run, suitable)


def _plain(
    check: Callable[[Method, nn.Module, nn.Module, Tensor, Tensor], None],
    claim: str,
    suitable: Callable[[Method], st.SearchStrategy[Case]] = _any_cases,
) -> Axiom:
    def run(method: Method, case: Case) -> None:
        network = SmallNetwork(case.spec)
        check(method, network, network.layer, case.inputs, case.target)

    return Axiom(check.__name__, claim, run, suitable)


def _dummy_unit(method: Method, case: Case) -> None:
    unit = case.rewrite_seed % case.spec.units
    network = SmallNetwork(case.spec)
    network.outgoing()[:, unit] = 0
    checks.zero_units(method, network, network.layer, case.inputs, case.target, unit)
    other = copy.deepcopy(network)
    redrawn = copy.deepcopy(network.convolution)
    draw_parameters(redrawn, generator(case.rewrite_seed))
    for parameter, new in zip(other.convolution.parameters(), redrawn.parameters(), strict=True):
        parameter.data[unit] = new.data[unit]
    checks.equal_attributions(
        method,
        (network, network.layer),
        (other, other.layer),
        case.inputs,
        case.target,
        f"the networks differ in unit {unit} only, which has no influence on the class scores",
    )


def _dummy_location(method: Method, case: Case) -> None:
    network = SmallNetwork(case.spec)
    outgoing = network.outgoing()
    location = case.rewrite_seed % outgoing.shape[2]
    outgoing[:, :, location] = 0
    shape = (case.spec.map_size,) * case.spec.spatial_dims
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(location), shape))
    checks.zero_location(method, network, network.layer, case.inputs, case.target, index)


def _flat_cases(method: Method) -> st.SearchStrategy[Case]:
    specs = network_specs(
        spatial_dims=method.spatial_dims, channels=method.channels, heads=("flat", "hidden")
    )
    return cases(specs.map(lambda spec: replace(spec, pooling="none")))


def _dummy_class(method: Method, case: Case) -> None:
    network = SmallNetwork(case.spec)
    network.last.weight.data[list(case.targets)] = 0
    checks.zero_class(method, network, network.layer, case.inputs, case.target)


class _UnitTerm(nn.Module):
    """``function`` of one unit's mean activation, times a factor for each class."""

    def __init__(
        self, unit: int, function: Callable[[Tensor], Tensor], spec: NetworkSpec, seed: int
    ) -> None:
        super().__init__()
        self.unit = unit
        self.function = function
        factors = torch.randn(spec.classes, generator=generator(seed), dtype=torch.float64)
        self.factors = 100 * factors

    def forward(self, features: Tensor) -> Tensor:
        term = self.function(features[:, self.unit].flatten(1).mean(1, keepdim=True))
        return term * self.factors


def _locality(method: Method, case: Case) -> None:
    network = SmallNetwork(case.spec)
    unit = case.rewrite_seed % case.spec.units
    activation = _mean_activation(network, case.inputs, unit)
    baseline = _mean_activation(network, torch.zeros_like(case.inputs), unit)
    assume(abs(activation - baseline) > 1e-6)
    # Close to the activation, so that methods that evaluate the network elsewhere cross it.
    threshold = activation + 0.05 * (baseline - activation)
    sign = 1.0 if baseline > activation else -1.0
    gated = copy.deepcopy(network)
    gated.branch = _UnitTerm(
        unit, lambda mean: (sign * (mean - threshold)).relu(), case.spec, case.rewrite_seed
    )
    checks.equal_attributions(
        method,
        (network, network.layer),
        (gated, gated.layer),
        case.inputs,
        case.target,
        "the networks have equal feature maps and agree on a neighbourhood of them",
    )


@torch.no_grad()
def _mean_activation(network: SmallNetwork, inputs: Tensor, unit: int) -> float:
    features: list[Tensor] = []
    hook = network.pooling.register_forward_hook(lambda _m, _i, output: features.append(output))
    network(inputs)
    hook.remove()
    return float(features[0][0, unit].mean())


def _sensitivity(kind: str, method: Method, case: Case) -> None:
    spec, inputs = case.spec, case.inputs
    network = SmallNetwork(spec)
    unit = case.rewrite_seed % spec.units
    others = [other for other in range(spec.units) if other != unit]
    network.convolution.weight.data[others] = 0
    outgoing = network.outgoing()
    where = {
        "pooled": "in a network that is affine after the mean over locations",
        "affine": "in a network that is affine after the layer",
        "saturated": "in a network that is saturated after the layer",
    }[kind]
    if kind == "affine":
        # Weights whose mean over locations is zero: an edge in the layer, not its average.
        locations = torch.randperm(outgoing.shape[2], generator=generator(case.rewrite_seed))[:2]
        weights = outgoing[:, unit, locations[0]].clone()
        outgoing[:, unit] = 0
        outgoing[:, unit, locations] = torch.stack([weights, -weights], 1)
    if kind == "saturated":
        outgoing.zero_()
        limit = _mean_activation(network, inputs, unit) / 2
        network.branch = _UnitTerm(
            unit,
            lambda mean: mean.clamp(max=limit) if limit > 0 else mean.clamp(min=limit),
            spec,
            case.rewrite_seed,
        )
    with torch.no_grad():
        difference = network(inputs) - network(torch.zeros_like(inputs))
    assume(bool((difference.gather(1, case.target[:, None]).abs() > 1e-6).all()))
    checks.sensitivity(method, network, network.layer, inputs, case.target, where)


def _sensitivity_cases(head: Head, method: Method) -> st.SearchStrategy[Case]:
    specs = one_unit_specs(spatial_dims=method.spatial_dims, channels=method.channels, head=head)
    return cases(specs, examples=(1, 1))


def _linearity(method: Method, case: Case) -> None:
    source = generator(case.rewrite_seed)
    first, second, both = (SmallNetwork(case.spec) for _ in range(3))
    draw_parameters(second.last, source)
    a, b = (4 * torch.rand(2, generator=source) - 2).tolist()
    with torch.no_grad():
        for combined, one, other in zip(
            both.last.parameters(), first.last.parameters(), second.last.parameters(), strict=True
        ):
            combined.copy_(a * one + b * other)
    checks.linearity(
        method,
        (first, second, both),
        (first.layer, second.layer, both.layer),
        (a, b),
        case.inputs,
        case.target,
    )


def _mode_free_cases(method: Method) -> st.SearchStrategy[Case]:
    """Networks that compute the same in training and eval mode."""
    return cases(
        network_specs(spatial_dims=method.spatial_dims, channels=method.channels, batch_norm=False)
    )


_ALL = (
    _rewrite("permuted_units", "units in another order"),
    _rewrite("dead_units", "units added that nothing reads"),
    _rewrite("rescaled_units", "units rescaled, and scaled back after the layer"),
    _rewrite("split_head", "the last linear map as a product of two"),
    _rewrite("inserted_identity", "identity layers inserted"),
    _rewrite("folded_batch_norm", "batch norm folded into the convolution"),
    _rewrite("dead_branch", "a second path added, times zero"),
    _rewrite("functional_form", "written with functions in place of modules"),
    _rewrite("permuted_classes", "classes in another order"),
    Axiom(
        "dummy_unit",
        "Sensitivity(b): a unit without influence gets zero and changes nothing",
        _dummy_unit,
        _any_cases,
    ),
    Axiom(
        "dummy_location",
        "Sensitivity(b): a location without influence gets zero",
        _dummy_location,
        _flat_cases,
    ),
    Axiom(
        "dummy_class",
        "Sensitivity(b): a constant class score is attributed zero",
        _dummy_class,
        _any_cases,
    ),
    Axiom(
        "locality",
        "attributions depend on the network near the input's feature maps only",
        _locality,
        partial(_any_cases, examples=(1, 1)),
    ),
    Axiom(
        "sensitivity_pooled",
        "Sensitivity(a) where the network is affine after the mean over locations",
        partial(_sensitivity, "pooled"),
        partial(_sensitivity_cases, "pooled"),
    ),
    Axiom(
        "sensitivity_affine",
        "Sensitivity(a) where the network is affine after the layer",
        partial(_sensitivity, "affine"),
        partial(_sensitivity_cases, "flat"),
    ),
    Axiom(
        "sensitivity_saturated",
        "Sensitivity(a) where the network is saturated",
        partial(_sensitivity, "saturated"),
        partial(_sensitivity_cases, "pooled"),
    ),
    Axiom("linearity", "attributions are linear in the head", _linearity, _any_cases),
    _plain(checks.determinism, "the same call gives the same bits"),
    _plain(
        checks.batch_invariance,
        "a batch gives what each of its examples gives",
        partial(_any_cases, examples=(2, 4)),
    ),
    _plain(checks.grad_mode_invariance, "the caller's grad mode and flags do not matter"),
    _plain(
        checks.training_flag_invariance, "training and eval flags do not matter", _mode_free_cases
    ),
    _plain(checks.leftover_gradient_invariance, "leftover .grad does not matter"),
    _plain(checks.model_unchanged, "the model is left unchanged"),
)

AXIOMS: dict[str, Axiom] = {axiom.name: axiom for axiom in _ALL}
"""All axioms by name, in the order of the tables."""
