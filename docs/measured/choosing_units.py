"""The study of docs/explanation/choosing-units.md: rules that select units.

    python docs/measured/choosing_units.py labels.csv --layer conv_head > rows.csv

takes the images at odd places of a CSV file (file, class index) and prints one row per image and
rule. An image takes some 10 seconds of one thread. The committed rows have the layer names of an
older package: ``_conv_head`` is ``conv_head`` here, and ``_bn1`` is ``bn2.drop``.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from captum_advise import relevance, zoo
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.scoring import MapScorer, as_masks
from captum_advise._core.targets import resolve_target
from captum_advise._utils.probabilities import softmax_over_classes
from captum_advise.evaluation import image_dataset
from captum_advise.metrics import AVXProtocol
from captum_advise.metrics.insertion_deletion import blurred
from captum_advise.pixels import black

# Rules use the confidence at eighths of the pixels; the metrics "between" use odd sixteenths.
SEEN = [step / 8 for step in range(1, 8)]
BETWEEN = [(2 * step + 1) / 16 for step in range(8)]
HARD = {"all", "group", "cumulative", "all but one"}
COLUMNS = (
    "layer", "file", "rule", "avx", "average_drop",
    "insertion_seen", "deletion_seen", "insertion_between", "deletion_between",
    "insertion_into_black", "deletion_to_blurred", "weights",
)  # fmt: skip


def candidates(relevances: list[int]) -> Iterator[tuple[str, Tensor]]:
    """Kinds of candidates, and the weights of the groups, by relevance."""
    n = len(relevances)
    ones, single, index = torch.ones(n), torch.eye(n), torch.arange(n)
    yield "all", ones
    yield from (("group", single[k]) for k in range(n))
    for k in range(1, n):
        yield "cumulative", (index < k).float()
        yield "cumulative", (index >= k).float()
    yield from (("all but one", ones - single[k]) for k in range(n))
    if n <= 5:
        subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n).reshape(-1, n)
        yield from (("union", weights) for weights in subsets)
    for k in range(n):
        yield "soft", ones + single[k]
        yield "soft", ones - single[k] / 2


def curve(
    probability: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    masks: Tensor,
    shares: list[float],
) -> Tensor:
    """(M, S) confidence when a share of the pixels, most important first, has become ``end``."""
    n_pixels = masks[0].numel()
    order = masks.flatten(1).argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(n_pixels).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, positions).view_as(masks)
    rows = [
        torch.cat(
            [
                probability(torch.where(rank[None] < round(share * n_pixels), end, start))
                for share in shares
            ]
        )
        for rank in ranks
    ]
    return torch.stack(rows)


def area(inner: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Trapezoidal area under curves whose ends are the same for all."""
    ends = (value.expand(len(inner), 1) for value in (first, last))
    whole = torch.cat([next(ends), inner, next(ends)], 1)
    return torch.trapezoid(whole, dx=1 / (whole.shape[1] - 1))


def rows_of(network: zoo.Network, inputs: Tensor, label: int) -> Iterator[dict[str, object]]:
    """The rules' metrics for one image."""
    run = LayerCall(network.model, (network.layer,), (inputs,)).run()
    target = resolve_target(run.outputs, label)
    scorer = MapScorer(
        forward_func=network.model, inputs=(inputs,), outputs=run.outputs.detach(), target=target,
        baselines=(black(inputs, network.pixel_space),), pixel_space=network.pixel_space,
        confidence=softmax_over_classes, protocol=AVXProtocol(), internal_batch_size=8,
    )  # fmt: skip
    dark_image = black(inputs, network.pixel_space).expand_as(inputs)
    activations = run.feature_maps[0].detach()
    (gradients,) = run.gradients(target, keep_graph=True)
    (runner_up_gradients,) = run.gradients(scorer.runner_up())
    unit_relevance = relevance.unit_relevance(activations)[0]
    relevances = unit_relevance.unique().tolist()

    def groups(gradients: Tensor) -> Tensor:
        units = (gradients.mean((2, 3), keepdim=True) * activations)[0]
        return torch.stack([units[unit_relevance == value].sum(0) for value in relevances])

    maps, masks, runner_up_maps, kinds, weights = [], [], [], [], []
    of_target, of_runner_up = groups(gradients), groups(runner_up_gradients)
    for kind, weight in candidates(relevances):
        map_ = torch.tensordot(weight, of_target, 1)
        if not bool((map_ > 0).any()):
            continue
        mask = as_masks(map_[None, None], inputs.shape[-2:])
        same = [k for k, known in enumerate(masks) if torch.allclose(known, mask, atol=1e-4)]
        if same:
            kinds[same[0]].add(kind)
            continue
        maps.append(map_[None])
        masks.append(mask)
        runner_up_maps.append(torch.tensordot(weight, of_runner_up, 1)[None])
        kinds.append({kind})
        weights.append(weight.tolist())
    if "all" not in kinds[0]:
        return
    elementwise = (gradients * activations).sum(1)
    maps.append(elementwise)
    masks.append(as_masks(elementwise[None], inputs.shape[-2:]))
    runner_up_maps.append((runner_up_gradients * activations).sum(1))
    kinds.append({"elementwise"})
    weights.append([])

    metrics = scorer(
        torch.zeros(len(maps), dtype=torch.int64), torch.stack(maps), torch.stack(runner_up_maps)
    )
    masks = torch.cat(masks)[:, 0]
    avx = metrics.avx.tolist()

    @torch.no_grad()
    def probability(images: Tensor) -> Tensor:
        return network.model(images).softmax(1)[:, label]

    blur = blurred(inputs)
    low, high, dark = (probability(image) for image in (blur, inputs, dark_image))
    # A candidate that loses in AVX cannot win.
    eligible = [k for k, value in enumerate(avx) if value >= avx[0]]
    of_eligible = masks[eligible]
    insertion = area(curve(probability, blur, inputs, of_eligible, SEEN), low, high).tolist()
    deletion = area(curve(probability, inputs, dark_image, of_eligible, SEEN), high, dark).tolist()
    seen = dict(zip(eligible, zip(insertion, deletion, strict=True), strict=True))
    gains = {
        k: (avx[k] - avx[0], seen[k][0] - seen[0][0], seen[0][1] - seen[k][1]) for k in eligible
    }

    def best_avx(allowed: set[str]) -> int:
        return max((k for k in range(len(maps)) if kinds[k] & allowed), key=lambda k: avx[k])

    def dominating(allowed: set[str]) -> int:
        never_worse = [k for k in eligible if kinds[k] & allowed and min(gains[k]) >= -1e-7]
        return max(never_worse, key=lambda k: sum(gains[k]))

    rules = {
        "Grad-CAM": 0,
        "AVX, groups (paper)": best_avx({"group"}),
        "AVX, hard": best_avx(HARD),
        "AVX, soft": best_avx({"all", "soft"}),
        "dominating, hard": dominating(HARD),
        "dominating, unions": dominating(HARD | {"union"}),
        "dominating, soft": dominating(HARD | {"soft"}),
        "gradient x activation": len(maps) - 1,
    }
    for rule, k in rules.items():
        mask = masks[k : k + 1]
        into_black = curve(probability, dark_image, inputs, mask, SEEN)
        to_blurred = curve(probability, inputs, blur, mask, SEEN)
        deletion_between = curve(probability, inputs, dark_image, mask, BETWEEN)
        yield {
            "rule": rule,
            "avx": avx[k],
            "average_drop": float(metrics.average_drop[k]),
            "insertion_seen": seen[k][0] if k in seen else "",
            "deletion_seen": seen[k][1] if k in seen else "",
            "insertion_between": float(curve(probability, blur, inputs, mask, BETWEEN).mean()),
            "deletion_between": float(deletion_between.mean()),
            "insertion_into_black": float(area(into_black, dark, high)),
            "deletion_to_blurred": float(area(to_blurred, high, low)),
            "weights": " ".join(f"{value:g}" for value in weights[k]),
        }


def main() -> None:
    """Print the table of one layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--layer", default="conv_head")
    parser.add_argument("--limit", type=int, help="the largest number of images")
    arguments = parser.parse_args()
    network = zoo.load(arguments.model, layer=arguments.layer)
    dataset = image_dataset(arguments.data, network)
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    for index in range(1, len(dataset), 2)[: arguments.limit]:
        inputs, label = dataset[index]
        for row in rows_of(network, inputs[None], label):
            named = {"layer": arguments.layer, "file": dataset.names[index], **row}
            table.writerow(
                {key: f"{v:.5g}" if isinstance(v, float) else v for key, v in named.items()}
            )


if __name__ == "__main__":
    main()
