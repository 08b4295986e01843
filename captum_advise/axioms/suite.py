"""The axioms as a pytest class for any layer attribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from captum_advise.axioms.method import Factory, Method
from captum_advise.axioms.registry import AXIOMS, Axiom, require, violation


class AxiomSuite:
    """One test per axiom. Derive a class that names the method, and run pytest.

    The Hypothesis profile decides how many examples each axiom gets, and whether they are the same
    every time.

    Attributes:
        attribution: Factory ``(model, layer) -> LayerAttribution``, or the class itself.
        arguments: Further keyword arguments of ``attribute``.
        spatial_dims: The numbers of spatial dimensions that inputs may have: 1, 2 or 3.
        channels: The numbers of channels that inputs may have.
        does_not_hold: Axioms that the method does not fulfil, each with the reason. Their tests
            require a counterexample.
        effort: Factor on the profile's number of examples.

    Example::

        >>> class TestGradCam(AxiomSuite):
        ...     attribution = LayerGradCam
        ...     does_not_hold = {
        ...         "dummy_location": "the gradient is averaged over locations",
        ...         "sensitivity_affine": "a mean gradient can vanish",
        ...         "sensitivity_saturated": "gradients vanish where the network is saturated",
        ...     }
    """

    attribution: ClassVar[Factory]
    arguments: ClassVar[Mapping[str, Any]] = {}
    spatial_dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    channels: ClassVar[tuple[int, ...]] = (1, 2, 3)
    does_not_hold: ClassVar[Mapping[str, str]] = {}
    effort: ClassVar[float] = 1.0

    @classmethod
    def method(cls) -> Method:
        """The method that the class attributes describe."""
        return Method(
            name=cls.__name__.removeprefix("Test"),
            attribution=cls.attribution,
            arguments=cls.arguments,
            spatial_dims=cls.spatial_dims,
            channels=cls.channels,
        )

    @pytest.mark.parametrize("axiom", AXIOMS.values(), ids=AXIOMS)
    def test_axiom(self, axiom: Axiom) -> None:
        """The axiom holds, unless ``does_not_hold`` names it; then it does not.

        Raises:
            AxiomViolation: The axiom does not hold, and ``does_not_hold`` does not name it.
            ValueError: ``does_not_hold`` names an unknown axiom.
        """
        unknown = set(self.does_not_hold) - set(AXIOMS)
        if unknown:
            raise ValueError(f"does_not_hold names unknown axioms: {', '.join(sorted(unknown))}.")
        if axiom.name not in self.does_not_hold:
            require(axiom, self.method(), effort=self.effort)
            return
        # The search stops at the first counterexample, so it may be long. Which examples come
        # first depends on the version of Hypothesis.
        if violation(axiom, self.method(), effort=max(4.0, self.effort)) is None:
            pytest.fail(
                f"There is no counterexample to {axiom.name} among the examples, although "
                f"does_not_hold names it ({self.does_not_hold[axiom.name]})."
            )
