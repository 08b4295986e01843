"""The suite on ADVISE and on Captum's methods, for which the axioms are known to hold or not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from captum.attr import LayerGradCam

from captum_advise._utils.markdown import markdown_table
from captum_advise.axioms import AXIOMS, REFERENCES, AxiomSuite
from captum_advise.axioms.suite import axiom_table

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "axioms.md"


class Reference(AxiomSuite):
    # A quarter of the profile's 25 examples.
    effort = 0.25


def suite(subject):
    return type(
        "Test" + re.sub(r"\W+", "_", subject.name),
        (Reference,),
        {
            "attribution": staticmethod(subject.attribution),
            "arguments": subject.arguments,
            "spatial_dims": subject.spatial_dims,
            "channels": subject.channels,
            "does_not_hold": subject.does_not_hold,
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
    known = {
        subject.name: {name: name not in subject.does_not_hold for name in AXIOMS}
        for subject in REFERENCES
    }
    assert axiom_table(known) in DOCS.read_text()


@pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")
def test_the_claims_in_the_docs_are_those_of_the_axioms():
    claims = [[f"`{axiom.name}`", axiom.claim] for axiom in AXIOMS.values()]
    assert markdown_table(["axiom", "claim"], claims) in DOCS.read_text()
