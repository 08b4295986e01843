"""The tables of docs/evaluation.md.

    python docs/measured/evaluation.py RUN [RUN ...]

adds the rows of finished runs of ``captum-advise evaluate`` to evaluation.csv, in place of rows of
the same network, layer, picture and method, and writes the page's tables anew; without a run, only
the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from captum_advise.evaluation.measures import MEASURES
from captum_advise.evaluation.methods import names
from captum_advise.evaluation.report import markdown_table
from captum_advise.evaluation.statistics import REFERENCE, summarise

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "evaluation.md"
START, END = "<!-- tables: docs/measured/evaluation.py -->", "<!-- end of tables -->"
WHERE = ["network", "layer"]
SHOWN = {"insertion": "insertion", "deletion": "deletion", "avx": "AVX", "average_drop": ""}


def with_run(rows: pd.DataFrame, run: Path) -> pd.DataFrame:
    """The rows and those of a finished run."""
    configuration = json.loads((run / "run.json").read_text())["configuration"]
    found = pd.read_csv(run / "results.csv")
    found["file"] = found["file"].map(lambda file: Path(file).name)
    for column in WHERE:
        found[column] = configuration[column]
    return pd.concat([rows, found[rows.columns]])


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest rows, by network, layer and picture, methods as the documentation lists them."""
    key = [*WHERE, "file", "method"]
    place = {name: number for number, name in enumerate(names())}
    return rows.drop_duplicates(key, keep="last").sort_values(
        key, key=lambda column: column.map(place) if column.name == "method" else column
    )


def tables(rows: pd.DataFrame) -> Iterator[str]:
    """One table per network, layer and set of pictures."""
    for (network, layer), here in rows.groupby(WHERE):
        pictures = here.groupby("method")["file"].agg(frozenset)
        for files in sorted(set(pictures), key=len, reverse=True):
            methods = [name for name in names() if pictures.get(name) == files]
            if REFERENCE not in methods:
                methods.insert(0, REFERENCE)
            some = here[here["file"].isin(files) & here["method"].isin(methods)]
            title = str(network).replace("efficientnet-lite", "EfficientNet-Lite")
            yield f"### {title}, `{layer}`, {len(files)} pictures"
            yield table(some, methods)


def table(rows: pd.DataFrame, methods: list[str]) -> str:
    """Means with intervals, and the comparison with Grad-CAM."""
    measures = [measure for measure in MEASURES if measure.name in SHOWN]
    found = summarise(rows.rename(columns={"file": "index"}), methods, measures, seed=0)
    found = found.set_index(["method", "measure"])
    means = found["mean"].unstack()
    compared = [name for name, title in SHOWN.items() if title]
    heads = ["method", *(m.heading for m in measures)]
    heads += [f"{SHOWN[name]} better than Grad-CAM" for name in compared[:1]]
    heads += [f"{SHOWN[name]} better" for name in compared[1:]]
    lines = []
    for method in methods:
        cells = [method]
        for measure in measures:
            mean, low, high = found.loc[(method, measure.name), ["mean", "low", "high"]]
            best = means[measure.name].agg("max" if measure.higher_is_better else "min")
            shown = f"**{mean:.3f}**" if mean == best else f"{mean:.3f}"
            cells.append(f"{shown} [{low:.3f}, {high:.3f}]")
        for name in compared:
            beats, p_value = found.loc[(method, name), ["beats_grad_cam", "p_value"]]
            cells.append("" if method == REFERENCE else f"{beats:.0%} (p = {p_value:.2g})")
        lines.append(cells)
    return markdown_table(heads, lines)


def page(rows: pd.DataFrame) -> str:
    """docs/evaluation.md with its tables."""
    before, rest = PAGE.read_text().split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n" + "\n\n".join(tables(rows)) + f"\n\n{END}{after}"


def main() -> None:
    """Add rows, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="*", type=Path, help="output folder of an evaluation")
    rows = pd.read_csv(ROWS)
    for run in parser.parse_args().run:
        rows = with_run(rows, run)
    rows = in_order(rows)
    text = page(rows)
    rows.to_csv(ROWS, index=False, float_format="%.5g")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
