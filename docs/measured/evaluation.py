"""The measured tables of methods: the leaderboard and its appendix.

    python docs/measured/evaluation.py RUN [RUN ...]

adds the rows of finished runs of ``captum-advise evaluate`` to evaluation.csv and
evaluation_mosaics.csv, and writes the tables of docs/explanation/leaderboard.md and of
docs/explanation/appendix/evaluation-tables.md. They replace rows of the same network, layer, steps,
image and method; mosaics replace all those of the same network, layer and method. Without a run, it
writes only the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markdown_table import markdown_table

from captum_advise._utils.io import atomic_write
from captum_advise.evaluation import list_methods
from captum_advise.evaluation.columns import METRICS, Metric
from captum_advise.evaluation.report.statistics import (
    REFERENCE,
    SIGNIFICANCE,
    compare_methods,
    holm,
)

ROWS = Path(__file__).with_suffix(".csv")
MOSAIC_ROWS = ROWS.with_name("evaluation_mosaics.csv")
EXPLANATION = Path(__file__).parents[1] / "explanation"
PAGE = EXPLANATION / "appendix" / "evaluation-tables.md"
LEADERBOARD = EXPLANATION / "leaderboard.md"
# The name of an item that shows an image in a mosaic.
CELL = r"mosaic \d+, cell \d+: (.*)"
START, END = "<!-- tables: docs/measured/evaluation.py -->", "<!-- end of tables -->"
WHERE = ["network", "layer", "steps"]
MOSAICS_WHERE = ["network", "layer"]
DEFAULT_LAYER = "bn2"

# No method selects by these.
PRIMARY = (
    *("grid_top", "road", "insertion", "insertion_black", "deletion"),
    "deletion_blurred",
)
# Tested as well, and corrected for: the marks do not depend on which columns are shown.
SECONDARY = ("grid_mass", "mu_fidelity", "avx", "average_drop", "average_gain")
# What describes a map, and does not judge it.
DESCRIPTIVE = ("sparseness", "seconds")
# The columns of the appendix.
SHOWN = (*PRIMARY, "seconds")
ALL_METRICS = {metric.name: metric for metric in METRICS}
OF_MOSAICS = tuple(metric.name for metric in METRICS if metric.of == "mosaics")
# Grad-CAM's map where a mean over positions and a linear classifier follow the layer.
SAME_AS_REFERENCE = ("hirescam", "xgrad-cam", "layer-gradient-x-activation")
FLOORS = ("random", "gaussian")
# Listed in every table.
COMPARED = ("gated-grad-cam-occlusion", "gated-grad-cam", REFERENCE)
BETTER, WORSE = "+", "-"


def title_of(network: object) -> str:
    """A network's name in headings."""
    return str(network).replace("efficientnet-lite", "EfficientNet-Lite")


def with_run(rows: pd.DataFrame, run: Path) -> pd.DataFrame:
    """The rows and those of a finished run."""
    configuration = json.loads((run / "run.json").read_text())["configuration"]
    results = pd.read_csv(run / "results.csv")
    results = results[~results["file"].str.fullmatch(CELL)]
    results["file"] = results["file"].map(lambda file: Path(file).name)
    if results.duplicated(["file", "method"]).any():
        raise ValueError(f"{run} has two images of one name or of one file: rename them.")
    for column in WHERE:
        results[column] = configuration[column]
    return pd.concat([rows, results.reindex(columns=rows.columns)])


def with_mosaics(rows: pd.DataFrame, run: Path) -> pd.DataFrame:
    """The rows of mosaics and those of a finished run, one per image of them and method."""
    configuration = json.loads((run / "run.json").read_text())["configuration"]
    cells = pd.read_csv(run / "results.csv")
    shown = cells["file"].str.extract(CELL, expand=False)
    if shown.isna().all():
        return rows
    cells = cells[shown.notna()].assign(file=shown.dropna().map(lambda file: Path(file).name))
    # An image may be in several mosaics, where its maps are alike: tests count it once.
    means = {name: (name, "mean") for name in OF_MOSAICS}
    results = cells.groupby(["file", "method"]).agg(cells=("index", "size"), **means).reset_index()
    for column in MOSAICS_WHERE:
        results[column] = configuration[column]
    key = [*MOSAICS_WHERE, "method"]
    replaced = rows.set_index(key).index.isin(results.set_index(key).index)
    # Without a row, columns have no type.
    return pd.concat([part for part in (rows[~replaced], results[rows.columns]) if len(part)])


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest rows, by network, layer and image, methods as the documentation lists them."""
    key = [*(WHERE if "steps" in rows else MOSAICS_WHERE), "file", "method"]
    order = {name: number for number, name in enumerate(list_methods())}
    return rows.drop_duplicates(key, keep="last").sort_values(
        key, key=lambda column: column.map(order) if column.name == "method" else column
    )


def of_methods(rows: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """The rows of methods on the images that all of them have."""
    own = rows[rows["method"].isin(methods)]
    n_methods = own.groupby("file")["method"].transform("nunique")
    return own[n_methods == len(methods)]


@dataclass(frozen=True)
class Standings:
    """How methods do on a network, the best mean rank first.

    Attributes:
        means: (methods, metrics measured); the median of the seconds.
        marks: (methods, metrics): significantly better or worse than Grad-CAM, or neither.
        ranks: The mean rank of each method over the primary metrics that were measured.
        cells: Number of cells of mosaics, each with a map of its own.
    """

    means: pd.DataFrame
    marks: pd.DataFrame
    ranks: pd.Series[float]
    cells: int


def standings(rows: pd.DataFrame, mosaics: pd.DataFrame, methods: list[str]) -> Standings:
    """Compare methods that were measured on the same images, and on the same mosaics or none."""
    columns = [name for name in (*PRIMARY, *SECONDARY, *DESCRIPTIVE) if name not in OF_MOSAICS]
    parts = [(rows.rename(columns={"file": "index"}), methods, columns)]
    if len(mosaics):
        parts.append((mosaics.rename(columns={"file": "index"}), methods, list(OF_MOSAICS)))
    means = pd.DataFrame(index=methods, columns=[*PRIMARY, *SECONDARY, *DESCRIPTIVE], dtype=float)
    p_values: dict[tuple[str, str], float] = {}
    directions: dict[tuple[str, str], int] = {}
    ranks = {}
    for part, compared, of_part in parts:
        metrics = [ALL_METRICS[name] for name in of_part]
        comparison = compare_methods(part, compared, metrics, seed=0)
        table = comparison.set_index(["metric", "method"])
        means.loc[compared, of_part] = table["mean"].unstack("metric").loc[compared, of_part]
        ranks |= {name: table.loc[name, "rank"] for name in of_part if name in PRIMARY}
        if REFERENCE in compared:
            for (name, method), row in table[table["direction"].notna()].iterrows():
                if name not in DESCRIPTIVE:
                    p_values[method, name] = row["p_value"]
                    directions[method, name] = int(row["direction"])
    # Compiling is part of the first map's time.
    means["seconds"] = rows.groupby("method")["seconds"].median()
    marks = pd.DataFrame("", index=means.index, columns=means.columns)
    for key, p_value in zip(p_values, holm(list(p_values.values())), strict=True):
        if p_value < SIGNIFICANCE:
            marks.loc[key] = {1: BETTER, -1: WORSE, 0: ""}[directions[key]]
    of_primary = pd.DataFrame(ranks, index=methods)
    mean_ranks = of_primary.mean(axis=1).sort_values(kind="stable")
    return Standings(
        means.loc[mean_ranks.index].dropna(axis=1, how="all"),  # mosaics that nobody has
        marks.loc[mean_ranks.index],
        mean_ranks,
        int(mosaics.loc[mosaics["method"] == REFERENCE, "cells"].sum()),
    )


def on_mosaics(mosaics: pd.DataFrame) -> set[str]:
    """The methods that have Grad-CAM's mosaics."""
    cells_of = {
        str(name): own.set_index("file")["cells"].to_dict()
        for name, own in mosaics.groupby("method")
    }
    return {name for name, cells in cells_of.items() if cells == cells_of.get(REFERENCE)}


@dataclass(frozen=True)
class Board:
    """A table: the standings of methods that share images.

    Attributes:
        network: Its name.
        steps: Of insertion and deletion.
        images: Their number.
        standings: Of all these methods.
        shown: The methods that the table lists.
    """

    network: str
    steps: int
    images: int
    standings: Standings
    shown: list[str]


def boards(rows: pd.DataFrame, mosaics: pd.DataFrame) -> Iterator[Board]:
    """The standings of each network at the default layer, from the rows that have all metrics.

    Methods with mosaics come first. Further boards show the other methods, next to ``COMPARED``.
    """
    rows = rows[(rows["layer"] == DEFAULT_LAYER) & rows["road"].notna()]
    rows = rows[~rows["method"].isin(SAME_AS_REFERENCE)]
    for (network, layer, steps), group in rows.groupby(WHERE):
        own = mosaics[(mosaics["network"] == network) & (mosaics["layer"] == layer)]
        listed: set[str] = set()
        for methods, with_mosaics, n_images in compared_methods(group, own):
            part = own if with_mosaics else own[:0]
            compared = standings(of_methods(group, methods), part, methods)
            new = {*methods} - listed
            shown = [name for name in compared.ranks.index if name in new | {*COMPARED}]
            listed |= new
            yield Board(str(network), int(steps), n_images, compared, shown)


def leaderboard(rows: pd.DataFrame, mosaics: pd.DataFrame) -> Iterator[str]:
    """The table of all networks: mean ranks, and how often a method beats Grad-CAM."""
    first: dict[str, Board] = {}
    for one in boards(rows, mosaics):
        first.setdefault(one.network, one)
    if not first:
        return
    ranks = pd.DataFrame({name: one.standings.ranks for name, one in first.items()}).dropna()
    ranks = ranks.loc[ranks.mean(axis=1).sort_values(kind="stable").index]
    marks = pd.concat([one.standings.marks[list(PRIMARY)] for one in first.values()], axis=1)
    n_tests = len(PRIMARY) * len(first)
    header = ["method", *map(title_of, ranks), f"better, of {n_tests}", f"worse, of {n_tests}"]
    lines = []
    for method, of_networks in ranks.iterrows():
        own = marks.loc[method]
        counts = ["", ""] if method == REFERENCE else [(own == BETTER).sum(), (own == WORSE).sum()]
        lines.append([name_of(method), *(f"{rank:.2f}" for rank in of_networks), *map(str, counts)])
    yield markdown_table(header, lines)


def appendix(rows: pd.DataFrame, mosaics: pd.DataFrame) -> Iterator[str]:
    """A table per network and set of images."""
    network = None
    for one in boards(rows, mosaics):
        if one.network != network:
            network = one.network
            yield f"## {title_of(network)}"
        cells = one.standings.cells
        of_mosaics = f", {cells} maps of mosaics" if cells else ""
        yield (
            f"{one.images} images{of_mosaics}, {one.steps} steps, "
            f"ranks among {len(one.standings.ranks)} methods:"
        )
        yield board(one.standings, one.shown)


def compared_methods(
    rows: pd.DataFrame, mosaics: pd.DataFrame
) -> Iterator[tuple[list[str], bool, int]]:
    """The methods of each table of a network, whether with mosaics, and the number of images.

    Methods that were measured on mosaics come first, those of most images first. Tables of others,
    and of fewer images, have the former methods, too, but no mosaics.
    """
    files_of = rows.groupby("method")["file"].agg(frozenset)
    tiled = on_mosaics(mosaics)
    groups = {(files, method in tiled) for method, files in files_of.items()}
    for files, with_mosaics in sorted(groups, key=lambda group: (-len(group[0]), not group[1])):
        methods = [
            name
            for name in list_methods()
            if files <= files_of.get(name, frozenset()) and (name in tiled or not with_mosaics)
        ]
        yield methods, with_mosaics, len(files)


def name_of(method: object) -> str:
    """A method's name in tables."""
    return f"{method} (floor)" if method in FLOORS else str(method)


def board(compared: Standings, methods: list[str]) -> str:
    """The table of a network."""
    shown = [ALL_METRICS[name] for name in SHOWN if name in compared.means]
    header = ["method", "mean rank"]
    header += [m.title if m.name in DESCRIPTIVE else m.heading for m in shown]
    lines = []
    for method, values in compared.means.loc[methods].iterrows():
        cells = [name_of(method), f"{compared.ranks[method]:.2f}"]
        for metric in shown:
            mark = compared.marks.loc[method, metric.name]
            cells.append(cell(values[metric.name], metric, compared.means[metric.name], mark))
        lines.append(cells)
    return markdown_table(header, lines)


def cell(value: float, metric: Metric, column: pd.Series[float], mark: str) -> str:
    """A mean, bold where no method has a better one, with its mark."""
    text = f"{value:.3f}"
    worst, best = (f"{end:.3f}" for end in (column.min(), column.max()))
    if not metric.higher_is_better:
        worst, best = best, worst
    if metric.name not in DESCRIPTIVE and text == best != worst:
        text = f"**{text}**"
    return text + mark


def page(path: Path, parts: Iterator[str]) -> str:
    """The page with its tables."""
    before, rest = path.read_text(encoding="utf-8").split(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"


def pages() -> dict[Path, str]:
    """Both pages, from the committed rows."""
    rows, mosaics = pd.read_csv(ROWS), pd.read_csv(MOSAIC_ROWS)
    return {
        PAGE: page(PAGE, appendix(rows, mosaics)),
        LEADERBOARD: page(LEADERBOARD, leaderboard(rows, mosaics)),
    }


def main() -> None:
    """Add rows, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="*", type=Path, help="output folder of an evaluation")
    rows, mosaics = pd.read_csv(ROWS), pd.read_csv(MOSAIC_ROWS)
    for run in parser.parse_args().run:
        rows, mosaics = with_run(rows, run), with_mosaics(mosaics, run)
    for path, table_ in ((ROWS, rows), (MOSAIC_ROWS, mosaics)):
        atomic_write(path, in_order(table_).to_csv(index=False, float_format="%.5g"))
    # From the rounded rows, which are all that others have.
    for path, text in pages().items():
        atomic_write(path, text)


if __name__ == "__main__":
    main()
