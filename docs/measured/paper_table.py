"""The paper's comparison as tables in Markdown, from finished runs of ``captum-advise evaluate``.

    python docs/measured/paper_table.py RUN [RUN ...] > table.md

Each run is the folder of one network. The workflow "Paper's table" makes them, and calls this.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from markdown_table import markdown_table

from captum_advise.evaluation.columns import METRICS

# As in the paper; then what AVX does not reward.
SHOWN = (
    *("average_drop", "increase_in_confidence", "ssim", "fsim", "mse", "class_sensitivity", "avx"),
    *("road", "insertion_black"),
)


def section(run: Path) -> str:
    """Heading, conditions and table of a network."""
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    how, versions, machine = facts["configuration"], facts["versions"], facts["machine"]
    summary = pd.read_csv(run / "summary.csv")
    means = summary.pivot(index="method", columns="metric", values="mean")
    images = summary.pivot(index="method", columns="metric", values="images").max(axis=1)
    shown = [metric for metric in METRICS if metric.name in SHOWN and metric.name in means]
    shown.sort(key=lambda metric: SHOWN.index(metric.name))
    weights = "random weights" if how["weights"] == "random" else f"weights {how['weights']!r}"
    rows = [
        [
            f"`{method}`",
            str(int(images[method])),
            *(f"{means.at[method, metric.name]:.{metric.digits}f}" for metric in shown),
        ]
        # In the order in which they were asked for.
        for method in summary["method"].unique()
    ]
    return "\n\n".join(
        (
            f"## {how['network']}, layer `{how['layer']}`, {weights}",
            markdown_table(["method", "images", *(metric.heading for metric in shown)], rows),
            f"captum-advise {versions['captum_advise']}, torch {versions['torch']}, "
            f"{machine['device']}, {machine['platform']}.",
        )
    )


def main() -> None:
    """Print the tables of the runs that are finished, and say which are not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    runs = parser.parse_args().runs
    finished = [run for run in runs if (run / "summary.csv").is_file()]
    if not finished:
        parser.error(f"none of these is a finished run: {', '.join(map(str, runs))}.")
    print("\n\n".join(map(section, finished)))
    for run in runs:
        if run not in finished:
            print(f"\n{run.name}: not finished.")


if __name__ == "__main__":
    main()
