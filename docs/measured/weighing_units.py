"""The study of docs/explanation/appendix/fitted-weights-study.md: fitted weights of units.

    python docs/measured/weighing_units.py labels.csv --model efficientnet-lite0 > rows.csv
    python docs/measured/weighing_units.py labels.csv --option > option.csv
    python docs/measured/weighing_units.py labels.csv --control > control.csv

takes the images at odd places of a CSV file (file, class index) and prints one row per layer, image
and rule. An image takes some 20 seconds of one thread. The rules and metrics were fixed before any
image at an odd place was looked at. The primary held-out metric is ROAD: the mean confidence
without the least relevant pixels minus that without the most relevant ones. The other held-out
metrics are secondary. The control and the rows of the library's own option came afterwards. The
committed rows have the layer names of an older package: ``_conv_head`` is ``conv_head`` here, and
``_bn1`` is ``bn2.drop``.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from choosing_units import HARD, area, candidates
from scipy.optimize import nnls
from torch import Tensor

from captum_advise import LayerAdvise, relevance, zoo
from captum_advise._core.layer_pass import LayerCall
from captum_advise._core.perturbation import black
from captum_advise._core.scoring import MapScorer, as_masks, image_scorer
from captum_advise._core.targets import resolve_target, softmax_over_classes
from captum_advise.evaluation import image_dataset
from captum_advise.metrics import Protocol, blurred
from captum_advise.pixels import normalize_maps, upsample_maps

LAYERS = ("conv_head", "bn2.drop")
# The compiled network takes one batch size; the last batch is filled up.
BATCH = 16
SEEN = [step / 8 for step in range(1, 8)]
SIXTEEN = [step / 16 for step in range(1, 16)]
# Weights are fitted to so many random sets of 7 x 7 cells (as many as the layer has), half of them
# blurred and half of them black.
FITTED_SETS, RIDGE = 128, 0.01
# From Grad-CAM's weights, all one, towards the fitted ones.
LINE = (1.0, 0.5, 0.25)
# Held-out metrics. ROAD: shares of the pixels removed. Sensitivity-n: sizes, of 14 x 14 cells.
ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ROAD_NOISE, ROAD_SWEEPS = 0.05, 10
CELLS, SIZES, SETS_OF_A_SIZE = 14, (8, 32, 64, 128), 16
SQUARES, NOISY, NOISE = 32, 16, 0.1
COLUMNS = (
    "model", "layer", "file", "rule", "kind", "avx", "insertion", "deletion",
    "insertion_into_black", "deletion_to_blurred", "road_morf", "road_lerf", "sensitivity_n",
    "infidelity_squares", "infidelity_noise", "weights",
)  # fmt: skip
CONTROL_COLUMNS = (
    "model", "layer", "file", "rule", "avx", "avx_of_square_root", "insertion_signed",
    "deletion_signed", "road_morf_signed", "road_lerf_signed",
)  # fmt: skip
AREAS = (
    ("insertion", 1),
    ("deletion", -1),
    ("insertion_into_black", 1),
    ("deletion_to_blurred", -1),
)
_TIE = 1e-6


class Network:
    """A network of the zoo, compiled for one batch size."""

    def __init__(self, name: str) -> None:
        self.zoo = zoo.load(name, layer=LAYERS[0])
        self.layers = {name: self.zoo.model.get_submodule(name) for name in LAYERS}
        self._compiled = torch.compile(self.zoo.model)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Class scores (M, K) of inputs (M, 3, H, W)."""
        outputs = []
        for chunk in inputs.split(BATCH):
            missing = BATCH - len(chunk)
            full = torch.cat([chunk, chunk[:1].expand(missing, -1, -1, -1)]) if missing else chunk
            outputs.append(self._compiled(full.contiguous())[: len(chunk)])
        return torch.cat(outputs)


def ranks(masks: Tensor) -> Tensor:
    """(M, H, W) ranks of the pixels, most important first; equal ones row by row."""
    order = masks.flatten(1).argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(order.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions).view_as(masks)


def linear_imputation(image: Tensor, removed: Tensor) -> Tensor:
    """Images (B, 3, H, W) whose removed pixels (B, H, W) are the mean of their neighbours.

    ROAD's linear system, by sweeps from coarse to fine instead of exactly.
    """
    kernel = image.new_tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]])[None, None] / 12
    known = (~removed)[:, None].to(image)
    levels = [(image.expand(len(removed), -1, -1, -1), known)]
    factor = 2
    while min(removed.shape[-2:]) // factor >= 2:
        size = [side // factor for side in removed.shape[-2:]]
        share = F.adaptive_avg_pool2d(known, size)
        value = F.adaptive_avg_pool2d(image * known, size) / share.clamp(min=1e-6)
        levels.append((value, (share > 0).to(image)))
        factor *= 2
    value, is_known = levels[-1]
    n_known = is_known.sum((2, 3), keepdim=True).clamp(min=1)
    current = (value * is_known).sum((2, 3), keepdim=True) / n_known
    for value, is_known in reversed(levels):
        size = value.shape[-2:]
        current = F.interpolate(current, size, mode="bilinear", align_corners=False)
        weight = F.conv2d(current.new_ones(1, 1, *size), kernel, padding=1)
        for _ in range(ROAD_SWEEPS):
            current = torch.where(is_known > 0, value, current)
            spread = F.conv2d(current.flatten(0, 1)[:, None], kernel, padding=1)
            current = spread.view_as(value) / weight
        current = torch.where(is_known > 0, value, current)
    return current


def random_sets(cells: int, sizes: list[int], random: torch.Generator) -> Tensor:
    """(S, cells, cells) bool, a random set of cells of each size."""
    ranks = torch.rand(len(sizes), cells**2, generator=random).argsort(1).argsort(1)
    return (ranks < torch.tensor(sizes)[:, None]).view(-1, cells, cells)


def enlarged(sets: Tensor, size: torch.Size) -> Tensor:
    """Sets of cells as sets of pixels, (S, 1, H, W)."""
    return F.interpolate(sets[:, None].float(), size, mode="nearest") > 0


def without_size(values: Tensor, sizes: Tensor) -> Tensor:
    """The rest of values (S, ...) without a cubic in the sets' sizes."""
    basis = torch.linalg.qr(torch.stack([sizes**power for power in range(4)], 1))[0]
    return values - basis @ (basis.T @ values)


def fitted(parts: Tensor, sets: Tensor, drops: Tensor) -> Tensor:
    """Weights (K,) >= 0 by which the mass of maps (K, h, w) in removed cells predicts a drop.

    Ridge towards weights of one. Larger sets have larger mass and drop whatever the map. This is
    removed first, for each fill separately.
    """
    mass = torch.einsum("shw,khw->sk", sets.double(), parts.double())
    sizes = sets.flatten(1).double().mean(1)
    drops = drops.double().clone()
    for fill in range(2):
        own = slice(fill, None, 2)
        mass[own] = without_size(mass[own], sizes[own])
        drops[own] = F.normalize(without_size(drops[own], sizes[own]), dim=0)
    grad_cam = mass.sum(1)
    scale = (grad_cam @ drops) / (grad_cam @ grad_cam)
    if not scale > 0:
        return torch.ones(len(parts))
    ridge = (RIDGE * (grad_cam @ grad_cam) / len(parts)).sqrt()
    design = torch.cat([mass, ridge * torch.eye(len(parts), dtype=mass.dtype)])
    goal = torch.cat([drops / scale, ridge.expand(len(parts))])
    return torch.from_numpy(nnls(design.numpy(), goal.numpy())[0]).float()


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, along the last dimension; zero where one of them is constant."""
    first, second = (values - values.mean(-1, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, dim=-1)


@dataclass
class Sample:
    """One image, with everything that does not depend on a map."""

    network: Network
    inputs: Tensor
    label: int
    seed: int

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        self.size = self.inputs.shape[-2:]
        self.black = black(self.inputs, self.network.zoo.pixel_space).expand_as(self.inputs)
        self.blur = blurred(self.inputs)
        ends = self.network(torch.cat([self.inputs, self.blur, self.black]))
        self.logit = ends[0, self.label]
        self.at_image, self.at_blur, self.at_black = ends.softmax(1)[:, self.label]
        self.log_confidence = ends.log_softmax(1)[0, self.label]
        self.noise = ROAD_NOISE * torch.randn(self.inputs.shape, generator=self.random)
        self._perturb()

    def confidence(self, images: Tensor) -> Tensor:
        """(M,) confidence in the label."""
        return self.network(images).softmax(1)[:, self.label]

    def _perturb(self) -> None:
        """Images of the held-out metrics: what is removed, and how much is lost."""
        mean = self.inputs.mean((2, 3), keepdim=True)
        sizes = [size for size in SIZES for _ in range(SETS_OF_A_SIZE)]
        self.cells = random_sets(CELLS, sizes, self.random)
        images = torch.where(enlarged(self.cells, self.size), mean, self.inputs)
        self.cells_drop = self.at_image - self.confidence(images)

        height, width = self.size
        self.squares = torch.zeros(SQUARES, height, width, dtype=torch.bool)
        for square in self.squares:
            share, top, left = torch.rand(3, generator=self.random).tolist()
            side = round((1 + 2 * share) / 8 * height)
            y, x = round(top * (height - side)), round(left * (width - side))
            square[y : y + side, x : x + side] = True
        images = torch.where(self.squares[:, None], mean, self.inputs)
        self.squares_drop = self.logit - self.network(images)[:, self.label]

        self.change = NOISE * torch.randn(NOISY, *self.inputs.shape[1:], generator=self.random)
        self.noise_drop = self.logit - self.network(self.inputs - self.change)[:, self.label]

    def fitting(self, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """Removed cells, and the loss of confidence and of its logarithm."""
        last = cells**2 - 2
        sizes = [round((k + 0.5) / FITTED_SETS * last + 1) for k in range(FITTED_SETS)]
        sets = random_sets(cells, sizes, self.random)
        masks = enlarged(sets, self.size)
        images = torch.where(masks, self.blur, self.inputs)
        images[1::2] = torch.where(masks[1::2], self.black, self.inputs)
        logarithm = self.network(images).log_softmax(1)[:, self.label]
        return sets, self.at_image - logarithm.exp(), self.log_confidence - logarithm

    def areas(self, masks: Tensor, shares: list[float], name: str) -> Tensor:
        """(M,) insertion or deletion, towards or from either baseline."""
        start, end, first, last = {
            "insertion": (self.blur, self.inputs, self.at_blur, self.at_image),
            "deletion": (self.inputs, self.black, self.at_image, self.at_black),
            "insertion_into_black": (self.black, self.inputs, self.at_black, self.at_image),
            "deletion_to_blurred": (self.inputs, self.blur, self.at_image, self.at_blur),
        }[name]
        counts = torch.tensor([round(share * masks[0].numel()) for share in shares])
        changed = ranks(masks)[:, None] < counts[None, :, None, None]
        confidences = [
            self.confidence(torch.where(chunk[:, None], end, start))
            for chunk in changed.flatten(0, 1).split(BATCH)
        ]
        return area(torch.cat(confidences).view(len(masks), -1), first, last)

    def road(self, mask: Tensor) -> tuple[float, float]:
        """Mean confidence when the most, and when the least relevant pixels are removed."""
        rank, pixels = ranks(mask), mask.numel()
        removed = [rank < round(share * pixels) for share in ROAD_SHARES]
        removed += [rank >= round((1 - share) * pixels) for share in ROAD_SHARES]
        confidences = []
        for chunk in torch.cat(removed).split(BATCH // 2):
            images = linear_imputation(self.inputs, chunk)
            confidences.append(
                self.confidence(torch.where(chunk[:, None], images + self.noise, images))
            )
        morf, lerf = torch.cat(confidences).view(2, -1).mean(1).tolist()
        return morf, lerf

    def held_out_metrics(self, mask: Tensor) -> dict[str, float]:
        """Metrics of one map (1, H, W), in [0, 1]."""
        morf, lerf = self.road(mask)
        pooled = F.adaptive_avg_pool2d(mask, CELLS)
        mass = (self.cells * pooled).flatten(1).sum(1).view(len(SIZES), -1)
        drops = self.cells_drop.view(len(SIZES), -1)
        in_squares = (self.squares * mask).flatten(1).mean(1)
        in_noise = (self.change * mask).flatten(1).sum(1)
        return {
            "road_morf": morf,
            "road_lerf": lerf,
            "sensitivity_n": float(correlation(mass, drops).mean()),
            "infidelity_squares": infidelity(in_squares, self.squares_drop),
            "infidelity_noise": infidelity(in_noise, self.noise_drop),
        }


def infidelity(expected: Tensor, actual: Tensor) -> float:
    """Mean squared error at the best scale, as Captum's with ``normalize=True``."""
    scale = (expected @ actual) / (expected @ expected).clamp(min=1e-12)
    return float((scale * expected - actual).square().mean())


@dataclass
class Candidate:
    """A map (1, h, w), that of the runner-up class, its mask (1, H, W), kinds and weights."""

    of_target: Tensor
    of_runner_up: Tensor
    mask: Tensor
    kinds: set[str]
    weights: Tensor


def maps_of(sample: Sample, layer: str) -> tuple[MapScorer, list[Candidate], list[int]]:
    """Every candidate of one layer once.

    And the indices of those that are fitted by sign, the furthest from Grad-CAM first.
    """
    network = sample.network
    run = LayerCall(network.zoo.model, (network.layers[layer],), (sample.inputs,)).run()
    target = resolve_target(run.outputs, sample.label)
    scorer = image_scorer(
        network, sample.inputs, run.outputs.detach(), target,
        pixel_space=network.zoo.pixel_space, confidence=softmax_over_classes,
        protocol=Protocol(), internal_batch_size=BATCH,
    )  # fmt: skip
    activations = run.feature_maps[0].detach()
    gradients = (
        run.gradients(target.captum, keep_graph=True)[0],
        run.gradients(scorer.runner_up().captum)[0],
    )
    unit_relevance = relevance.unit_relevance(activations)[0]
    relevances = unit_relevance.unique().tolist()
    is_positive = gradients[0].mean((2, 3))[0] > 0

    def parts(elementwise: bool, split: bool) -> tuple[Tensor, Tensor]:
        """Maps of the groups, for the target and the runner-up class."""
        signs = (is_positive, ~is_positive) if split else (torch.ones_like(is_positive),)
        maps = []
        for gradient in gradients:
            weight = gradient if elementwise else gradient.mean((2, 3), keepdim=True)
            units = (weight * activations)[0]
            groups = [(unit_relevance == value) & sign for sign in signs for value in relevances]
            maps.append(torch.stack([units[group].sum(0) for group in groups]))
        return maps[0], maps[1]

    plain, split, local = parts(False, False), parts(False, True), parts(True, False)
    wanted = [(kind, weight, plain) for kind, weight in candidates(relevances) if kind in HARD]
    sets, drop, log_drop = sample.fitting(activations.shape[-1])
    fits = [
        ("fitted, by sign", fitted(split[0], sets, log_drop), split),
        ("fitted, by sign", fitted(split[0], sets, drop), split),
        ("fitted", fitted(plain[0], sets, drop), plain),
        ("elementwise", fitted(local[0], sets, drop), local),
    ]
    wanted += [(kind, (1 - t) + t * weight, basis) for t in LINE for kind, weight, basis in fits]
    mixed = torch.cat([plain[0], local[0]]), torch.cat([plain[1], local[1]])
    wanted += [("elementwise", torch.ones(len(basis[0])), basis) for basis in (local, mixed)]

    distinct: list[Candidate] = []
    by_sign = []
    for kind, weight, basis in wanted:
        of_target, of_runner_up = (torch.tensordot(weight, maps, 1)[None] for maps in basis)
        if not bool((of_target > 0).any()):
            continue
        mask = as_masks(of_target[None], sample.size)[:, 0]
        same = [k for k, one in enumerate(distinct) if torch.allclose(one.mask, mask, atol=1e-4)]
        if not same:
            same = [len(distinct)]
            distinct.append(Candidate(of_target, of_runner_up, mask, set(), weight))
        distinct[same[0]].kinds.add(kind)
        if kind == "fitted, by sign":
            by_sign.append(same[0])
    return scorer, distinct, by_sign


FITTED = {"all", "fitted", "fitted, by sign"}
# For each rule: its candidates; how many of AVX, insertion, deletion, and the two with baselines
# exchanged must not get worse; the first of these whose gains are summed. "dominating, hard" is
# the rule of the first study. A third new rule, "fitted, AVX kept", takes the first candidate
# fitted by sign that does not lose in AVX: it uses neither insertion nor deletion.
RULES = {
    "Grad-CAM": ({"all"}, 3, 0),
    "dominating, hard": (HARD, 3, 0),
    "dominating, fitted": (FITTED, 3, 1),
    "dominating twice": (HARD | FITTED | {"elementwise"}, 5, 1),
}


def choices(
    sample: Sample, scorer: MapScorer, distinct: list[Candidate], by_sign: list[int]
) -> tuple[Tensor, dict[str, int]]:
    """AVX of the candidates, and the index of the one that each rule selects."""
    avx = scorer(
        torch.zeros(len(distinct), dtype=torch.int64),
        torch.stack([one.of_target for one in distinct]),
        torch.stack([one.of_runner_up for one in distinct]),
    ).avx
    # A cascade: a candidate that loses in one metric is not measured by the next.
    eligible = [k for k in range(len(distinct)) if avx[k] >= avx[0] - _TIE]
    gains = {k: [float(avx[k] - avx[0])] for k in eligible}
    for name, sign in AREAS:
        eligible = [k for k in eligible if gains[k][-1] >= -_TIE]
        areas = sample.areas(torch.cat([distinct[k].mask for k in eligible]), SEEN, name)
        for k, value in zip(eligible, areas, strict=True):
            gains[k].append(sign * float(value - areas[0]))

    chosen = {}
    for rule, (kinds, seen, summed) in RULES.items():
        never_worse = [
            k
            for k, gain in gains.items()
            if len(gain) >= seen and min(gain[:seen]) >= -_TIE and distinct[k].kinds & kinds
        ]
        chosen[rule] = max(never_worse, key=lambda k: sum(gains[k][summed:seen]))
    chosen["fitted, AVX kept"] = next((k for k in by_sign if k in gains), 0)
    return avx, chosen


def rows_of(sample: Sample, layer: str) -> Iterator[dict[str, object]]:
    """The rules' choices on one image, with their metrics."""
    scorer, distinct, by_sign = maps_of(sample, layer)
    if "all" not in distinct[0].kinds:
        return
    avx, chosen = choices(sample, scorer, distinct, by_sign)
    measured: dict[int, dict[str, object]] = {}
    for rule, best in chosen.items():
        if best not in measured:
            one = distinct[best]
            measured[best] = {
                "kind": "; ".join(sorted(one.kinds)),
                "avx": float(avx[best]),
                **{name: float(sample.areas(one.mask, SIXTEEN, name)) for name, _ in AREAS},
                **sample.held_out_metrics(one.mask),
                "weights": " ".join(f"{value:.3g}" for value in one.weights.tolist()),
            }
        yield {"rule": rule, **measured[best]}


def option_rows_of(sample: Sample, layer: str) -> Iterator[dict[str, object]]:
    """The metrics of ``unit_selection="faithfulness"`` on one image."""
    network = sample.network.zoo
    explanation = LayerAdvise(
        network.model, sample.network.layers[layer], pixel_space=network.pixel_space
    ).explain(sample.inputs, sample.label, unit_selection="faithfulness", internal_batch_size=BATCH)
    mask = as_masks(explanation.attributions.detach(), sample.size)[:, 0]
    yield {
        "rule": "the library's option",
        "avx": float(explanation.metrics.avx),
        **{name: float(sample.areas(mask, SIXTEEN, name)) for name, _ in AREAS},
        **sample.held_out_metrics(mask),
    }


def control_rows_of(sample: Sample, layer: str) -> Iterator[dict[str, object]]:
    """Grad-CAM and "dominating, fitted" where the order of pixels goes below zero.

    After the ReLU, pixels without evidence are equal and are taken row by row.
    """
    scorer, distinct, by_sign = maps_of(sample, layer)
    if "all" not in distinct[0].kinds:
        return
    avx, chosen = choices(sample, scorer, distinct, by_sign)
    for rule in ("Grad-CAM", "dominating, fitted"):
        one = distinct[chosen[rule]]
        positive = one.of_target.relu()
        root = (positive / positive.max()).sqrt()[None]
        signed = upsample_maps(normalize_maps(one.of_target[None]), tuple(sample.size))[0]
        morf, lerf = sample.road(signed)
        yield {
            "rule": rule,
            "avx": float(avx[chosen[rule]]),
            "avx_of_square_root": float(
                scorer(torch.zeros(1, dtype=torch.int64), root, one.of_runner_up[None]).avx
            ),
            "insertion_signed": float(sample.areas(signed, SIXTEEN, "insertion")),
            "deletion_signed": float(sample.areas(signed, SIXTEEN, "deletion")),
            "road_morf_signed": morf,
            "road_lerf_signed": lerf,
        }


def main() -> None:
    """Print the table of one network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--every", type=int, default=1, help="only one image in so many")
    parser.add_argument("--first", type=int, default=1, help="index of the first image")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--option", action="store_true", help="rows of the library's option")
    instead.add_argument("--control", action="store_true", help="rows of the control")
    arguments = parser.parse_args()
    network = Network(arguments.model)
    dataset = image_dataset(arguments.data, network.zoo)
    columns, rows = (CONTROL_COLUMNS, control_rows_of) if arguments.control else (COLUMNS, rows_of)
    if arguments.option:
        rows = option_rows_of
    table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    table.writeheader()
    for index in range(arguments.first, len(dataset), 2 * arguments.every):
        inputs, label = dataset[index]
        sample = Sample(network, inputs[None], label, index)
        for layer in LAYERS:
            for row in rows(sample, layer):
                where = {"model": arguments.model, "layer": layer, "file": dataset.names[index]}
                table.writerow(
                    {
                        key: f"{value:.5g}" if isinstance(value, float) else value
                        for key, value in {**where, **row}.items()
                    }
                )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
