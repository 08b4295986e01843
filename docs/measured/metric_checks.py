"""Which metric to trust: the table of docs/explanation/which-metric-to-trust.md.

    python docs/measured/metric_checks.py RUN
    python docs/measured/metric_checks.py --tables

RUN is the output folder of ``captum-advise evaluate --check-metrics``. Its rows replace those of
metric_checks.csv beside this file, one per image, or image of mosaics, and change of the map; then
the table of the page is written. ``--tables`` writes only the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from captum_advise._utils.io import atomic_write
from captum_advise._utils.markdown import markdown_table
from captum_advise.evaluation.columns import METRICS, MOSAIC_METRICS, Metric
from captum_advise.evaluation.metric_checks import SECTIONS, compare_changes
from captum_advise.evaluation.mosaics import by_image
from captum_advise.evaluation.report.statistics import SIGNIFICANCE, holm

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "explanation" / "which-metric-to-trust.md"
START, END = "<!-- table: docs/measured/metric_checks.py -->", "<!-- end of table -->"
# Bold where a metric gets significantly worse, italic where it gets better.
MARKS = {"worse": "**", "better": "*", "": ""}
# Before the name of an image, in rows of its cells in mosaics.
IN_MOSAICS = "in mosaics: "
TITLES = {"root": "square root"}


def rows_of(run: Path) -> pd.DataFrame:
    """The rows of a run, by the image's name; those of mosaics apart."""
    results = pd.read_csv(run / "results.csv")
    results["item"] = results["file"].map(lambda file: Path(file).name)
    parts = [results]
    of_cells = run / "mosaics" / "results.csv"
    if of_cells.exists():
        mosaics = by_image(pd.read_csv(of_cells))
        mosaics["item"] = mosaics["index"].map(lambda file: IN_MOSAICS + Path(file).name)
        parts.append(mosaics)
    rows = pd.concat(parts).rename(columns={"method": "change"})
    tested = [m.name for m in (*METRICS, *MOSAIC_METRICS) if m.tested and m.name in rows]
    return rows[["item", "change", *tested]]


def checks(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of ``check_metrics``, with corrected p values."""
    rows = rows.rename(columns={"item": "index", "change": "method"})
    of_mosaics = rows["index"].str.startswith(IN_MOSAICS)
    parts: list[tuple[pd.DataFrame, tuple[Metric, ...]]] = [(rows[~of_mosaics], METRICS)]
    if of_mosaics.any():
        parts.append((rows[of_mosaics], MOSAIC_METRICS))
    table = compare_changes([(part.dropna(axis=1, how="all"), of) for part, of in parts])
    table["p_value"] = holm(table["p_value"])
    return table


def verdict(entry: pd.Series) -> str:
    """Whether a change makes a metric significantly worse, better, or neither."""
    if not entry["p_value"] < SIGNIFICANCE or entry["worse"] == entry["better"]:
        return ""
    return "worse" if entry["worse"] > entry["better"] else "better"


def area(root: str, square: str) -> str:
    """Which maps a metric favours among those with the same order of pixels."""
    return {("better", "worse"): "large", ("worse", "better"): "small"}.get((root, square), "")


def table(rows: pd.DataFrame) -> str:
    """One row per metric, one column per change."""
    found = checks(rows)
    changes = [change for section in SECTIONS for change in section.changes]
    metrics = {metric.name: metric for metric in (*METRICS, *MOSAIC_METRICS)}
    lines = []
    for name, entries in found.groupby("metric", sort=False):
        entries = entries.set_index("change")
        verdicts = {change: verdict(entries.loc[change]) for change in changes}
        cells = [metrics[name].heading]
        for section in SECTIONS:
            for change in section.changes:
                mark = MARKS[verdicts[change]]
                cells.append(f"{mark}{entries.loc[change, section.column]:.0%}{mark}")
        lines.append([*cells, area(verdicts["root"], verdicts["square"])])
    header = ["metric", *(TITLES.get(change, change) for change in changes), "favoured area"]
    of_mosaics = rows["item"].str.startswith(IN_MOSAICS)
    n_images, n_tiles = (rows.loc[part, "item"].nunique() for part in (~of_mosaics, of_mosaics))
    return f"{n_images} images, {n_tiles} of them in mosaics.\n\n{markdown_table(header, lines)}"


def page(rows: pd.DataFrame) -> str:
    """The page with its table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Take the rows of a run, or only write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("run", nargs="?", type=Path, help="output folder of an evaluation")
    choice.add_argument("--tables", action="store_true", help="only, from the committed rows")
    run = parser.parse_args().run
    if run is not None:
        atomic_write(ROWS, rows_of(run).to_csv(index=False, float_format="%.5g"))
    # From the rounded rows, which are all that others have.
    atomic_write(PAGE, page(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
