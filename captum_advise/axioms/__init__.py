"""Axioms of attribution as a reusable property-test suite.

Derive a test class from :class:`AxiomSuite` for a layer attribution, or name the attribution on
the command line::

    captum-advise axioms captum.attr:LayerGradCam
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_advise.axioms.equivalence import REWRITES, EquivalentPair
    from captum_advise.axioms.method import AxiomViolation, Method
    from captum_advise.axioms.networks import NetworkSpec, SmallNetwork
    from captum_advise.axioms.reference import REFERENCES, Reference
    from captum_advise.axioms.registry import AXIOMS, Axiom, require, violation
    from captum_advise.axioms.strategies import Case, cases, equivalent_pairs, network_specs
    from captum_advise.axioms.suite import AxiomSuite

__all__ = [
    "AXIOMS",
    "REFERENCES",
    "REWRITES",
    "Axiom",
    "AxiomSuite",
    "AxiomViolation",
    "Case",
    "EquivalentPair",
    "Method",
    "NetworkSpec",
    "Reference",
    "SmallNetwork",
    "cases",
    "equivalent_pairs",
    "network_specs",
    "require",
    "violation",
]

_EXPORTS = {
    "equivalence": ("REWRITES", "EquivalentPair"),
    "method": ("AxiomViolation", "Method"),
    "networks": ("NetworkSpec", "SmallNetwork"),
    "reference": ("REFERENCES", "Reference"),
    "registry": ("AXIOMS", "Axiom", "require", "violation"),
    "strategies": ("Case", "cases", "equivalent_pairs", "network_specs"),
    "suite": ("AxiomSuite",),
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
