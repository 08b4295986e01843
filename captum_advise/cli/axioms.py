"""``captum-advise axioms``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from captum_advise import axioms as library
from captum_advise._utils.errors import first_line
from captum_advise.cli.console import progress, show, show_message
from captum_advise.cli.networks import named_object

EXAMPLES = """\b
Examples:
  captum-advise axioms captum.attr:LayerGradCam
  captum-advise axioms captum_advise:LayerAdvise --argument unit_selection=1 \\
    --argument activation_range=minmax --axiom rescaled_units
  captum-advise axioms --markdown
"""


def axioms(
    method: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A layer attribution, or a function (model, layer) that makes one. Without it, "
            "ADVISE and Captum's methods, as in the documentation.",
        ),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help="Argument of the method's attribute; may be repeated."
        ),
    ] = None,
    axiom: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this axiom; may be repeated."),
    ] = None,
    spatial_dims: Annotated[
        str, typer.Option(help="Numbers of spatial dimensions that the method takes.")
    ] = "1,2,3",
    channels: Annotated[
        str, typer.Option(help="Numbers of channels that the method takes.")
    ] = "1,2,3",
    examples: Annotated[int, typer.Option(min=1, help="Examples per axiom.")] = 25,
    markdown: Annotated[bool, typer.Option(help="Print the table as Markdown.")] = False,
) -> int:
    """Search for counterexamples to the axioms of attribution.

    The examples are the same every time. Ends with status 1 if the given method fails an axiom, or
    if a known method differs from what is known of it.
    """
    known = library.AXIOMS  # which names the extra where a package is missing
    unknown = set(axiom or ()) - set(known)
    if unknown:
        raise ValueError(f"There is no axiom {sorted(unknown)[0]!r}; they are {', '.join(known)}.")
    tried = [known[name] for name in axiom or known]
    subjects = library.REFERENCES
    if method is not None:
        arguments = dict(_argument(text) for text in argument or ())
        dims, numbers = _numbers(spatial_dims, most=3), _numbers(channels)
        source, separator, name = method.rpartition(":")
        if not separator:
            raise ValueError(
                f"{method!r} names no method: give MODULE:NAME, as in captum.attr:LayerGradCam."
            )
        made = named_object(source, name)
        subjects = (library.Subject(method, made, arguments, dims, numbers),)
    elif argument:
        raise ValueError("--argument needs a method: name one, as in captum.attr:LayerGradCam.")
    holds: dict[str, dict[str, bool]] = {subject.name: {} for subject in subjects}
    surprises = 0
    jobs = [(subject, one) for subject in subjects for one in tried]
    for subject, one in progress(jobs, "axioms"):
        try:
            with _examples(examples):
                effort = 4.0 if one.name in subject.does_not_hold else 1.0
                counterexample = library.violation(one, subject, effort=effort)
        except TypeError as error:  # of users' methods
            raise ValueError(first_line(error)) from error
        holds[subject.name][one.name] = counterexample is None
        if (counterexample is None) == (one.name in subject.does_not_hold):
            surprises += 1
            text = counterexample or "no counterexample, though one is known"
            show_message(f"{one.name}: {text}\n")
    if markdown:
        from captum_advise.axioms.suite import axiom_table

        typer.echo(axiom_table(holds))
        return 1 if surprises else 0
    table = Table("axiom", *map(escape, holds))
    for one in tried:
        table.add_row(one.name, *("yes" if column[one.name] else "no" for column in holds.values()))
    show(table)
    if method is not None:
        show(f"{method} fulfils {len(tried) - surprises} of {len(tried)} axioms.")
    return 1 if surprises else 0


@contextmanager
def _examples(number: int) -> Iterator[None]:
    """The same number of examples, and the same examples, whatever profile is in force."""
    import hypothesis

    before = hypothesis.settings.get_current_profile_name()
    hypothesis.settings.register_profile(
        "captum-advise", derandomize=True, max_examples=number, deadline=None
    )
    hypothesis.settings.load_profile("captum-advise")
    try:
        yield
    finally:
        hypothesis.settings.load_profile(before)


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--argument takes NAME=JSON, as in n_steps=8, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a bare word is text


def _numbers(text: str, *, most: int | None = None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"Give numbers separated by commas, as in 1,2, got {text!r}.") from None
    if min(numbers) < 1 or (most is not None and max(numbers) > most):
        bounds = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"Give numbers {bounds}, as in 1,2, got {text!r}.")
    return numbers
