"""The tables of docs/reference/performance.md that were measured on a CPU.

    python docs/measured/performance.py

runs ``tests/benchmarks/benchmark.py``, writes its rows to ``performance.csv`` beside this file, and
the tables to the page. Nothing else should run meanwhile. ``--tables-only`` measures nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from markdown_table import markdown_table

from captum_advise._utils.io import atomic_write

ROWS = Path(__file__).with_suffix(".csv")
PAGE = Path(__file__).parents[1] / "reference" / "performance.md"
BENCHMARK = Path(__file__).parents[2] / "tests" / "benchmarks" / "benchmark.py"


def attribution(rows: pd.DataFrame) -> str:
    """A row for each network and batch size; times are multiples of LayerGradCam's."""
    cells = []
    for (network, layer, batch), of_place in rows.groupby(
        ["network", "layer", "batch"], sort=False
    ):
        by_method = of_place.set_index("method")
        one, default = by_method.loc["LayerAdvise, one group"], by_method.loc["LayerAdvise"]
        n_groups = default["candidates"] / batch
        floor = default["times Grad-CAM and masked passes"]
        cells.append(
            [
                f"{network.partition(' ')[0]} `{layer}`",
                f"{batch:.0f}",
                f"{by_method.loc['LayerGradCam', 'ms']:.0f} ms",
                f"{one['times LayerGradCam']:.1f} x",
                f"{default['times LayerGradCam']:.1f} x",
                f"{n_groups:.1f}",
                f"{floor:.1f} x" if n_groups > 1 else "",
            ]
        )
    groups = ("groups per image", "default, multiple of Grad-CAM and masked passes")
    header = ["network, layer", "batch", "LayerGradCam", "`unit_selection=1`", "default", *groups]
    return markdown_table(header, cells)


def density(rows: pd.DataFrame) -> str:
    """A row for each number of samples, of the measurements with 2048 rows."""
    cells = [
        [
            f"{row['samples']:.0f}",
            f"{row['rows per second']:.0f}",
            f"{row['in torch, rows per second']:.0f}",
            f"{row['times ssvkernel']:.0f}",
        ]
        for _, row in rows[rows["rows"] == 2048].iterrows()
    ]
    header = ["samples per row", "rows per second, extra `fast`", "in torch"]
    return markdown_table([*header, "multiple of `adaptivekde.ssvkernel`'s speed"], cells)


def large(rows: pd.DataFrame) -> str:
    """A row for each size of the layer."""
    cells = [
        [row["positions"], f"{row['seconds']:.2f}", f"{row['peak MiB']:.0f} MiB"]
        for _, row in rows.iterrows()
    ]
    return markdown_table(["positions", "seconds", "peak memory"], cells)


def start(rows: pd.DataFrame) -> str:
    """A row for each command."""
    cells = [
        [f"`{row['what']}`", f"{row['seconds']:.2f}", f"{row['times import torch']:.2f}"]
        for _, row in rows.iterrows()
    ]
    return markdown_table(["what", "seconds", "times `import torch`"], cells)


TABLES = {"attribution": attribution, "density": density, "large": large, "start": start}


def page(rows: pd.DataFrame) -> str:
    """The page with its tables replaced."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        before, rest = text.split(f"<!-- table {name} -->")
        after = rest.split(f"<!-- end {name} -->")[1]
        own = rows[rows["table"] == name]
        where = own.iloc[0]
        made = (
            f"{where['processor']}, {where['threads']} threads, torch {where['torch']}, "
            f"{where['date']}:\n\n{table(own)}"
        )
        text = f"{before}<!-- table {name} -->\n\n{made}\n\n<!-- end {name} -->{after}"
    return text


def main() -> None:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables-only", action="store_true", help="from the committed rows")
    if not parser.parse_args().tables_only:
        command = [sys.executable, str(BENCHMARK), "--csv", str(ROWS), "--tables"]
        subprocess.run([*command, ",".join(TABLES)], check=True)
    atomic_write(PAGE, page(pd.read_csv(ROWS)))


if __name__ == "__main__":
    main()
