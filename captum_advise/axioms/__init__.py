"""Axioms of attribution as a reusable property-test suite.

Derive a test class from :class:`AxiomSuite` for an attribution, or name the attribution on the
command line::

    captum-advise axioms captum.attr:LayerGradCam
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_advise.axioms.checks import AxiomViolation, Subject
    from captum_advise.axioms.claims import AXIOMS, Axiom
    from captum_advise.axioms.networks import NetworkSpec, SmallNetwork
    from captum_advise.axioms.rewrites import REWRITES, EquivalentPair, Rewrite
    from captum_advise.axioms.strategies import Case, cases, equivalent_pairs, network_specs
    from captum_advise.axioms.suite import REFERENCES, AxiomSuite, require, violation

__all__ = [
    "AXIOMS",
    "REFERENCES",
    "REWRITES",
    "Axiom",
    "AxiomSuite",
    "AxiomViolation",
    "Case",
    "EquivalentPair",
    "NetworkSpec",
    "Rewrite",
    "SmallNetwork",
    "Subject",
    "cases",
    "equivalent_pairs",
    "network_specs",
    "require",
    "violation",
]

_EXPORTS = {
    "checks": ("AxiomViolation", "Subject"),
    "claims": ("AXIOMS", "Axiom"),
    "networks": ("NetworkSpec", "SmallNetwork"),
    "rewrites": ("REWRITES", "EquivalentPair", "Rewrite"),
    "strategies": ("Case", "cases", "equivalent_pairs", "network_specs"),
    "suite": ("REFERENCES", "AxiomSuite", "require", "violation"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # Each module needs other packages of the extra; the command line must start without any.
    for module, names in _EXPORTS.items():
        if name in names:
            try:
                return getattr(importlib.import_module(f"{__name__}.{module}"), name)
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"captum_advise.axioms needs the package {error.name}: "
                    'pip install "captum-advise[axioms]".',
                    name=error.name,
                ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
