"""The tables in docs/reference/layers-of-advise.md are made from the probe, with random weights.

``PYTHONPATH=tests/helpers python tests/zoo/test_advise_layer_table.py`` writes them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from model_families import FAMILIES, QUICK

from captum_advise import Advise, zoo
from captum_advise._utils.markdown import markdown_table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "layers-of-advise.md"
BEGIN = "<!-- {}: made by tests/zoo/test_advise_layer_table.py -->"
END = "<!-- end of {} -->"
HEADER = ("family", "network", "finer layer", "block", "last layer")


def row(package, family, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = zoo.load(f"{package}/{name}", weights="random")
    names = {module: key for key, module in network.model.named_modules()}
    layers = [f"`{names[layer]}`" for layer in network.layers]
    if layers:
        inputs = torch.rand(1, *network.transform(zoo.example_image()).shape)
        check_maps(network, inputs)
        sizes = map_sizes(network, inputs)
        layers = [f"{layer}, {size} x {size}" for layer, size in zip(layers, sizes, strict=True)]
    else:
        layers = ["none", f"`{network.layer_name}`"]
    finer, *block, last = layers
    return (family, f"`{name}`", finer, *(block or ["none"]), last)


def check_maps(network, inputs):
    torch.manual_seed(1)
    for module in network.model.modules():
        # Some heads start from zero, and so would all gradients.
        if isinstance(module, torch.nn.Linear) and not module.weight.any():
            module.weight.data.normal_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advise = Advise(network.model, network.layers, reshape_transform=network.reshape_transforms)
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


def table(package, names=None):
    families = {
        family: name for family, name in FAMILIES[package].items() if names is None or name in names
    }
    return markdown_table(HEADER, [row(package, *member) for member in families.items()])


def parts(page, package):
    begin, end = BEGIN.format(package), END.format(package)
    before, _, rest = page.partition(begin)
    written, _, after = rest.partition(end)
    return before, written.strip(), after


def written_rows(package):
    _, written, _ = parts(PAGE.read_text(encoding="utf-8"), package)
    return written.splitlines()


@pytest.mark.parametrize("package", FAMILIES)
def test_quick_rows(package):
    rows = table(package, QUICK).splitlines()
    assert len(rows) > 2
    assert set(rows) <= set(written_rows(package)), f"run `python {Path(__file__).name}`"


@pytest.mark.slow
@pytest.mark.parametrize("package", FAMILIES)
def test_the_tables_are_those_of_the_probe(package):
    assert table(package).splitlines() == written_rows(package)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    for package in FAMILIES:
        before, _, after = parts(page, package)
        begin, end = BEGIN.format(package), END.format(package)
        page = f"{before}{begin}\n\n{table(package)}\n\n{end}{after}"
    PAGE.write_text(page, encoding="utf-8")
