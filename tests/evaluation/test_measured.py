"""The evaluation tables are those of the committed rows, and a study's script runs."""

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from skimage import data

pandas = pytest.importorskip("pandas")

DOCS = Path(__file__).parents[2] / "docs"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+)?")


@pytest.fixture(scope="module")
def measured():
    return importlib.import_module("evaluation")


@pytest.fixture(scope="module")
def trusted():
    return importlib.import_module("metric_checks")


@pytest.fixture(scope="module")
def several():
    return importlib.import_module("several_layers")


@pytest.fixture(scope="module")
def stability():
    return importlib.import_module("relevance_stability")


@pytest.fixture(scope="module")
def performance():
    return importlib.import_module("performance")


def test_the_pages_show_the_rows(measured, trusted, several, stability):
    others = {
        trusted.PAGE: trusted.page(pandas.read_csv(trusted.ROWS)),
        several.PAGE: several.page(several.read_rows()),
        stability.PAGE: stability.page(pandas.read_csv(stability.ROWS)),
    }
    for path, expected_page in {**measured.pages(), **others}.items():
        page = path.read_text(encoding="utf-8")
        assert NUMBER.sub("#", page) == NUMBER.sub("#", expected_page)
        # Other versions of SciPy differ in the last digit.
        numbers, expected = (
            np.array([float(number) for number in NUMBER.findall(text)])
            for text in (page, expected_page)
        )
        np.testing.assert_allclose(numbers, expected, rtol=0.05, atol=2e-3)


def test_the_page_of_times_shows_the_rows(performance):
    if not performance.ROWS.exists():
        pytest.skip("docs/measured/performance.py was not run yet")
    shown = performance.PAGE.read_text(encoding="utf-8")
    assert shown == performance.page(pandas.read_csv(performance.ROWS))


def test_tables_of_times_by_hand(performance):
    place = {"network": "alexnet (random)", "layer": "features.10", "batch": 8, "candidates": 16}
    times = {"LayerGradCam": 100.0, "LayerAdvise, one group": 150.0, "LayerAdvise": 250.0}
    rows = pandas.DataFrame(
        {
            "table": "attribution",
            **place,
            "method": method,
            "ms": ms,
            "times LayerGradCam": ms / 100,
            "times Grad-CAM and masked passes": ms / 200,
        }
        for method, ms in times.items()
    )
    last = performance.attribution(rows).splitlines()[-1]
    assert last == "| alexnet `features.10` | 8 | 100 ms | 1.5 x | 2.5 x | 2.0 | 1.2 x |"
    rows = pandas.DataFrame(
        [
            {"what": "import torch", "seconds": 2.0, "times import torch": 1.0},
            {"what": "TAB", "seconds": 0.5, "times import torch": 0.25},
        ]
    )
    assert performance.start(rows).splitlines()[-1] == "| `TAB` | 0.50 | 0.25 |"


def save_run(folder, rows, where):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"configuration": where}))
    rows.to_csv(folder / "results.csv", index=False)


def test_a_later_run_replaces_rows_of_as_many_steps(measured, tmp_path):
    rows = pandas.read_csv(measured.ROWS)
    replaced = rows[(rows["network"] == "efficientnet-lite0") & (rows["steps"] == 16)].head(3)
    where = {name: replaced.iloc[0][name] for name in ("network", "layer")}
    changed = replaced.drop(columns=measured.WHERE).assign(insertion=2.0)
    for steps, added in ((16, 0), (7, 3)):
        save_run(tmp_path, changed, {**where, "steps": steps})
        merged = measured.in_order(measured.with_run(rows, tmp_path))
        assert len(merged) == len(rows) + added
        assert (merged["insertion"] == 2).sum() == len(replaced)


def test_two_images_of_one_name_are_refused(measured, tmp_path):
    rows = pandas.read_csv(measured.ROWS)
    twice = pandas.concat([rows.head(2).assign(file=f"{cls}/1.jpg") for cls in ("cat", "dog")])
    save_run(tmp_path, twice.drop(columns=measured.WHERE), rows.iloc[0][measured.WHERE].to_dict())
    with pytest.raises(ValueError, match="two images of one name"):
        measured.with_run(rows, tmp_path)


WHERE = {"network": "toy", "layer": "bn2", "steps": 4}
# Higher is better for all but the last.
MERITS = {"grad-cam": 0.4, "hirescam": 0.4, "layer-cam": 0.6, "random": 0.1, "lime": 0.5}


@pytest.fixture(scope="module")
def toy(measured):
    """Rows made by hand; lime and random have no mosaics, and lime has fewer images."""
    rng = np.random.default_rng(0)
    images, mosaics = [], []
    for method, merit in MERITS.items():
        for number in range(6 if method == "lime" else 12):
            row = dict.fromkeys([*measured.PRIMARY, *measured.SECONDARY], merit)
            row |= {"deletion": 1 - merit, "deletion_blurred": 0.5, "average_drop": 0.2}
            row |= {"mu_fidelity": rng.random(), "sparseness": merit}
            row["seconds"] = 100 if number == 0 else merit
            images.append({**WHERE, "file": f"{number}.jpg", "method": method, **row})
        for number in range(0 if method in ("lime", "random") else 8):
            row = {"file": f"{number}.jpg", "cells": 2, "method": method}
            row |= {"grid_top": merit, "grid_mass": 1 - merit}
            mosaics.append({**WHERE, **row})
    return pandas.DataFrame(images), pandas.DataFrame(mosaics)


def cells_of(text):
    """The cells of a table in Markdown, by method and heading."""
    header, _, *lines = (
        [cell.strip() for cell in line[1:-1].split("|")] for line in text.split("\n")
    )
    return {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}


def test_the_appendix_by_hand(measured, toy):
    title, first, main, second, whole, third, few = measured.appendix(*toy)
    assert title == "## toy"
    assert first == "12 images, 16 maps of mosaics, 4 steps, ranks among 2 methods:"
    table = cells_of(main)
    assert list(table) == ["layer-cam", "grad-cam"]
    # Five metrics order the methods; in the sixth they share the ranks 1 and 2.
    assert [row["mean rank"] for row in table.values()] == ["1.08", "1.92"]
    # 8 equal differences: p = 2**-7, after 6 of 11 tests with p = 2**-11.
    assert table["layer-cam"]["top pixels in the cell ↑"] == "**0.600**+"
    assert table["layer-cam"]["deletion AUC ↓"] == "**0.400**+"
    assert table["layer-cam"]["deletion to blurred ↓"] == "0.500"
    assert table["layer-cam"]["seconds"] == "0.600"  # the median
    assert not {"sparseness", "AVX ↑"} & {*table["layer-cam"]}
    # Random has no mosaics. What was listed is not listed again, but Grad-CAM.
    assert second == "12 images, 4 steps, ranks among 3 methods:"
    table = cells_of(whole)
    assert list(table) == ["grad-cam", "random (floor)"]
    # Four metrics order the methods; in the fifth they share the ranks 1 to 3.
    assert [row["mean rank"] for row in table.values()] == ["2.00", "2.80"]
    assert table["grad-cam"]["ROAD ↑"] == "0.400"
    assert table["random (floor)"]["ROAD ↑"] == "0.100-"
    assert "top pixels in the cell ↑" not in table["grad-cam"]
    assert third == "6 images, 4 steps, ranks among 4 methods:"
    table = cells_of(few)
    assert list(table) == ["lime", "grad-cam"]
    assert table["lime"]["ROAD ↑"] == "0.500"  # p = 2**-5
    assert [row["mean rank"] for row in table.values()] == ["2.10", "2.90"]


def test_the_leaderboard_by_hand(measured, toy):
    rows, mosaics = toy
    second = {"network": "efficientnet-lite9"}
    (table,) = measured.leaderboard(
        pandas.concat([rows, rows.assign(**second)]),
        pandas.concat([mosaics, mosaics.assign(**second)]),
    )
    table = cells_of(table)
    assert table["layer-cam"] == {
        "EfficientNet-Lite9": "1.08",
        "toy": "1.08",
        # All primary metrics but deletion to blurred, on two networks.
        "better, of 12": "10",
        "worse, of 12": "0",
    }
    assert list(table) == ["layer-cam", "grad-cam"]
    assert table["grad-cam"]["better, of 12"] == ""


def test_marks_are_those_of_corrected_tests(measured, toy):
    rows, mosaics = toy
    rng = np.random.default_rng(1)
    names = [name for name in (*measured.PRIMARY, *measured.SECONDARY) if name in rows]
    noise = rng.normal(scale=0.15, size=(len(rows), len(names)))
    rows = rows.assign(**dict(zip(names, (rows[names] + noise).T.to_numpy(), strict=True)))
    methods = ["grad-cam", "layer-cam", "random"]
    compared = measured.standings(measured.of_methods(rows, methods), mosaics[:0], methods)
    assert not set(measured.OF_MOSAICS) & set(compared.means)
    p_values = {}
    for name in set(names) - set(measured.OF_MOSAICS):
        values = rows.pivot(index="file", columns="method", values=name)
        for method in methods[1:]:
            gain = values[method] - values["grad-cam"]
            p_values[method, name] = (stats.wilcoxon(gain).pvalue, gain.mean())
    # Holm, step by step.
    expected, rejected = {}, True
    for number, (key, (p_value, gain)) in enumerate(
        sorted(p_values.items(), key=lambda x: x[1][0])
    ):
        rejected = rejected and p_value * (len(p_values) - number) < 0.05
        sign = -1 if key[1] in ("deletion", "deletion_blurred", "average_drop") else 1
        expected[key] = ("+" if gain * sign > 0 else "-") if rejected else ""
    assert {key: compared.marks.loc[key] for key in expected} == expected
    assert {*expected.values()} == {"+", "-", ""}


def test_mosaics_of_a_run(measured, toy, tmp_path):
    _, earlier = toy
    cells = pandas.DataFrame(
        {
            "index": range(8),
            # The second mosaic has three images of the first.
            "file": [
                f"mosaic {i // 4 + 1}, cell {i % 4 + 1}: /data/a: {tile}.jpg"
                for i, tile in enumerate([0, 1, 2, 3, 4, 0, 1, 2])
            ],
            "method": "grad-cam",
            "grid_mass": np.arange(8) / 8,
            "grid_top": 0.5,
        }
    )
    earlier = earlier[["network", "layer", "file", "method", "cells", "grid_mass", "grid_top"]]
    save_run(tmp_path, cells, WHERE)
    for rows in (earlier, earlier[:0]):
        merged = measured.in_order(measured.with_mosaics(rows, tmp_path))
        own = merged[merged["method"] == "grad-cam"]
        assert own["file"].tolist() == [f"a: {i}.jpg" for i in range(5)]
        assert own["cells"].tolist() == [2, 2, 2, 1, 1]
        assert own["grid_mass"].tolist() == [2.5 / 8, 3.5 / 8, 4.5 / 8, 3 / 8, 4 / 8]
        others = rows[rows["method"] != "grad-cam"]
        assert len(merged) == len(others) + 5
    save_run(tmp_path, cells.assign(file="a.jpg"), WHERE)
    assert measured.with_mosaics(earlier, tmp_path) is earlier


def test_what_a_metric_notices_by_hand(trusted, tmp_path):
    # Every change by 0.1, but blur, which leaves half of the images: p is at most 2**-11.
    by_change = {"original": 0.5, "shifted": 0.4, "shuffled": 0.6, "other class": 0.4}
    by_change |= {"random": 0.4, "root": 0.6, "square": 0.4, "blurred": 0.5}
    results = pandas.DataFrame(
        {
            "index": index,
            "file": f"/data/{index}.jpg",
            "method": change,
            "insertion": value + 0.2 * (change == "blurred") * (index % 2 - 0.5),
            "deletion": value,
            "seconds": 1,
        }
        for index in range(12)
        for change, value in by_change.items()
    )
    cells = pandas.DataFrame(
        {
            "index": index,
            "file": f"mosaic {index // 4 + 1}, cell {index % 4 + 1}: /data/{index // 4}.jpg",
            "method": change,
            "grid_top": 0.5 if index % 4 else value,
            "grid_mass": 0.5,
        }
        for index in range(8)
        for change, value in by_change.items()
    )
    rows = trusted.rows_of(pandas.concat([results, cells]))
    assert rows.columns.tolist() == [
        *("item", "change", "insertion", "deletion", "grid_mass", "grid_top"),
    ]
    assert rows["item"].unique().tolist() == [
        *(f"{index}.jpg" for index in range(12)),
        *("in mosaics: 0.jpg", "in mosaics: 1.jpg"),
    ]
    shown = rows[(rows["item"] == "in mosaics: 1.jpg") & (rows["change"] == "shifted")]
    assert shown["grid_top"].tolist() == [pytest.approx((0.4 + 3 * 0.5) / 4)]
    counts, text = trusted.table(rows).split("\n\n")
    assert counts == "12 images, 2 of them in mosaics."
    table = cells_of(text)
    assert table["insertion AUC ↑"] == {
        "shifted": "**100%**",
        "shuffled": "*0%*",
        "blurred": "50%",
        "other class": "**100%**",
        "random": "**100%**",
        "square root": "*100%*",
        "square": "**0%**",
        "favoured area": "large",
    }
    assert table["deletion AUC ↓"]["favoured area"] == "small"
    assert table["deletion AUC ↓"]["shuffled"] == "**100%**"
    # Two images cannot be significant.
    assert table["top pixels in the cell ↑"]["shifted"] == "100%"


@pytest.mark.slow
def test_the_study_of_unit_groups_can_be_repeated(tmp_path):
    for name in ("first", "second"):
        Image.fromarray(data.chelsea()).save(tmp_path / f"{name}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class\nfirst.png,282\nsecond.png,282\n")
    process = subprocess.run(
        [sys.executable, str(DOCS / "measured" / "choosing_units.py"), str(labels)],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = list(csv.DictReader(process.stdout.splitlines()))
    assert len(rows) == 8  # rules
    assert {row["file"] for row in rows} == {"second.png"}
