"""The table of commands, and how their errors are shown.

The modules of commands declare options, and import what they need when they run: help and
completion must not wait for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._version import __version__
from captum_advise.cli import app as page
from captum_advise.cli import axioms, evaluate, explain, layers, sanity
from captum_advise.cli.console import show_error, warnings_in_one_line

app = typer.Typer(
    name="captum-advise",
    help="See which part of an image a network based its prediction on, and test such maps.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(epilog=explain.EXAMPLES)(explain.explain)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=sanity.EXAMPLES)(sanity.sanity)
app.command(epilog=axioms.EXAMPLES)(axioms.axioms)
app.command(epilog=layers.EXAMPLES)(layers.layers)
app.command("app", epilog=page.EXAMPLES)(page.serve)


def run(arguments: Sequence[str] | None) -> int:
    """As :func:`captum_advise.cli.main`."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold letters that the terminal cannot show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with warnings_in_one_line():
        try:
            status = app(arguments, prog_name="captum-advise", standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except USER_ERRORS as error:
            show_error(first_line(error))
            return 2
        except Exception as error:
            # The base class of usage errors moved when typer stopped depending on click.
            if hasattr(error, "format_message"):
                message = error.format_message().rstrip(".")
                show_error(message if message.endswith("?") else f"{message}.")
                return 2
            raise
    return status or 0


@app.callback(
    invoke_without_command=True,
    # \b keeps the lines as they are.
    epilog="""\b
Examples:
  captum-advise explain dog.jpg
  captum-advise evaluate --data photos --output report
  captum-advise explain --help
  captum-advise --install-completion
""",
)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"captum-advise {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
