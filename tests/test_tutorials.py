"""The tutorials are committed with the outputs of a run: clean, small, and those of a run today."""

from __future__ import annotations

import ast
import copy
import pkgutil
import re
from itertools import zip_longest
from pathlib import Path

import nbformat
import pytest
from captum.attr import LayerGradCam
from nbclient import NotebookClient

from captum_advise.axioms import AXIOMS

FOLDER = Path(__file__).parent.parent / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 600_000

# How far a number of a stored output may be from that of a run on another processor, with another
# number of threads or another version of torch; at least one step of its last digit.
TOLERANCES = {"decimal": 0.005, "percent": 0.5, "integer": 0}
# Notebook 3 trains its networks, and rounding grows with every step.
TOLERANCES_WHERE_TRAINED = {"decimal": 0.1, "percent": 10, "integer": 4}
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?%?")

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


def texts(cell):
    """What a cell printed, then its results as text; nothing of a figure."""
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    results = [
        holder[kind]
        for output in cell.outputs
        for holder, kind in places_of_texts(output)
        if kind != "text"
    ]
    return [printed, *map(without_style, results)]


def places_of_texts(output):
    """Where an output holds text: what was printed, or a result; a table is there twice."""
    data = output.get("data", {})
    if "image/jpeg" in data:
        return []
    places = [(output, "text"), (data, "text/html"), (data, "text/plain")]
    return [(holder, kind) for holder, kind in places if kind in holder]


def without_style(text):
    """Blanks in place of the style sheet of a table."""
    return re.sub(r"<style.*?</style>", lambda style: " " * len(style[0]), text, flags=re.DOTALL)


def images_of(cell):
    return sum("image/jpeg" in output.get("data", {}) for output in cell.outputs)


def kind(number):
    return "percent" if "%" in number else "decimal" if "." in number else "integer"


def value(number):
    return float(number.rstrip("%"))


def tolerance(number, tolerances):
    digits = len(number.rstrip("%").partition(".")[2])
    step = 0 if kind(number) == "integer" else 10**-digits
    return max(tolerances[kind(number)], step) + 1e-9


def differences(stored, run, tolerances):
    """Where the outputs of two runs of the same cells differ, as sentences."""
    found = []
    for index, (before, after) in enumerate(zip(stored, run, strict=True)):
        if images_of(before) != images_of(after):
            found.append(f"cell {index}: another number of figures")
        for old, new in zip_longest(texts(before), texts(after), fillvalue=""):
            if NUMBER.sub("#", old).split() != NUMBER.sub("#", new).split():
                found.append(f"cell {index}: stored {old!r}, a run gives {new!r}")
                continue
            for one, other in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
                far = abs(value(one) - value(other)) > tolerance(one, tolerances)
                if kind(one) != kind(other) or far:
                    found.append(f"cell {index}: stored {one}, a run gives {other}")
    return found


def tolerances_of(path):
    return TOLERANCES_WHERE_TRAINED if path.stem.startswith("03") else TOLERANCES


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


@each_notebook
def test_a_number_changed_by_hand_is_noticed(path):
    _, cells = read(path)
    assert differences(cells, cells, tolerances_of(path)) == []
    places = [
        (index, position, number, match.start())
        for index, cell in enumerate(cells)
        for position, output in enumerate(cell.outputs)
        for number, (holder, kind) in enumerate(places_of_texts(output))
        for match in NUMBER.finditer(without_style(holder[kind]))
    ]
    assert places
    for index, position, number, start in places:
        changed = copy.deepcopy(cells)
        holder, kind = places_of_texts(changed[index].outputs[position])[number]
        holder[kind] = f"{holder[kind][:start]}9{holder[kind][start:]}"
        assert len(differences(changed, cells, tolerances_of(path))) == 1


@pytest.mark.parametrize(
    ("text", "is_noticed"),
    [
        ("AVX 0.746, 39.5%, 115 units", False),
        ("AVX 0.743, 39.2%, 115 units", False),
        ("AVX 0.756, 39.5%, 115 units", True),
        ("AVX 0.746, 40.5%, 115 units", True),
        ("AVX 0.746, 39.5%, 116 units", True),
        ("AVX 0.746, 39.5%, 115 groups", True),
        ("AVX 0.746, 39.5%", True),
    ],
)
def test_small_differences_are_those_of_rounding(text, is_noticed):
    stored, run = (
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=printed)])
        for printed in ("AVX 0.746, 39.5%, 115 units", text)
    )
    assert bool(differences([stored], [run], TOLERANCES)) == is_noticed


@each_notebook
def test_decimals_of_the_prose_are_those_of_the_outputs(path):
    notebook, cells = read(path)
    shown = " ".join(text for cell in cells for text in [*texts(cell), cell.source])
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for number in re.findall(r"(?<![\w.(/])\d+\.\d+%?", prose):
        assert number in shown, number


def test_the_suite_in_the_prose_tests_a_method():
    code = "\n".join(
        block
        for path in NOTEBOOKS
        for cell in read(path)[0].cells
        if cell.cell_type == "markdown"
        for block in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
    )
    names = {"MyMethod": LayerGradCam}
    exec(code, names)
    # It requires a counterexample to an axiom that the suite names, and none to others.
    for axiom in ("dummy_location", "dummy_class"):
        names["TestMyMethod"]().test_axiom(AXIOMS[axiom])


@pytest.mark.slow
@each_notebook
def test_runs_offline_with_the_stored_numbers_and_without_warnings(path, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no server listens there
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))  # without earlier downloads
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook, cells = read(path)
    stored = copy.deepcopy(cells)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert errors_and_warnings(code_cells(notebook)) == []
    assert differences(stored, code_cells(notebook), tolerances_of(path)) == []
