"""The tutorials are committed with their outputs: without warnings, small, in order."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 600_000

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    return notebook, code_cells(notebook)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def all_outputs(cells):
    return [output for cell in cells for output in cell.outputs]


def errors_and_warnings(cells):
    """The messages of errors, and everything that was written to stderr."""
    return [
        output.get("text") or output.get("evalue")
        for output in all_outputs(cells)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def parsed(cell):
    return ast.parse(re.sub(r"(?m)^%.*$", "", cell.source))


def package_names(cells):
    """Dotted names of what the code takes from this package."""
    nodes = [node for cell in cells for node in ast.walk(parsed(cell))]
    imports = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module.startswith("captum_advise")
        for alias in node.names
    }
    attributes = [
        f"{imports[node.value.id]}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in imports
    ]
    return [*imports.values(), *attributes]


def test_the_readme_lists_every_notebook():
    assert len(NOTEBOOKS) == 6
    text = (FOLDER / "README.md").read_text()
    assert re.findall(r"\((\w+\.ipynb)\)", text) == [path.name for path in NOTEBOOKS]


@each_notebook
def test_is_committed_with_clean_outputs(path):
    notebook, cells = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    # From top to bottom, in one run.
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all_outputs(cells)
    assert errors_and_warnings(cells) == []
    assert path.stat().st_size < MAX_BYTES
    assert not re.search(r"/(home|root|tmp|work|opt|usr|Users)/", nbformat.writes(notebook))
    # A figure as a result must be shown as an image, not as its repr.
    assert "<Figure size" not in "".join(
        output.data.get("text/plain", "")
        for output in all_outputs(cells)
        if output.output_type == "execute_result" and "image/jpeg" not in output.data
    )


@each_notebook
def test_links_and_names_of_the_package_exist(path):
    notebook, cells = read(path)
    for name in re.findall(r"\]\((\w+\.ipynb)\)", nbformat.writes(notebook)):
        assert (FOLDER / name).exists(), name
    for text in re.findall(r"`(docs/[\w./-]+)`", nbformat.writes(notebook)):
        assert (FOLDER.parent / text).exists(), text
    for dotted in package_names(cells):
        pkgutil.resolve_name(dotted)


@pytest.mark.slow
@each_notebook
def test_runs_offline_without_warnings(path, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no server listens there
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))  # without earlier downloads
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook, _ = read(path)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert errors_and_warnings(code_cells(notebook)) == []
