"""``captum-advise layers``."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from captum_advise.cli import options
from captum_advise.cli.console import show
from captum_advise.cli.networks import load_network

EXAMPLES = """\b
Examples:
  captum-advise layers
  captum-advise layers --model resnet50
  captum-advise layers --model my_models.py:make_classifier
"""


def layers(model: options.Model = "efficientnet-lite0") -> int:
    """List the layers of a network that can be explained, in the order in which they run.

    Shows each layer's name, for --layer, its class, and its output: units, height and width. Marks
    the layer that is explained by default, and those that GatedGradCam combines. Nothing is
    downloaded: networks of the zoo have random weights here.
    """
    from captum_advise.zoo.layer_probe import feature_layers

    network = load_network(model, weights="default" if ":" in model else "random")
    table = Table("layer", "class", "output", "taken by")
    for found in feature_layers(network):
        taken = ["default"] * (found.name == network.layer_name)
        taken += ["GatedGradCam"] * (found.name in network.layer_names)
        table.add_row(
            escape(found.name),
            type(found.module).__name__,
            " x ".join(map(str, found.shape)),
            ", ".join(taken),
        )
    show(table)
    return 0
