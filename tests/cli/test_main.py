"""What holds for every command."""

from __future__ import annotations

import gc
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from functools import partial

import pytest

from captum_advise import __version__, cli, zoo

SMALL = ("--model", "timm/test_resnet", "--weights", "random")
COMMANDS = ("explain", "evaluate", "layers", "sanity", "axioms", "app")
MAIN = "import sys; from captum_advise.cli import main; sys.exit(main())"
HEAVY = {"captum", "matplotlib", "numpy", "pandas", "PIL", "scipy", "timm", "torch", "torchvision"}


def test_unknown_command(capsys):
    assert cli.main(["explian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "explian" in line
    assert "?." not in line


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"captum-advise {__version__}\n"
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_only_a_process_of_its_own_looks_for_less_garbage():
    before = gc.get_threshold(), gc.get_freeze_count()
    assert cli.main(["--version"]) == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    code = MAIN.replace("main())", "main() or gc.get_threshold()[0] < 10_000)")
    assert subprocess.run([sys.executable, "-c", f"import gc; {code}", "--version"]).returncode == 0
    # But not for long: what images leave behind would grow.
    code = MAIN.replace("main())", "main() or gc.get_threshold()[0] > 10_000)")
    command = ["layers", "--model", "scenes-plain"]
    assert subprocess.run([sys.executable, "-c", f"import gc; {code}", *command]).returncode == 0


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="tells glibc what to keep"
)
def test_memory_is_used_again():
    # 64 MB, as a pass makes and frees them: the system clears their pages once.
    code = """
        import resource, numpy
        from captum_advise.cli.process import begin_imports, end_imports
        begin_imports()
        end_imports()
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            numpy.full(1 << 23, 1.0)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        first, second = faults(), faults()
        assert second < first / 10, (first, second)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


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


def completing(typed):
    """The environment in which the script of --install-completion calls us at every tab."""
    return {
        "_CAPTUM_ADVISE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("captum-advise ev", ["evaluate"]),
        ("captum-advise explain --model alex", ["alexnet"]),
        ("captum-advise sanity --model alex", ["alexnet"]),
    ],
)
def test_completion_in_bash(typed, completed):
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env={**os.environ, **completing(typed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([], {}),
        (["--version"], {}),
        (["explian"], {}),
        *(([command, "--help"], {}) for command in COMMANDS),
        ([], completing("captum-advise ev")),
        ([], completing("captum-advise explain --model alex")),
    ],
)
def test_help_and_completion_do_not_wait_for_torch(arguments, environment):
    code = f"""
import atexit, json, sys
atexit.register(lambda: sys.stderr.write("\\n" + json.dumps(list(sys.modules))))
{MAIN}"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    modules = {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert {"captum_advise", "typer"} <= modules
    assert not modules & HEAVY


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
@pytest.mark.parametrize("package", ["typer", "torch"])
def test_an_interrupt_during_imports_shows_no_traceback(package, tmp_path):
    # A package that takes long to import, and says when it begins.
    slow = tmp_path / f"{package}.py"
    slow.write_text("import time; print('now', flush=True); time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "explain", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's job in the background ignores the signal, and so would its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout.readline() == "now\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1].strip() in ("", "Aborted.")
        assert process.returncode == 130


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


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "captum_advise.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert cli.main(["--help"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith('typer is missing: pip install "captum-advise[demo]".')


@pytest.mark.parametrize("command", [["explain"], ["sanity"], ["evaluate", "--data", "photos"]])
def test_bugs_are_not_hidden(command, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise AttributeError("a bug")

    monkeypatch.setattr(zoo, "load", broken)
    with pytest.raises(AttributeError, match="a bug"):
        cli.main([*command, "--output", str(tmp_path)])
