"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_advise import zoo

Model = Annotated[
    str,
    typer.Option(
        help=f"The network: {', '.join(zoo.list_networks())}, torchvision/NAME or timm/NAME; or "
        "your own, PACKAGE.MODULE:NAME or FILE.py:NAME, where NAME is a function without arguments "
        "that returns it.",
        autocompletion=lambda: list(zoo.list_networks()),
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The layer, by its dotted module name; captum-advise layers lists them.",
        show_default="the network's own",
    ),
]
Weights = Annotated[
    str, typer.Option(metavar="[default|random]", help="Pretrained weights, or random ones.")
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        help="The class to explain: its index, its name, or words of its name.",
        show_default="the predicted class",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",  # typer 0.27 takes the metavar for the name and drops the option
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps, ...; auto is a GPU if there is one, and under torchrun "
        "one per process.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")
]
