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
    """List the layers of a network that can be explained.

    In the order in which they run: name, for --layer; class; output, units x height x width. The
    last column marks the layer that is explained without --layer, by default, and those that
    GatedGradCam combines. Nothing is downloaded: networks of the zoo have random weights here.
    """
    from captum_advise.zoo.layer_probe import feature_layers
    from captum_advise.zoo.recognition import unwrapped

    network = load_network(model, weights="default" if ":" in model else "random")
    table = Table("layer", "class", "output", "explained")
    for name, shape in feature_layers(network).items():
        module = unwrapped(network.model).get_submodule(name)
        taken = ["by default"] * (name == network.layer_name)
        taken += ["by GatedGradCam"] * (name in network.layer_names)
        cells = type(module).__name__, " x ".join(map(str, shape)), ", ".join(taken)
        table.add_row(escape(name), *cells)
    show(table)
    return 0
