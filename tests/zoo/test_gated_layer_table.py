"""The tables in docs/reference/layers-of-gated-grad-cam.md come from the probe.

``PYTHONPATH=tests/helpers:docs/measured python tests/zoo/test_gated_layer_table.py`` writes them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from layer_tables import LayerTables
from model_families import FAMILIES, QUICK

from captum_advise import GatedGradCam, zoo

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "layers-of-gated-grad-cam.md"
BEGIN = "<!-- {}: made by tests/zoo/test_gated_layer_table.py -->"
END = "<!-- end of {} -->"
HEADER = ("network", "finer layer", "block")


def row(package, _family, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(f"{package}/{name}", weights="random")
    names = {module: key for key, module in network.model.named_modules()}
    layers = [f"`{names[layer]}`" for layer in network.layers]
    if layers:
        inputs = torch.rand(1, *network.transform(zoo.example_image()).shape)
        check_maps(network, inputs)
        sizes = map_sizes(network, inputs)
        layers = [f"{layer}, {size}" for layer, size in zip(layers, sizes, strict=True)]
        assert layers[-1].startswith(f"`{network.layer_name}`")
    finer, *block = layers[:-1] or ["none"]
    return (f"`{name}`", finer, *(block or ["none"]))


def check_maps(network, inputs):
    torch.manual_seed(1)
    for module in network.model.modules():
        # Some heads start from zero, and so would all gradients.
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            module.weight.data.normal_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advise = GatedGradCam(
            network.model, network.layers, reshape_transform=network.reshape_transforms
        )
        maps = advise.attribute(inputs)
    assert maps.shape == (1, 1, *inputs.shape[2:])
    assert maps.isfinite().all()
    assert (maps >= 0).all()


def map_sizes(network, inputs):
    sizes = {}
    handles = [
        layer.register_forward_hook(
            lambda module, _inputs, output, transform=transform: sizes.update(
                {module: (output if transform is None else transform(output)).shape[2]}
            )
        )
        for layer, transform in zip(network.layers, network.reshape_transforms, strict=True)
    ]
    with torch.no_grad():
        network.model(inputs)
    for handle in handles:
        handle.remove()
    return [sizes[layer] for layer in network.layers]


TABLES = LayerTables(PAGE, (BEGIN, END), HEADER, row)


@pytest.mark.parametrize("package", FAMILIES)
def test_quick_rows(package):
    rows = TABLES.table(package, QUICK)
    assert len(rows) > 2
    assert set(rows) <= set(TABLES.written(package)), f"run `python {Path(__file__).name}`"


@pytest.mark.slow
@pytest.mark.parametrize("package", FAMILIES)
def test_the_tables_are_those_of_the_probe(package):
    assert TABLES.table(package) == TABLES.written(package)


if __name__ == "__main__":
    TABLES.write()
