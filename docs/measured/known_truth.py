"""The study of known truth: maps of scenes, in which class and mask of each object are known.

    python docs/measured/known_truth.py run FOLDER [NETWORK ...]

evaluates the methods on each network, in a folder of its own. It continues where it was stopped.

    python docs/measured/known_truth.py tables [FOLDER ...]

adds the rows of finished runs to known_truth.csv, and writes the tables of
docs/explanation/appendix/known-truth-tables.md and the board of scenes of
docs/explanation/leaderboard.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch.nn.functional as F
from captum._utils.gradient import compute_layer_gradients_and_eval
from markdown_table import markdown_table
from scipy.stats import wilcoxon
from torch import Tensor, nn

from captum_advise import zoo
from captum_advise._core.gated_map import gated_map
from captum_advise._utils.io import atomic_write
from captum_advise.evaluation import Context, evaluate, get_methods, list_methods, scene_dataset
from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.methods.interface import MethodAt
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, holm
from captum_advise.layouts import Tokens
from captum_advise.pixels import normalize_maps

ROWS = Path(__file__).with_suffix(".csv")
EXPLANATION = Path(__file__).parents[1] / "explanation"
PAGE = EXPLANATION / "appendix" / "known-truth-tables.md"
LEADERBOARD = EXPLANATION / "leaderboard.md"
START, END = "<!-- tables: docs/measured/known_truth.py -->", "<!-- end of tables -->"

# Fixed before maps of test scenes were made: docs/explanation/known-truth.md, "Rules".
N_SCENES, N_WITH_ALL_METRICS = 200, 50
TRUTH = ("top_pixels", "pointing", "energy_against")
NOT_WORSE = ("road", "insertion", "insertion_black")
JUDGED = (
    *NOT_WORSE,
    *("deletion", "deletion_blurred", "mu_fidelity", "avx", "average_drop", "arcc", "adcc"),
    *("sparseness", "class_sensitivity"),
)
OWN = {"scenes-vit": "gated-norms"}  # of the others: gated-grad-cam
RIVALS = {
    **dict.fromkeys(
        ("scenes-resnet", "scenes-convnext", "scenes-plain"),
        (
            *("grad-cam", "layer-cam-multi", "winsor-cam", "refine-cam"),
            *("layer-advise", "gated-positive"),
        ),
    ),
    "scenes-vit": (
        *("grad-cam", "cdam", "legrad", "generic-attention", "attention-guided-cam"),
        *("attention-rollout", "layer-advise"),
    ),
}
FLOORS = ("gaussian", "random")
OTHERS = ("layer-cam", "grad-cam++", "eigen-cam", "integrated-gradients", *FLOORS)
METRIC = {metric.name: metric for metric in METRICS}


def gated_positive(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """``GatedGradCam`` with evidence from positive gradients only."""
    gradients, values = compute_layer_gradients_and_eval(
        model, list(context.layers), inputs, target
    )
    *finer, (last,) = gradients
    maps = gated_map(
        [value for (value,) in values],
        [*(gradient.relu() for (gradient,) in finer), last],
        (inputs.shape[2], inputs.shape[3]),
    )
    return maps.detach()


def gated_norms(
    model: Any, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Gate and evidence as in ``GatedGradCam``, at the norms before attention of five blocks."""
    norms = [block.norm1 for block in model.blocks[-5:]]
    gradients, values = compute_layer_gradients_and_eval(model, norms, inputs, target)
    patches = Tokens(n_prefix=1)
    *earlier, (last, of_last) = (
        (patches(value), patches(gradient))
        for (value,), (gradient,) in zip(values, gradients, strict=True)
    )
    size = inputs.shape[2:]
    cam = (of_last.mean((2, 3), keepdim=True) * last).sum(1, keepdim=True).relu()
    gate = normalize_maps(F.interpolate(cam, size, mode="bicubic", antialias=True))
    evidence = [
        F.interpolate((gradient * value).sum(1, keepdim=True).relu(), size, mode="bilinear")
        for value, gradient in earlier
    ]
    return (gate * sum(map(normalize_maps, evidence))).detach()


def studied(network: str) -> str:
    """The method that the study is about."""
    return OWN.get(network, "gated-grad-cam")


def run(name: str, folder: Path) -> None:
    """Evaluate the methods on a network: truth on all scenes, all metrics on the first ones."""
    network = zoo.load(name)
    extra = {
        "gated-positive": MethodAt("gated-grad-cam", gated_positive),
        "gated-norms": MethodAt("attention", gated_norms),
    }
    wanted = [studied(name), *RIVALS[name], *OTHERS]
    methods = get_methods([method for method in wanted if method not in extra])
    methods |= {method: function for method, function in extra.items() if method in wanted}
    for count, metrics in ((N_SCENES, TRUTH), (N_WITH_ALL_METRICS, (*TRUTH, *JUDGED))):
        found = evaluate(
            network.model,
            network.layer,
            scene_dataset(network, count=count),
            methods,
            folder / name,
            metrics=metrics,
            pixel_space=network.pixel_space,
        )
        atomic_write(folder / name / f"{count}.csv", found.results.to_csv(index=False))


def scenes_of(folder: Path) -> pd.DataFrame:
    """The rows of a run, one per scene and method: means over the objects of a scene."""
    means = []
    for count in (N_WITH_ALL_METRICS, N_SCENES):
        rows = pd.read_csv(folder / f"{count}.csv")
        rows["scene"] = rows["file"].str.extract(r"scene (\d+)", expand=False).astype(int)
        columns = [name for name in (*TRUTH, *JUDGED, "seconds") if name in rows]
        means.append(rows.groupby(["scene", "method"])[columns].mean())
    return means[0].combine_first(means[1]).reset_index().assign(network=folder.name)


def comparison(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The studied method against each rival: network, rival, metric, difference and p.

    The test is Wilcoxon's signed-rank test over scenes, p is corrected by Holm over all rows.
    """
    found = []
    for network, rivals in RIVALS.items():
        of_network = rows[rows["network"] == network]
        for metric in metrics:
            table = of_network.pivot(index="scene", columns="method", values=metric).dropna()
            for rival in rivals:
                gain = (table[studied(network)] - table[rival]).to_numpy()
                gain = gain if METRIC[metric].higher_is_better else -gain
                p = wilcoxon(gain).pvalue if gain.any() else 1.0
                found.append((network, rival, metric, gain.mean(), p))
    table = pd.DataFrame(found, columns=["network", "rival", "metric", "gain", "p"])
    return table.assign(p=holm(table["p"]))


def agreement(rows: pd.DataFrame, truth: str) -> pd.DataFrame:
    """Rank correlation of each metric with one of truth: over methods, and over maps of a scene."""
    found = {}
    for metric in JUDGED:
        sign = 1 if METRIC[metric].higher_is_better else -1
        for network, measured in rows.dropna(subset=[metric]).groupby("network"):
            means = measured.groupby("method")[[metric, truth]].mean()
            over_methods = means.corr("spearman").loc[metric, truth]
            of_scenes = [
                scene[metric].corr(scene[truth], "spearman")
                for _, scene in measured.groupby("scene")
            ]
            found[metric, network] = (sign * over_methods, sign * float(np.nanmean(of_scenes)))
    table = pd.DataFrame(found, index=["over methods", "within scenes"]).T
    return table.rename_axis(["metric", "network"])


def two_digits(value: float) -> str:
    """A correlation with two digits; ties go up, whatever the order of the sum leaves of them."""
    return f"{value + 1e-9:.2f}"


def tables(rows: pd.DataFrame) -> str:
    """All tables of the appendix."""
    parts = [f"{N_SCENES} scenes; ROAD and insertion on {N_WITH_ALL_METRICS}."]
    differences = pd.concat([comparison(rows, TRUTH), comparison(rows, NOT_WORSE)])
    columns = (*TRUTH, "road", "insertion")
    for network in RIVALS:
        means = rows[rows["network"] == network].groupby("method")[list(columns)].mean()
        lines = []
        for method in means.sort_values("top_pixels", ascending=False).index:
            marks = (_mark(differences, network, method, metric) for metric in columns)
            values = zip(means.loc[method], marks, strict=True)
            lines.append([f"`{method}`", *(f"{value:.3f}{mark}" for value, mark in values)])
        header = ["method", *(METRIC[name].heading for name in columns)]
        parts += [f"## {network}", markdown_table(header, lines)]
    table = agreement(rows, "top_pixels")
    lines = []
    for metric in JUDGED:
        values = table.loc[metric].loc[list(RIVALS)]
        values.loc["mean"] = values.mean()
        cells = (" / ".join(map(two_digits, pair)) for pair in values.to_numpy())
        lines.append([METRIC[metric].heading, *cells])
    header = ["metric", *RIVALS, "mean"]
    parts += ["## Agreement with top pixels in the object", markdown_table(header, lines)]
    return "\n\n".join(parts)


def leaderboard(rows: pd.DataFrame) -> str:
    """Mean ranks over the metrics of truth: of convolutional networks, then of the transformer."""
    rows = rows[rows["method"].isin(list_methods())]
    values = rows.set_index(["network", "scene", "method"])[list(TRUTH)]
    # Higher is better in all of them. The best method on a scene has rank 1.
    ranks = values.groupby(["network", "scene"]).rank(ascending=False).mean(axis=1)
    of_networks = ranks.groupby(["method", "network"]).mean().unstack()
    parts = []
    for networks in ([name for name in RIVALS if name not in OWN], list(OWN)):
        table = of_networks[networks].dropna()
        lines = [
            [f"{method} (floor)" if method in FLOORS else method]
            + [f"{rank:.2f}" for rank in table.loc[method]]
            for method in table.mean(axis=1).sort_values().index
        ]
        parts.append(markdown_table(["method", *networks], lines))
    return "\n\n".join(parts)


def _mark(differences: pd.DataFrame, network: str, method: str, metric: str) -> str:
    """Where our map is significantly better than a rival's: +, where worse: -."""
    found = differences[
        (differences["network"] == network)
        & (differences["rival"] == method)
        & (differences["metric"] == metric)
    ]
    if found.empty or found["p"].item() >= SIGNIFICANCE:
        return ""
    return "+" if found["gain"].item() > 0 else "-"


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["run", "tables"])
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    if given.verb == "run":
        folder, *names = given.arguments
        for name in names or RIVALS:
            run(name, Path(folder))
        return
    rows = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame()
    rows = pd.concat([rows, *(scenes_of(Path(folder)) for folder in given.arguments)])
    rows = rows.drop_duplicates(["network", "scene", "method"], keep="last").sort_values(
        ["network", "scene", "method"]
    )
    columns = ["network", "scene", "method", *TRUTH, *JUDGED, "seconds"]
    atomic_write(ROWS, rows[columns].to_csv(index=False, float_format="%.5g"))
    for path, content in ((PAGE, tables(rows)), (LEADERBOARD, leaderboard(rows))):
        head, _, rest = path.read_text().partition(START)
        tail = rest.partition(END)[2]
        atomic_write(path, f"{head}{START}\n\n{content}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
