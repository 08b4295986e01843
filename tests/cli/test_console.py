from __future__ import annotations

import warnings

import pytest
from messages import one_sentence
from rich.table import Table

from captum_advise.cli.console import make_folder, progress, show, show_error, warnings_in_one_line


def test_lines_are_not_wrapped_and_not_markup(capsys):
    text = "[bold] :smile:" + " word" * 60
    show(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_tables_and_errors(capsys):
    table = Table("metric", "value")
    table.add_row("AVX", "0.5")
    show(table)
    show_error("no such file.")
    printed = capsys.readouterr()
    assert "AVX" in printed.out
    assert printed.err == "error: no such file.\n"


@pytest.mark.filterwarnings("always")
def test_warnings_in_one_line(capsys):
    before = warnings.showwarning
    with warnings_in_one_line():
        warnings.warn("two\n  lines", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: two lines\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize("hidden", [True, False])
def test_progress_is_silent_without_a_terminal(capsys, hidden):
    assert list(progress([1, 2, 3], "numbers", hidden=hidden)) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_folders(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"file cannot be made: a file has this name; give another --output\."
    ) as error:
        make_folder(tmp_path / "file")
    one_sentence(error)
