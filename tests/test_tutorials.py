"""The tutorials are committed as they run: with outputs, without warnings, small, in order."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 600_000

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(code):
    return [output for cell in code for output in cell.outputs]


def complaints(code):
    """What was written to stderr, warnings among it, and errors."""
    return [
        output.get("text") or output.get("evalue")
        for output in outputs(code)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_there_are_tutorials_and_the_readme_lists_each():
    assert len(NOTEBOOKS) == 5
    text = (FOLDER / "README.md").read_text()
    assert re.findall(r"\((\w+\.ipynb)\)", text) == [path.name for path in NOTEBOOKS]


@each
def test_committed_as_it_runs(path):
    notebook, code = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    # Run from top to bottom, in one go.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert outputs(code)
    assert complaints(code) == []
    assert path.stat().st_size < MOST_BYTES
    shown = nbformat.writes(notebook)
    assert not re.search(r"/(home|root|tmp|work|opt|usr|Users)/", shown)
    assert "<Figure size" not in "".join(
        output.data.get("text/plain", "")
        for output in outputs(code)
        if output.output_type == "execute_result" and "image/jpeg" not in output.data
    )


@each
def test_names_of_other_notebooks_and_of_the_package_exist(path):
    notebook, code = read(path)
    for name in re.findall(r"\]\((\w+\.ipynb)\)", nbformat.writes(notebook)):
        assert (FOLDER / name).exists(), name
    for cell in code:
        ast.parse(re.sub(r"(?m)^%.*$", "", cell.source))


@pytest.mark.slow
@each
def test_runs_offline_without_a_warning(path, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))  # nothing that was downloaded before
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook, _ = read(path)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert complaints([cell for cell in notebook.cells if cell.cell_type == "code"]) == []
