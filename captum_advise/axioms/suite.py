"""The search for counterexamples, a pytest class for any attribution, and what is known."""

from __future__ import annotations

from typing import Any, ClassVar

import hypothesis
import pytest
from captum.attr import LayerGradCam, LayerGradientXActivation, LayerIntegratedGradients
from hypothesis import HealthCheck, Phase, given
from hypothesis.errors import Flaky

from captum_advise.axioms.checks import AxiomViolation, Subject
from captum_advise.axioms.claims import AXIOMS, Axiom
from captum_advise.axioms.strategies import Case
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise
from captum_advise.relevance import ActivationRange


def require(axiom: Axiom, subject: Subject, *, effort: float = 1.0, shrink: bool = True) -> None:
    """Search for a counterexample, with the current Hypothesis profile.

    Args:
        axiom: One of :data:`AXIOMS`.
        subject: What to try.
        effort: Factor on the profile's number of examples.
        shrink: Whether to search for the simplest counterexample, which takes longer.

    Raises:
        AxiomViolation: There is one; the message shows it.

    Example::

        >>> require(AXIOMS["dummy_unit"], Subject("Grad-CAM", LayerGradCam))
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
    @given(axiom.cases(subject))
    def holds(case: Case) -> None:
        try:
            axiom.run(subject, case)
        except AxiomViolation as error:
            raise AxiomViolation(f"{error}\nCase: {case!r}") from error

    try:
        holds()
    except Flaky as error:
        raise AxiomViolation(
            f"{subject.name}: {axiom.name} fails on a case and later holds on the same case."
        ) from error


def violation(axiom: Axiom, subject: Subject, *, effort: float = 1.0) -> AxiomViolation | None:
    """A counterexample, if the search finds one.

    Args:
        axiom: One of :data:`AXIOMS`.
        subject: What to try.
        effort: Factor on the number of examples of the current Hypothesis profile.

    Returns:
        The error that shows the counterexample, or None.

    Example::

        >>> error = violation(AXIOMS["dummy_location"], Subject("Grad-CAM", LayerGradCam))
        >>> isinstance(error, AxiomViolation)
        True
    """
    try:
        require(axiom, subject, effort=effort, shrink=False)
    except AxiomViolation as error:
        return error
    return None


class AxiomSuite:
    """One test per axiom. Derive a class that names the attribution, and run pytest.

    The Hypothesis profile decides how many examples each axiom gets, and whether they are the same
    every time.

    Attributes:
        subject: The attribution. Tests of the axioms in its ``does_not_hold`` require a
            counterexample.
        effort: Factor on the profile's number of examples.

    Example::

        >>> class TestGradCam(AxiomSuite):
        ...     subject = Subject(
        ...         "Grad-CAM",
        ...         LayerGradCam,
        ...         does_not_hold={
        ...             "dummy_location": "the gradient is averaged over locations",
        ...             "sensitivity_affine": "a mean gradient can vanish",
        ...             "sensitivity_saturated": "gradients vanish where the network is saturated",
        ...         },
        ...     )
    """

    subject: ClassVar[Subject]
    effort: ClassVar[float] = 1.0

    @pytest.mark.parametrize("axiom", AXIOMS.values(), ids=AXIOMS)
    def test_axiom(self, axiom: Axiom) -> None:
        """The axiom holds, unless ``does_not_hold`` names it; then it does not.

        Raises:
            AxiomViolation: The axiom does not hold, and ``does_not_hold`` does not name it.
            ValueError: ``does_not_hold`` names an unknown axiom.
        """
        known = self.subject.does_not_hold
        unknown = set(known) - set(AXIOMS)
        if unknown:
            raise ValueError(f"does_not_hold names unknown axioms: {', '.join(sorted(unknown))}.")
        if axiom.name not in known:
            require(axiom, self.subject, effort=self.effort)
            return
        # The search stops at the first counterexample, so it may be long. Which examples come
        # first depends on the version of Hypothesis.
        if violation(axiom, self.subject, effort=max(4.0, self.effort)) is None:
            pytest.fail(
                f"There is no counterexample to {axiom.name} among the examples, although "
                f"does_not_hold names it ({known[axiom.name]})."
            )


_AVERAGED = "a unit's weight is its mean gradient over all locations, and applies to all of them"
_CANCELLED = "a mean gradient can be zero where the gradient is not"
_SATURATED = "the gradient is zero where the network is saturated"
_SCALE = "only activations in [0, 1] count, so rescaling a unit changes its relevance"
_SELECTED = "which group is selected depends on the head"
_MASKED_INPUTS = "the selection depends on the network's outputs for masked inputs"
_OTHER_RELEVANCE = "the unit that matters can have another relevance than the one asked for"
_ENLARGED = "evidence is averaged and enlarged, so that evidence spreads to its neighbours"
_STRETCHED = "maps are stretched to [0, 1], multiplied and added"
_POSITIVE = "only positive evidence counts"


def _layer_advise(selection: str | int, activation_range: ActivationRange) -> Subject:
    # AVX needs images.
    images: dict[str, Any] = {"spatial_dims": (2,), "channels": (1, 3)}
    reasons = {
        "rescaled_units": _SCALE,
        "dummy_location": _AVERAGED,
        "locality": _MASKED_INPUTS,
        "sensitivity_pooled": _OTHER_RELEVANCE,
        "sensitivity_affine": _CANCELLED,
        "sensitivity_saturated": _SATURATED,
        "linearity": _SELECTED,
    }
    holding = ["locality", "linearity"] if isinstance(selection, int) else ["sensitivity_pooled"]
    if activation_range == "minmax":
        holding.append("rescaled_units")
    return Subject(
        f"LayerAdvise {selection}, {'minmax' if activation_range == 'minmax' else '(0, 1)'}",
        LayerAdvise,
        {"unit_selection": selection, "activation_range": activation_range},
        does_not_hold={name: why for name, why in reasons.items() if name not in holding},
        **(images if selection == "avx" else {}),
    )


_AS_GRAD_CAM = {
    "dummy_location": _AVERAGED,
    "sensitivity_affine": _CANCELLED,
    "sensitivity_saturated": _SATURATED,
}
_RANGES: tuple[ActivationRange, ...] = ((0.0, 1.0), "minmax")

REFERENCES: tuple[Subject, ...] = (
    *(
        _layer_advise(selection, activation_range)
        for selection in ("avx", "average_drop", 1)
        for activation_range in _RANGES
    ),
    Subject(
        "GatedGradCam, stem and layer",
        lambda model, layer: GatedGradCam(model, [model.stem, layer]),
        spatial_dims=(2,),
        does_not_hold={
            "dummy_location": _ENLARGED,
            "sensitivity_pooled": _POSITIVE,
            "sensitivity_affine": _CANCELLED,
            "sensitivity_saturated": _SATURATED,
            "linearity": _STRETCHED,
        },
    ),
    Subject("LayerAdvise None", LayerAdvise, {"unit_selection": None}, does_not_hold=_AS_GRAD_CAM),
    Subject("LayerGradCam", LayerGradCam, does_not_hold=_AS_GRAD_CAM),
    Subject(
        "LayerGradientXActivation",
        LayerGradientXActivation,
        does_not_hold={"sensitivity_saturated": _SATURATED},
    ),
    Subject(
        "LayerIntegratedGradients",
        LayerIntegratedGradients,
        {"n_steps": 8},
        does_not_hold={"locality": "gradients are taken along the path from a baseline"},
    ),
)
"""Attributions whose axioms are known: LayerAdvise in every selection, and related ones."""
