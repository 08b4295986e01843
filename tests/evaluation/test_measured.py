"""The tables of docs/evaluation.md are those of the committed rows; the studies' scripts run."""

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

pandas = pytest.importorskip("pandas")

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+)?")


@pytest.fixture(scope="module")
def measured():
    spec = importlib.util.spec_from_file_location(
        "measured_evaluation", DOCS / "measured" / "evaluation.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_rows(measured):
    shown = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    expected = measured.page(pandas.read_csv(measured.ROWS))
    assert NUMBER.sub("#", shown) == NUMBER.sub("#", expected)
    # Other versions of SciPy differ in the last digit.
    numbers, known = (
        np.array([float(number) for number in NUMBER.findall(text)]) for text in (shown, expected)
    )
    np.testing.assert_allclose(numbers, known, rtol=0.05, atol=2e-3)


def test_a_later_run_replaces_rows(measured, tmp_path):
    rows = pandas.read_csv(measured.ROWS)
    some = rows[rows["network"] == "efficientnet-lite0"].head(3)
    network, layer = some.iloc[0][measured.WHERE]
    (tmp_path / "run.json").write_text(
        f'{{"configuration": {{"network": "{network}", "layer": "{layer}"}}}}'
    )
    changed = some.drop(columns=measured.WHERE).assign(insertion=2.0)
    changed.to_csv(tmp_path / "results.csv", index=False)
    both = measured.in_order(measured.with_run(rows, tmp_path))
    assert len(both) == len(rows)
    assert (both["insertion"] == 2).sum() == len(some)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "rules"),
    [
        ("choosing_units.py", ["--layer", "_conv_head"], 8),
        ("weighing_units.py", [], 2 * 5),
        ("weighing_units.py", ["--option"], 2),
        ("weighing_units.py", ["--control"], 2 * 2),
    ],
)
def test_studies_can_be_repeated(script, options, rules, tmp_path):
    for name in ("first", "second"):
        Image.fromarray(data.chelsea()).save(tmp_path / f"{name}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class\nfirst.png,282\nsecond.png,282\n")
    found = subprocess.run(
        [sys.executable, str(DOCS / "measured" / script), str(labels), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = list(csv.DictReader(found.stdout.splitlines()))
    assert len(rows) == rules
    assert {row["file"] for row in rows} == {"second.png"}
