"""The evaluation tables are those of the committed rows, and the studies' scripts run."""

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
    page = measured.PAGE.read_text(encoding="utf-8")
    expected_page = measured.page(pandas.read_csv(measured.ROWS))
    assert NUMBER.sub("#", page) == NUMBER.sub("#", expected_page)
    # Other versions of SciPy differ in the last digit.
    numbers, expected = (
        np.array([float(number) for number in NUMBER.findall(text)])
        for text in (page, expected_page)
    )
    np.testing.assert_allclose(numbers, expected, rtol=0.05, atol=2e-3)


def test_the_default_layer_comes_first(measured):
    rows = pandas.read_csv(measured.ROWS)
    rows = rows[(rows["network"] == "efficientnet-lite0") & (rows["layer"] == "_bn1")]
    rows = rows[rows["method"].isin(["grad-cam", "advise-faithful"])]
    both = pandas.concat([rows, rows.assign(layer=measured.DEFAULT_LAYER)])
    headings = [text for text in measured.sections(both) if text.startswith("#")]
    assert headings == [
        "## At the default layer",
        "### EfficientNet-Lite0, `bn2`, 100 images",
        "### EfficientNet-Lite0, `bn2`, 50 images",
        "## At other layers",
        "### EfficientNet-Lite0, `_bn1`, 100 images",
        "### EfficientNet-Lite0, `_bn1`, 50 images",
    ]


def test_a_later_run_replaces_rows(measured, tmp_path):
    rows = pandas.read_csv(measured.ROWS)
    replaced = rows[rows["network"] == "efficientnet-lite0"].head(3)
    network, layer = replaced.iloc[0][measured.WHERE]
    (tmp_path / "run.json").write_text(
        f'{{"configuration": {{"network": "{network}", "layer": "{layer}"}}}}'
    )
    changed = replaced.drop(columns=measured.WHERE).assign(insertion=2.0)
    changed.to_csv(tmp_path / "results.csv", index=False)
    merged = measured.in_order(measured.with_run(rows, tmp_path))
    assert len(merged) == len(rows)
    assert (merged["insertion"] == 2).sum() == len(replaced)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "rules"),
    [
        ("choosing_units.py", ["--layer", "conv_head"], 8),
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
    process = subprocess.run(
        [sys.executable, str(DOCS / "measured" / script), str(labels), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = list(csv.DictReader(process.stdout.splitlines()))
    assert len(rows) == rules
    assert {row["file"] for row in rows} == {"second.png"}
