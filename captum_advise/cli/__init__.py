"""The command line: ``captum-advise`` and ``python -m captum_advise``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from captum_advise.cli.process import begin_imports

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the arguments after the program's name, or those of the process.

    Returns:
        Exit status: 0 on success; 1 if an image failed or an axiom does not hold; 2 if the command
        could not run; 130 if the user stopped it.
    """
    if arguments is None:
        begin_imports()  # the process is ours
    try:
        # Here, because Ctrl+C and a missing package end an import as well.
        from captum_advise._utils.optional_dependencies import import_optional

        for package in ("rich", "typer"):
            import_optional(package, "demo")
        from captum_advise.cli.commands import run
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return run(arguments)
