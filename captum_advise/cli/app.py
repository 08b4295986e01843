"""``captum-advise app``."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated, Any

import typer

from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.cli import options
from captum_advise.cli.console import show, show_message
from captum_advise.cli.networks import load_network

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# \b keeps the lines as they are.
EXAMPLES = """\b
Examples:
  captum-advise app
  captum-advise app --port 8000 --model resnet50
"""


def serve(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. The default is reached from this machine only.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.", min=1, max=65535)] = 7860,
    model: options.Model = "efficientnet-lite0",
    weights: options.Weights = "default",
    device: options.Device = "cpu",
) -> int:
    """Explain images on a page in the browser.

    The page takes image files and examples, and lets you choose the layer and the selection of
    units. Images stay on this machine, and are deleted when the command ends.
    """
    from captum_advise.cli.app_uploads import upload_folder

    for name in ("SIGTERM", "SIGHUP"):
        # Else the process ends at once, and the images stay.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    with upload_folder() as folder:
        # Gradio reads them when it is imported.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "GRADIO_TEMP_DIR": str(folder),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        import_optional("gradio", "app")
        from captum_advise.cli import app_page

        # A model that cannot be loaded is an error of the command, not of the page.
        page = app_page.build(load_network(model, weights=weights, device=device))
        app_page.start(page, host, port, folder)
        if host not in _LOOPBACK:
            show_message(f"warning: everyone who reaches {host} can use the page.")
        show(f"http://{app_page.in_address(host)}:{port} (Ctrl+C stops it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 130
        finally:
            page.close(verbose=False)
    return 0


def _end(number: int, _frame: Any) -> None:
    raise SystemExit(128 + number)
