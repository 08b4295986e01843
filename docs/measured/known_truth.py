"""The study of known truth: maps of scenes, in which class and mask of each object are known.

    python docs/measured/known_truth.py run FOLDER [NETWORK ...]

evaluates the methods on each network, in a folder of its own. It continues where it was stopped.

    python docs/measured/known_truth.py tables [FOLDER ...]

adds the rows of finished runs to known_truth.csv, and writes the tables of
docs/explanation/appendix/known-truth-tables.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from captum._utils.gradient import compute_layer_gradients_and_eval
from scipy.stats import wilcoxon
from torch import Tensor, nn

from captum_advise import zoo
from captum_advise._core.gated_map import gated_map
from captum_advise._utils.io import atomic_write
from captum_advise._utils.markdown import markdown_table
from captum_advise.evaluation import Context, evaluate, get_methods, scene_dataset
from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.methods.interface import MethodAt
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, holm

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "appendix" / "known-truth-tables.md"
START, END = "<!-- tables: docs/measured/known_truth.py -->", "<!-- end of tables -->"

# Fixed before maps of test scenes were made: docs/explanation/known-truth.md, "Rules".
N_SCENES, N_WITH_ALL_METRICS = 200, 50
TRUTH = ("top_pixels", "pointing", "energy_against")
NOT_WORSE = ("road", "insertion", "insertion_black")
JUDGED = (
    *NOT_WORSE,
    *("deletion", "deletion_blurred", "mu_fidelity", "avx", "average_drop", "arcc"),
    *("sparseness", "class_sensitivity"),
)
OWN = "gated-grad-cam"
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
OTHERS = ("layer-cam", "grad-cam++", "eigen-cam", "integrated-gradients", "gaussian", "random")
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


def run(name: str, folder: Path) -> None:
    """Evaluate the methods on a network: truth on all scenes, all metrics on the first ones."""
    network = zoo.load(name)
    extra = {"gated-positive": MethodAt("gated-grad-cam", gated_positive)}
    wanted = [OWN, *RIVALS[name], *OTHERS]
    methods = get_methods([method for method in wanted if method not in extra])
    methods |= {method: own for method, own in extra.items() if method in wanted}
    for count, metrics in ((N_SCENES, TRUTH), (N_WITH_ALL_METRICS, (*TRUTH, *JUDGED))):
        evaluate(
            network.model,
            network.layer,
            scene_dataset(network, count=count),
            methods,
            folder / name,
            metrics=metrics,
            pixel_space=network.pixel_space,
        )


def scenes_of(folder: Path) -> pd.DataFrame:
    """The rows of a run, one per scene and method: means over the objects of a scene."""
    rows = pd.read_csv(folder / "results.csv")
    rows["scene"] = rows["file"].str.extract(r"scene (\d+)", expand=False).astype(int)
    columns = [name for name in (*TRUTH, *JUDGED, "seconds") if name in rows]
    means = rows.groupby(["scene", "method"], as_index=False)[columns].mean()
    return means.assign(network=folder.name)


def comparison(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Own method against each rival: network, rival, metric, difference, its interval, p.

    The test is Wilcoxon's signed-rank test over scenes, p is corrected by Holm over all rows.
    """
    found = []
    for network, rivals in RIVALS.items():
        of_network = rows[rows["network"] == network]
        for metric in metrics:
            table = of_network.pivot(index="scene", columns="method", values=metric).dropna()
            for rival in rivals:
                gain = (table[OWN] - table[rival]).to_numpy()
                gain = gain if METRIC[metric].higher_is_better else -gain
                half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
                p = wilcoxon(gain).pvalue if gain.any() else 1.0
                found.append((network, rival, metric, len(gain), gain.mean(), half, p))
    names = ["network", "rival", "metric", "scenes", "gain", "half", "p"]
    table = pd.DataFrame(found, columns=names)
    return table.assign(p=holm(table["p"]))


def agreement(rows: pd.DataFrame, truth: str) -> pd.DataFrame:
    """Rank correlation of each metric with one of truth: over methods, and over maps of a scene."""
    found = {}
    for metric in JUDGED:
        sign = 1 if METRIC[metric].higher_is_better else -1
        for network, own in rows.dropna(subset=[metric]).groupby("network"):
            means = own.groupby("method")[[metric, truth]].mean()
            over_methods = means.corr("spearman").loc[metric, truth]
            of_scenes = [
                scene[metric].corr(scene[truth], "spearman") for _, scene in own.groupby("scene")
            ]
            found[metric, network] = (sign * over_methods, sign * float(np.nanmean(of_scenes)))
    table = pd.DataFrame(found, index=["over methods", "within scenes"]).T
    return table.rename_axis(["metric", "network"])


def tables(rows: pd.DataFrame) -> str:
    """All tables of the appendix."""
    parts = []
    differences = pd.concat([comparison(rows, TRUTH), comparison(rows, NOT_WORSE)])
    for network, rivals in RIVALS.items():
        of_network = rows[rows["network"] == network]
        means = of_network.groupby("method")[[*TRUTH, *NOT_WORSE]].mean()
        seconds = of_network.groupby("method")["seconds"].median()
        lines = []
        for method in means.sort_values("top_pixels", ascending=False).index:
            cells = [f"`{method}`"]
            for metric in (*TRUTH, *NOT_WORSE):
                cells.append(
                    f"{means.loc[method, metric]:.3f}{_mark(differences, network, method, metric)}"
                )
            lines.append([*cells, f"{1000 * seconds[method]:.0f}"])
        header = ["method", *(METRIC[name].heading for name in (*TRUTH, *NOT_WORSE)), "ms"]
        counts = of_network.groupby("method")["scene"].count().max()
        parts += [
            f"## {network}",
            f"{counts} scenes; ROAD and insertion on {N_WITH_ALL_METRICS}.",
            markdown_table(header, lines),
        ]
    parts += [
        "## Comparison with the rivals",
        _differences(differences),
    ]
    for truth in ("top_pixels", "energy_against"):
        table = agreement(rows, truth)
        lines = []
        for metric in JUDGED:
            own = table.loc[metric]
            cells = [
                f"{own.loc[n, 'over methods']:.2f} / {own.loc[n, 'within scenes']:.2f}"
                for n in RIVALS
            ]
            mean = own.mean()
            lines.append(
                [METRIC[metric].heading, *cells, f"{mean.iloc[0]:.2f} / {mean.iloc[1]:.2f}"]
            )
        parts += [
            f"## Agreement with {METRIC[truth].title}",
            markdown_table(["metric", *RIVALS, "mean"], lines),
        ]
    return "\n\n".join(parts)


def _mark(differences: pd.DataFrame, network: str, method: str, metric: str) -> str:
    """Where our map is significantly better than a rival's: +, where worse: -."""
    own = differences[
        (differences["network"] == network)
        & (differences["rival"] == method)
        & (differences["metric"] == metric)
    ]
    if own.empty or own["p"].item() >= SIGNIFICANCE:
        return ""
    return " (+)" if own["gain"].item() > 0 else " (-)"


def _differences(table: pd.DataFrame) -> str:
    lines = [
        [
            row.network,
            f"`{row.rival}`",
            METRIC[row.metric].title,
            f"{row.gain:+.3f} ± {row.half:.3f}",
            f"{row.p:.2g}",
            str(row.scenes),
        ]
        for row in table.itertuples()
    ]
    return markdown_table(["network", "rival", "metric", "gain", "p", "scenes"], lines)


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
    text = PAGE.read_text()
    head, _, rest = text.partition(START)
    tail = rest.partition(END)[2]
    atomic_write(PAGE, f"{head}{START}\n\n{tables(rows)}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
