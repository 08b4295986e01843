"""The tables in docs/reference/layers.md are made from the probe, with random weights.

``PYTHONPATH=tests/helpers:docs/measured python tests/zoo/test_layer_table.py`` writes them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from layer_tables import LayerTables
from model_families import FAMILIES, QUICK

from captum_advise import zoo
from captum_advise.layouts import Tokens

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "layers.md"
BEGIN, END = "<!-- {}: made by tests/zoo/test_layer_table.py -->", "<!-- end of {} -->"
HEADER = ("family", "network", "layer", "layout", "side")


def row(package, family, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(f"{package}/{name}", weights="random")
    output = output_of(network)
    layout = network.reshape_transform
    words = "NCHW" if layout is None else "NHWC"
    height, width = output.shape[2:4] if layout is None else output.shape[1:3]
    if isinstance(layout, Tokens):
        words = f"tokens, {layout.n_prefix} first"
        height, width = layout.size
    assert height == width
    return (family, f"`{name}`", f"`{network.layer_name}`", words, str(height))


def output_of(network):
    """What the layer returns."""
    outputs = []
    handle = network.layer.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    with torch.no_grad():
        network.model(torch.zeros(1, *network.transform(zoo.example_image()).shape))
    handle.remove()
    return outputs[-1]


TABLES = LayerTables(PAGE, (BEGIN, END), HEADER, row)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", FAMILIES)
def test_quick_rows(package):
    rows = TABLES.table(package, QUICK)
    assert len(rows) > 2
    assert set(rows) <= set(TABLES.written(package)), f"run `python {Path(__file__).name}`"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", FAMILIES)
def test_the_tables_are_those_of_the_probe(package):
    assert TABLES.table(package) == TABLES.written(package)


if __name__ == "__main__":
    TABLES.write()
