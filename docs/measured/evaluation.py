"""The measured tables of methods: the leaderboard, and the appendix of the evaluation results.

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

from captum_advise._utils.io import atomic_write
from captum_advise._utils.markdown import markdown_table
from captum_advise.evaluation.columns import METRICS, MOSAIC_METRICS, Metric
from captum_advise.evaluation.methods import list_methods
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
SHOWN = {"insertion": "insertion", "deletion": "deletion", "avx": "AVX", "average_drop": ""}

# The columns of the leaderboard. No method selects by the primary metrics.
PRIMARY = (
    *("grid_top", "road", "insertion", "insertion_black", "deletion"),
    "deletion_blurred",
)
SECONDARY = ("grid_mass", "mu_fidelity", "avx", "average_drop", "average_gain")
# What describes a map, and does not judge it.
DESCRIPTIVE = ("sparseness", "seconds")
ALL_METRICS = {metric.name: metric for metric in (*METRICS, *MOSAIC_METRICS)}
OF_MOSAICS = tuple(metric.name for metric in MOSAIC_METRICS)
# Grad-CAM's map where a mean over positions and a linear classifier follow the layer.
SAME_AS_REFERENCE = ("hirescam", "xgrad-cam", "layer-gradient-x-activation")
FLOORS = ("random", "gaussian")
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


def sections(rows: pd.DataFrame) -> Iterator[str]:
    """The tables of the appendix, those of the default layer first."""
    is_default = rows["layer"] == DEFAULT_LAYER
    for title, part in (
        ("At the default layer", rows[is_default]),
        ("At other layers", rows[~is_default]),
    ):
        if len(part):
            yield f"## {title}"
            yield from tables(part)


def tables(rows: pd.DataFrame) -> Iterator[str]:
    """One table per network, layer, number of steps and set of images."""
    for (network, layer, steps), group in rows.groupby(WHERE):
        for methods, n_images in by_images(group):
            yield f"### {title_of(network)}, `{layer}`, {n_images} images, {steps} steps"
            yield table(of_methods(group, methods), methods)


def by_images(rows: pd.DataFrame) -> Iterator[tuple[list[str], int]]:
    """The methods that were measured on the same images with Grad-CAM, the most images first."""
    files_of = rows.groupby("method")["file"].agg(frozenset)
    for files in sorted(set(files_of), key=lambda files: (-len(files), sorted(files))):
        methods = [name for name in list_methods() if files_of.get(name) == files]
        yield methods if REFERENCE in methods else [REFERENCE, *methods], len(files)


def of_methods(rows: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """The rows of methods on the images that all of them have."""
    own = rows[rows["method"].isin(methods)]
    n_methods = own.groupby("file")["method"].transform("nunique")
    return own[n_methods == len(methods)]


def table(rows: pd.DataFrame, methods: list[str]) -> str:
    """Means with intervals, and the comparison with Grad-CAM."""
    metrics = [metric for metric in METRICS if metric.name in SHOWN]
    summary = compare_methods(
        rows.rename(columns={"file": "index"}), methods, metrics, seed=0
    ).summary()
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


@dataclass(frozen=True)
class Standings:
    """How methods do on a network, the best mean rank first.

    Attributes:
        means: (methods, metrics measured); the median of the seconds.
        marks: (methods, metrics): significantly better or worse than Grad-CAM, or neither.
        ranks: The mean rank of each method.
        ranked: The metrics over which ranks are averaged: the primary ones that were measured.
        cells: Number of cells of mosaics, each with a map of its own.
    """

    means: pd.DataFrame
    marks: pd.DataFrame
    ranks: pd.Series[float]
    ranked: tuple[str, ...]
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
        means.loc[compared, of_part] = comparison.means.T
        ranks |= {
            name: pd.Series(comparison.ranks[name].mean, compared)
            for name in of_part
            if name in PRIMARY
        }
        for (baseline, method, name), difference in comparison.differences.items():
            if baseline == REFERENCE and name not in DESCRIPTIVE:
                p_values[method, name] = difference.p_value
                directions[method, name] = difference.direction
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
        tuple(name for name in PRIMARY if name in of_primary),
        int(mosaics.loc[mosaics["method"] == REFERENCE, "cells"].sum()),
    )


def on_mosaics(mosaics: pd.DataFrame) -> set[str]:
    """The methods that have Grad-CAM's mosaics."""
    cells_of = {
        str(name): own.set_index("file")["cells"].to_dict()
        for name, own in mosaics.groupby("method")
    }
    return {name for name, cells in cells_of.items() if cells == cells_of.get(REFERENCE)}


def leaderboard(rows: pd.DataFrame, mosaics: pd.DataFrame) -> Iterator[str]:
    """The tables of the leaderboard, from the rows that have all metrics; conclusions first."""
    rows = rows[(rows["layer"] == DEFAULT_LAYER) & rows["road"].notna()]
    rows = rows[~rows["method"].isin(SAME_AS_REFERENCE)]
    conclusions, boards = [], []
    for (network, layer, steps), group in rows.groupby(WHERE):
        own = mosaics[(mosaics["network"] == network) & (mosaics["layer"] == layer)]
        for number, (methods, with_mosaics, n_images) in enumerate(compared_methods(group, own)):
            compared = standings(
                of_methods(group, methods), own if with_mosaics else own[:0], methods
            )
            if number == 0:
                conclusions += in_short(title_of(network), compared)
            of_mosaics = f", {compared.cells} maps of mosaics" if compared.cells else ""
            boards += [
                f"##{'#' * (number > 0)} {title_of(network)}, {n_images} images{of_mosaics}, "
                f"{steps} steps",
                f"Mean rank over {listed(compared.ranked)}.",
                board(compared),
            ]
    if boards:
        yield "## In short"
        yield "\n".join(conclusions)
    yield from boards


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


def in_short(network: str, compared: Standings) -> Iterator[str]:
    """Who leads, and which methods differ significantly from Grad-CAM in primary metrics."""
    leader = compared.ranks.index[0]
    yield (
        f"- **{network}**: `{leader}` has the best mean rank, {compared.ranks.iloc[0]:.1f} of "
        f"{len(compared.ranks)} methods; Grad-CAM has {compared.ranks[REFERENCE]:.1f}."
    )
    primary = compared.marks[list(PRIMARY)]
    better, worse = primary == BETTER, primary == WORSE
    is_better, is_worse = better.any(axis=1), worse.any(axis=1)
    winners = [
        f"`{method}` ({listed(tuple(primary.columns[better.loc[method]]))})"
        for method in primary.index[is_better & ~is_worse]
    ]
    yield (
        "  - Significantly better than Grad-CAM, and nowhere worse: "
        f"{', '.join(winners) or 'none'}."
    )
    for text, chosen in (
        ("better in one metric and worse in another", is_better & is_worse),
        ("worse, and nowhere better", is_worse & ~is_better),
    ):
        methods = [f"`{method}`" for method in primary.index[chosen]]
        yield f"  - Significantly {text}: {', '.join(methods) or 'none'}."


def listed(metrics: tuple[str, ...]) -> str:
    """The titles of metrics in a sentence."""
    *most, last = (ALL_METRICS[name].title for name in metrics)
    return f"{', '.join(most)} and {last}" if most else last


def board(compared: Standings) -> str:
    """The table of a network."""
    shown = [ALL_METRICS[name] for name in compared.means]
    header = ["method", "mean rank"]
    header += [m.title if m.name in DESCRIPTIVE else m.heading for m in shown]
    lines = []
    for method, values in compared.means.iterrows():
        name = f"{method} (floor)" if method in FLOORS else str(method)
        cells = [name, f"{compared.ranks[method]:.2f}"]
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
    return f"{text} {mark}".rstrip()


def page(path: Path, parts: Iterator[str]) -> str:
    """The page with its tables."""
    before, rest = path.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"


def pages() -> dict[Path, str]:
    """Both pages, from the committed rows."""
    rows, mosaics = pd.read_csv(ROWS), pd.read_csv(MOSAIC_ROWS)
    return {
        PAGE: page(PAGE, sections(rows)),
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
