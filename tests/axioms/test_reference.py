"""The suite on ADVISE and on Captum's methods, for which the axioms are known to hold or not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from captum.attr import LayerGradCam

from captum_advise.axioms import REFERENCES, AxiomSuite
from captum_advise.axioms.reference import known_table

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "axioms.md"


class Reference(AxiomSuite):
    # A quarter of the profile's 25 examples.
    effort = 0.25


def suite(reference):
    method = reference.method
    return type(
        "Test" + re.sub(r"\W+", "_", method.name),
        (Reference,),
        {
            "attribution": staticmethod(method.attribution),
            "arguments": method.arguments,
            "spatial_dims": method.spatial_dims,
            "channels": method.channels,
            "does_not_hold": reference.does_not_hold,
        },
    )


globals().update({test.__name__: test for test in map(suite, REFERENCES)})


class TestAsInTheDocs(Reference):
    attribution = LayerGradCam
    does_not_hold = {
        "dummy_location": "the gradient is averaged over locations",
        "sensitivity_affine": "a mean gradient can vanish",
        "sensitivity_saturated": "gradients vanish where the network is saturated",
    }


@pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")
def test_the_table_in_the_docs_is_what_the_suite_requires():
    assert known_table() in DOCS.read_text()
