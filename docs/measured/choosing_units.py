"""The study of docs/choosing-units.md: rules that choose units, measured on held-out pictures.

    python docs/measured/choosing_units.py labels.csv --layer _conv_head > rows.csv

takes the pictures at odd places of a CSV (file, class index) and prints one row per picture and
rule, some 10 seconds of one thread each.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from captum_advise import relevance, zoo
from captum_advise.class_scores import resolve_target
from captum_advise.evaluation.data import pictures
from captum_advise.evaluation.scoring import as_mask
from captum_advise.forward_pass import run_layer
from captum_advise.map_scoring import MapScorer, masked_baselines
from captum_advise.metrics import Protocol, blurred

# A choice sees the confidence at eighths of the pixels, the measures "between" at odd sixteenths.
SEEN = [step / 8 for step in range(1, 8)]
BETWEEN = [(2 * step + 1) / 16 for step in range(8)]
HARD = {"all", "group", "cumulative", "all but one"}
COLUMNS = (
    "layer", "file", "rule", "avx", "average_drop",
    "insertion_seen", "deletion_seen", "insertion_between", "deletion_between",
    "insertion_into_black", "deletion_to_blurred", "weights",
)  # fmt: skip


def candidates(scores: list[int]) -> Iterator[tuple[str, Tensor]]:
    """Kinds and weights of the groups, by relevance score."""
    n = len(scores)
    one, only, place = torch.ones(n), torch.eye(n), torch.arange(n)
    yield "all", one
    yield from (("group", only[k]) for k in range(n))
    for k in range(1, n):
        yield "cumulative", (place < k).float()
        yield "cumulative", (place >= k).float()
    yield from (("all but one", one - only[k]) for k in range(n))
    if n <= 5:
        subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n).reshape(-1, n)
        yield from (("union", weights) for weights in subsets)
    for k in range(n):
        yield "soft", one + only[k]
        yield "soft", one - only[k] / 2


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
    places = torch.arange(n_pixels).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places).view_as(masks)
    rows = [
        torch.cat(
            [
                probability(torch.where(one[None] < round(share * n_pixels), end, start))
                for share in shares
            ]
        )
        for one in rank
    ]
    return torch.stack(rows)


def area(inner: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Trapezoidal area under curves whose ends are the same for all."""
    ends = (value.expand(len(inner), 1) for value in (first, last))
    whole = torch.cat([next(ends), inner, next(ends)], 1)
    return torch.trapezoid(whole, dx=1 / (whole.shape[1] - 1))


def rows_of(network: zoo.Network, inputs: Tensor, label: int) -> Iterator[dict[str, object]]:
    """The rules' measures for one picture."""
    run = run_layer(network.model, network.layer, (inputs,), None, None, False)
    target = resolve_target(run.outputs, label)
    confidences = run.outputs.detach().softmax(1)
    black = masked_baselines((inputs,), (0,), None, network.pixel_space, 2)[0].expand_as(inputs)
    scorer = MapScorer(
        network.model, (inputs,), None, (0,), (black,), network.pixel_space,
        lambda outputs: outputs.softmax(1), confidences, target, Protocol(), True, 8,
    )  # fmt: skip
    activations = run.feature_maps[0].detach()
    (mine,) = run.gradients(target.captum, keep_graph=True)
    (other,) = run.gradients(scorer.runner_up().captum)
    modes = relevance.unit_relevance(activations)[0]
    scores = modes.unique().tolist()

    def groups(gradients: Tensor) -> Tensor:
        units = (gradients.mean((2, 3), keepdim=True) * activations)[0]
        return torch.stack([units[modes == score].sum(0) for score in scores])

    maps, runner_up_maps, kinds, weights = [], [], [], []
    of_target, of_other = groups(mine), groups(other)
    for kind, weight in candidates(scores):
        found = torch.tensordot(weight, of_target, 1)
        if not bool((found > 0).any()):
            continue
        mask = as_mask(found[None, None], inputs)
        same = [k for k, known in enumerate(maps) if torch.allclose(known[1], mask, atol=1e-4)]
        if same:
            kinds[same[0]].add(kind)
            continue
        maps.append((found[None], mask))
        runner_up_maps.append(torch.tensordot(weight, of_other, 1)[None])
        kinds.append({kind})
        weights.append(weight.tolist())
    if "all" not in kinds[0]:
        return
    elementwise = ((mine * activations).sum(1), (other * activations).sum(1))
    maps.append((elementwise[0], as_mask(elementwise[0][None], inputs)))
    runner_up_maps.append(elementwise[1])
    kinds.append({"elementwise"})
    weights.append([])

    found = scorer(
        torch.zeros(len(maps), dtype=torch.int64),
        torch.stack([one for one, _ in maps]),
        torch.stack(runner_up_maps),
    )
    masks = torch.cat([mask for _, mask in maps])[:, 0]
    avx = found.avx.tolist()

    @torch.no_grad()
    def probability(shown: Tensor) -> Tensor:
        return network.model(shown).softmax(1)[:, label]

    blur = blurred(inputs)
    low, high, dark = (probability(picture) for picture in (blur, inputs, black))
    # A set that loses in AVX cannot win.
    left = [k for k, value in enumerate(avx) if value >= avx[0]]
    insertion = area(curve(probability, blur, inputs, masks[left], SEEN), low, high).tolist()
    deletion = area(curve(probability, inputs, black, masks[left], SEEN), high, dark).tolist()
    seen = dict(zip(left, zip(insertion, deletion, strict=True), strict=True))
    gains = {k: (avx[k] - avx[0], seen[k][0] - seen[0][0], seen[0][1] - seen[k][1]) for k in left}

    def best_avx(allowed: set[str]) -> int:
        return max((k for k in range(len(maps)) if kinds[k] & allowed), key=lambda k: avx[k])

    def dominating(allowed: set[str]) -> int:
        never_worse = [k for k in left if kinds[k] & allowed and min(gains[k]) >= -1e-7]
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
        into_black = curve(probability, black, inputs, mask, SEEN)
        to_blurred = curve(probability, inputs, blur, mask, SEEN)
        yield {
            "rule": rule,
            "avx": avx[k],
            "average_drop": float(found.average_drop[k]),
            "insertion_seen": seen[k][0] if k in seen else "",
            "deletion_seen": seen[k][1] if k in seen else "",
            "insertion_between": float(curve(probability, blur, inputs, mask, BETWEEN).mean()),
            "deletion_between": float(curve(probability, inputs, black, mask, BETWEEN).mean()),
            "insertion_into_black": float(area(into_black, dark, high)),
            "deletion_to_blurred": float(area(to_blurred, high, low)),
            "weights": " ".join(f"{value:g}" for value in weights[k]),
        }


def main() -> None:
    """Print the table of one layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--layer", default="_conv_head")
    parser.add_argument("--limit", type=int, help="so many pictures at most")
    given = parser.parse_args()
    network = zoo.load(given.model, layer=given.layer)
    data = pictures(given.data, network)
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    for place in range(1, len(data), 2)[: given.limit]:
        inputs, label = data[place]
        for row in rows_of(network, inputs[None], label):
            named = {"layer": given.layer, "file": data.names[place], **row}
            table.writerow(
                {key: f"{v:.5g}" if isinstance(v, float) else v for key, v in named.items()}
            )


if __name__ == "__main__":
    main()
