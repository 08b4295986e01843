"""The axioms as a pytest class, to be pointed at any layer attribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from captum_advise.axioms.method import Factory, Method
from captum_advise.axioms.registry import AXIOMS, Axiom, require, violation


class AxiomSuite:
    """One test per axiom. Derive a class, name the method, and pytest does the rest.

    How many examples each axiom gets, and whether they are the same every time, is the Hypothesis
    profile's matter.

    Attributes:
        attribution: Factory ``(model, layer) -> LayerAttribution``, or the class itself.
        arguments: Further keyword arguments of ``attribute``.
        spatial_dims: Which inputs the method takes: 1, 2 or 3 spatial dimensions.
        channels: Which numbers of input channels it takes.
        does_not_hold: Axioms that the method does not fulfil, with the reason. Their tests
            require that a counterexample is found.
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
        """What the class attributes describe."""
        return Method(
            name=cls.__name__.removeprefix("Test"),
            attribution=cls.attribution,
            arguments=cls.arguments,
            spatial_dims=cls.spatial_dims,
            channels=cls.channels,
        )

    @pytest.mark.parametrize("axiom", AXIOMS.values(), ids=AXIOMS)
    def test_axiom(self, axiom: Axiom) -> None:
        """The axiom holds, or is known not to and does not.

        Raises:
            AxiomViolation: It does not hold, and was not known not to.
            ValueError: ``does_not_hold`` names no axiom.
        """
        unknown = set(self.does_not_hold) - set(AXIOMS)
        if unknown:
            raise ValueError(f"does_not_hold names no axioms: {', '.join(sorted(unknown))}.")
        if axiom.name not in self.does_not_hold:
            require(axiom, self.method(), effort=self.effort)
            return
        # A search ends at the first counterexample, so it can afford to be long; which examples
        # come first differs from version to version of Hypothesis.
        if violation(axiom, self.method(), effort=max(4.0, self.effort)) is None:
            pytest.fail(
                f"No counterexample to {axiom.name} was found, although does_not_hold says: "
                f"{self.does_not_hold[axiom.name]}"
            )
