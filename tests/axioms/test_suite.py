"""The suite on ADVISE and on Captum's methods, for which the axioms are known to hold or not.

`python tests/axioms/test_suite.py` writes the tables of docs/reference/axioms.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from captum.attr import LayerGradCam
from markdown_table import markdown_table

from captum_advise.axioms import AXIOMS, REFERENCES, AxiomSuite, Subject

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "axioms.md"


class Reference(AxiomSuite):
    # A quarter of the profile's 25 examples.
    effort = 0.25


def suite(subject):
    name = "Test" + re.sub(r"\W+", "_", subject.name)
    return type(name, (Reference,), {"subject": subject})


globals().update({test.__name__: test for test in map(suite, REFERENCES)})


class TestAsInTheDocs(Reference):
    subject = Subject(
        "Grad-CAM",
        LayerGradCam,
        does_not_hold={
            "dummy_location": "the gradient is averaged over locations",
            "sensitivity_affine": "a mean gradient can vanish",
            "sensitivity_saturated": "gradients vanish where the network is saturated",
        },
    )


def tables():
    """Which axioms fail: a row per axiom, a column per subject; and what each claims."""
    fails = [
        [f"`{name}`", *("**no**" if name in one.does_not_hold else "" for one in REFERENCES)]
        for name in AXIOMS
    ]
    claims = [[f"`{axiom.name}`", axiom.claim] for axiom in AXIOMS.values()]
    return [
        markdown_table(["axiom", *(one.name for one in REFERENCES)], fails, centred=True),
        markdown_table(["axiom", "claim"], claims),
    ]


@pytest.mark.skipif(not DOCS.exists(), reason="the docs are not installed")
def test_the_tables_in_the_docs():
    for table in tables():
        assert table in DOCS.read_text()


if __name__ == "__main__":
    text = DOCS.read_text()
    for table in tables():
        heading = table.partition("\n")[0].partition(" LayerAdvise")[0]
        old = re.search(rf"^{re.escape(heading)}.*\n(\|.*\n)+", text, re.MULTILINE)
        text = text.replace(old[0].rstrip("\n"), table.rstrip("\n"))
    DOCS.write_text(text)
