"""``captum-advise axioms``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from captum_advise import axioms as library
from captum_advise._utils.errors import reason, require_known
from captum_advise.cli.console import progress, show, show_message
from captum_advise.cli.networks import named_object, where

EXAMPLES = """\b
Examples:
  captum-advise axioms captum.attr:LayerGradCam
  captum-advise axioms captum_advise:LayerAdvise --argument unit_selection=1 \\
    --argument activation_range=minmax --axiom rescaled_units
"""


def axioms(
    method: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A layer attribution, or a function (model, layer) that makes one.",
        ),
    ],
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help="Argument of the method's attribute; may be repeated."
        ),
    ] = None,
    axiom: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this axiom; may be repeated.")
    ] = None,
    spatial_dims: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=3, help="Number of spatial dimensions that it takes; may be repeated."
        ),
    ] = None,
    channels: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of channels that it takes; may be repeated."),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Examples per axiom.")] = 25,
) -> int:
    """Search for counterexamples to the axioms of attribution.

    An axiom holds here if no example contradicts it. The examples are the same every time. Ends
    with status 1 if an axiom does not hold.
    """
    known = library.AXIOMS  # which names the extra where a package is missing
    for one in axiom or ():
        require_known("axiom", one, known)
    source, separator, name = method.rpartition(":")
    if not separator:
        raise ValueError(
            f"{method!r} names no method: give MODULE:NAME, as in captum.attr:LayerGradCam."
        )
    arguments = dict(_argument(text) for text in argument or ())
    every = (1, 2, 3)
    dims, numbers = tuple(spatial_dims or every), tuple(channels or every)
    subject = library.Subject(method, named_object(source, name), arguments, dims, numbers)

    import hypothesis

    hypothesis.settings.register_profile(
        "captum-advise", derandomize=True, max_examples=examples, deadline=None
    )
    hypothesis.settings.load_profile("captum-advise")
    tried = axiom or list(known)
    table = Table("axiom", "holds", "claim")
    failed = 0
    for one in progress(tried, "axioms"):
        try:
            counterexample = library.violation(known[one], subject)
        except TypeError as error:  # of users' methods
            raise ValueError(
                f"{method} cannot be tried ({reason(error)}): give a layer attribution, or a "
                "function (model, layer) that makes one."
            ) from error
        except Exception as error:
            raise ValueError(
                f"{method} fails on {one}: {where(error)}; --spatial-dims and --channels say which "
                "inputs it takes."
            ) from error
        table.add_row(one, "no" if counterexample else "yes", known[one].claim)
        if counterexample:
            failed += 1
            show_message(f"{one}: {counterexample}\n")
    show(table)
    show(f"{method} fulfils {len(tried) - failed} of {len(tried)} axioms.")
    return 1 if failed else 0


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--argument takes NAME=JSON, as in n_steps=8, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a bare word is text
