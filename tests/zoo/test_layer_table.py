"""The tables in docs/reference/layers.md are made from the probe, with random weights.

``PYTHONPATH=tests/helpers python tests/zoo/test_layer_table.py`` writes them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from layer_tables import LayerTables
from model_families import FAMILIES, QUICK
from torch import Tensor, nn

from captum_advise import zoo
from captum_advise.layouts import Tokens

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "layers.md"
BEGIN, END = "<!-- {}: made by tests/zoo/test_layer_table.py -->", "<!-- end of {} -->"
HEADER = ("family", "network", "layer", "layout", "side", "what follows")


def row(package, family, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(f"{package}/{name}", weights="random")
    output, later, logits = run(network)
    layout = network.reshape_transform
    words = "NCHW" if layout is None else "NHWC"
    height, width = output.shape[2:4] if layout is None else output.shape[1:3]
    if isinstance(layout, Tokens):
        words = f"tokens, {layout.n_prefix} first"
        height, width = layout.size
    assert height == width
    cells = (f"`{name}`", f"`{network.layer_name}`", words, str(height))
    return (family, *cells, what_follows(output, layout, later, logits))


def run(network):
    """The layer's output, the modules without children called after it, and the logits."""
    outputs, later = [], []

    def called(module, _inputs, output):
        if module is network.layer:
            outputs.append(output)
            later.clear()
        elif not [*module.children()] and isinstance(output, Tensor):
            later.append((module, output))

    handles = [module.register_forward_hook(called) for module in network.model.modules()]
    size = network.transform(zoo.example_image()).shape
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in network.model.modules():
            # Some heads start from zero, and so would all gradients.
            if isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.data.normal_()
        logits = network.model(torch.rand(1, *size))
    for handle in handles:
        handle.remove()
    return outputs[-1], later, logits


def what_follows(output, layout, later, logits):
    """The next module, or that no later token but one leads to the prediction."""
    if isinstance(layout, Tokens):
        tokens = [value for _, value in later if value.shape == output.shape]
        gradients = torch.autograd.grad(logits.max(), tokens, allow_unused=True) if tokens else []
        patches = [layout(gradient) for gradient in gradients if gradient is not None]
        if patches and not patches[-1].any():
            others = (
                "only the class token is" if layout.n_prefix == 1 else "only the first tokens are"
            )
            return f"the last attention, after which {others} read"
        if patches:
            return "the last MLP, after which no patches are normalised"
    steps = [m for m, _ in later if not isinstance(m, nn.Identity | nn.Dropout)]
    step = steps[0]
    name = f"`{type(step).__name__}`"
    if isinstance(step, nn.Linear):
        channels = output.shape[1] if layout is None else output.shape[-1]
        of_mean = step.in_features == channels
        return f"a mean over positions, then {name}" if of_mean else f"{name} of all positions"
    return name


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
