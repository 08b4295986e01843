"""The appendix on known truth is made from the committed rows."""

from __future__ import annotations

import importlib

import pytest

pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("known_truth")


def test_the_tables_are_those_of_the_rows(script):
    rows = pandas.read_csv(script.ROWS)
    assert script.tables(rows) in script.PAGE.read_text(encoding="utf-8")
    assert script.leaderboard(rows) in script.LEADERBOARD.read_text(encoding="utf-8")


def test_ties_go_up_as_on_the_page(script):
    # What sums in different orders leave of an exact tie.
    assert {script.two_digits(mean) for mean in (0.825, 0.82499999999999, 0.82500000000001)} == {
        "0.83"
    }
    (row,) = (line for line in script.PAGE.read_text().splitlines() if line.startswith("| ARCC"))
    mean = row.split("|")[-2].partition("/")[0].strip()
    assert f"ARCC ({mean})" in (script.EXPLANATION / "known-truth.md").read_text()


def test_the_board_ranks_methods_by_truth(script):
    rows = pandas.read_csv(script.ROWS)
    rows.loc[rows["method"] == "winsor-cam", list(script.TRUTH)] = 2.0
    lines = script.leaderboard(rows).splitlines()
    assert lines[2] == "| winsor-cam | 1.00 | 1.00 | 1.00 |"
    assert all("winsor-cam" not in line for line in lines[3:])


def test_a_rival_that_is_better_is_marked(script):
    rows = pandas.read_csv(script.ROWS)
    rows.loc[rows["method"] == "grad-cam", "top_pixels"] += 0.5
    found = script.comparison(rows, ["top_pixels"]).set_index(["network", "rival"])
    of_grad_cam = found.xs("grad-cam", level="rival")
    assert (of_grad_cam["gain"] < 0).all()
    assert (of_grad_cam["p"] < 0.001).all()
