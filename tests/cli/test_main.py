"""What holds for every command."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings

import pytest

from captum_advise import __version__, cli, zoo

SMALL = ("--model", "timm/test_resnet", "--weights", "random")
COMMANDS = ("explain", "evaluate", "sanity", "axioms")


def test_unknown_command(capsys):
    assert cli.main(["explian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "explian" in line


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"captum-advise {__version__}\n"
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "captum_advise", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"captum-advise {__version__}\n"), done.stderr


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_examples(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    examples = capsys.readouterr().out.split("Examples:")[1]
    assert f"  {' '.join(['captum-advise', *command])} " in examples


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("captum-advise ev", ["evaluate"]),
        ("captum-advise explain --model alex", ["alexnet"]),
        ("captum-advise sanity --model alex", ["alexnet"]),
    ],
)
def test_completion_in_bash(typed, completed):
    # What the script that --install-completion writes calls at every tab.
    done = subprocess.run(
        [sys.executable, "-c", "from captum_advise.cli import main; main()"],
        env={
            **os.environ,
            "_CAPTUM_ADVISE_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.filterwarnings("always")
def test_warnings_are_one_line(cat, tmp_path, capsys, monkeypatch):
    load = zoo.load

    def warn(*arguments, **options):
        warnings.warn("Something\n  odd.", UserWarning, stacklevel=1)
        return load(*arguments, **options)

    monkeypatch.setattr(zoo, "load", warn)
    shown = warnings.showwarning
    assert cli.main(["explain", str(cat), *SMALL, "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "warning: Something odd.\n"
    assert warnings.showwarning is shown


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "captum_advise.cli")
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(
        SystemExit, match=r'error: .*typer is missing: pip install "captum-advise\[demo\]"'
    ):
        importlib.import_module("captum_advise.cli")


@pytest.mark.parametrize("command", [["explain"], ["sanity"], ["evaluate", "--data", "photos"]])
def test_bugs_are_not_hidden(command, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise AttributeError("a bug")

    monkeypatch.setattr(zoo, "load", broken)
    with pytest.raises(AttributeError, match="a bug"):
        cli.main([*command, "--output", str(tmp_path)])
