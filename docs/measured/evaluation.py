"""The tables of docs/explanation/appendix/evaluation-tables.md.

    python docs/measured/evaluation.py RUN [RUN ...]

adds the rows of finished runs of ``captum-advise evaluate`` to evaluation.csv and writes the page's
tables. They replace rows of the same network, layer, image and method. Without a run, it writes
only the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from captum_advise._utils.markdown import markdown_table
from captum_advise.evaluation.columns import METRICS
from captum_advise.evaluation.methods import names
from captum_advise.evaluation.statistics import REFERENCE, summarise

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "appendix" / "evaluation-tables.md"
START, END = "<!-- tables: docs/measured/evaluation.py -->", "<!-- end of tables -->"
WHERE = ["network", "layer"]
DEFAULT_LAYER = "bn2"
SHOWN = {"insertion": "insertion", "deletion": "deletion", "avx": "AVX", "average_drop": ""}


def with_run(rows: pd.DataFrame, run: Path) -> pd.DataFrame:
    """The rows and those of a finished run."""
    configuration = json.loads((run / "run.json").read_text())["configuration"]
    results = pd.read_csv(run / "results.csv")
    results["file"] = results["file"].map(lambda file: Path(file).name)
    for column in WHERE:
        results[column] = configuration[column]
    return pd.concat([rows, results[rows.columns]])


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest rows, by network, layer and image, methods as the documentation lists them."""
    key = [*WHERE, "file", "method"]
    order = {name: number for number, name in enumerate(names())}
    return rows.drop_duplicates(key, keep="last").sort_values(
        key, key=lambda column: column.map(order) if column.name == "method" else column
    )


def sections(rows: pd.DataFrame) -> Iterator[str]:
    """The tables, those of the default layer first."""
    is_default = rows["layer"] == DEFAULT_LAYER
    for title, part in (
        ("At the default layer", rows[is_default]),
        ("At other layers", rows[~is_default]),
    ):
        if len(part):
            yield f"## {title}"
            yield from tables(part)


def tables(rows: pd.DataFrame) -> Iterator[str]:
    """One table per network, layer and set of images."""
    for (network, layer), group in rows.groupby(WHERE):
        files_of = group.groupby("method")["file"].agg(frozenset)
        for files in sorted(set(files_of), key=lambda files: (-len(files), sorted(files))):
            methods = [name for name in names() if files_of.get(name) == files]
            if REFERENCE not in methods:
                methods.insert(0, REFERENCE)
            compared = group[group["file"].isin(files) & group["method"].isin(methods)]
            title = str(network).replace("efficientnet-lite", "EfficientNet-Lite")
            yield f"### {title}, `{layer}`, {len(files)} images"
            yield table(compared, methods)


def table(rows: pd.DataFrame, methods: list[str]) -> str:
    """Means with intervals, and the comparison with Grad-CAM."""
    metrics = [metric for metric in METRICS if metric.name in SHOWN]
    summary = summarise(rows.rename(columns={"file": "index"}), methods, metrics, seed=0)
    summary = summary.set_index(["method", "metric"])
    means = summary["mean"].unstack()
    compared = [name for name, title in SHOWN.items() if title]
    header = ["method", *(metric.heading for metric in metrics)]
    header += [f"{SHOWN[name]} better than Grad-CAM" for name in compared[:1]]
    header += [f"{SHOWN[name]} better" for name in compared[1:]]
    lines = []
    for method in methods:
        cells = [method]
        for metric in metrics:
            mean, low, high = summary.loc[(method, metric.name), ["mean", "low", "high"]]
            best = means[metric.name].agg("max" if metric.higher_is_better else "min")
            shown = f"**{mean:.3f}**" if mean == best else f"{mean:.3f}"
            cells.append(f"{shown} [{low:.3f}, {high:.3f}]")
        for name in compared:
            beats, p_value = summary.loc[(method, name), ["beats_grad_cam", "p_value"]]
            cells.append("" if method == REFERENCE else f"{beats:.0%} (p = {p_value:.2g})")
        lines.append(cells)
    return markdown_table(header, lines)


def page(rows: pd.DataFrame) -> str:
    """The page with its tables."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n" + "\n\n".join(sections(rows)) + f"\n\n{END}{after}"


def main() -> None:
    """Add rows, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="*", type=Path, help="output folder of an evaluation")
    rows = pd.read_csv(ROWS)
    for run in parser.parse_args().run:
        rows = with_run(rows, run)
    in_order(rows).to_csv(ROWS, index=False, float_format="%.5g")
    # From the rounded rows, which are all that others have.
    PAGE.write_text(page(pd.read_csv(ROWS)), encoding="utf-8")


if __name__ == "__main__":
    main()
