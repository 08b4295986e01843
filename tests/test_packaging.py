"""What the package's metadata promise."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = (".bib", ".ipynb", ".json", ".md", ".py", ".txt", ".yaml", ".yml")


@pytest.fixture(scope="module")
def project():
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_package_is_typed():
    assert resources.files("captum_advise").joinpath("py.typed").is_file()


def test_extras_that_messages_name_exist(project):
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "captum_advise").rglob("*.py"))
    named = set(re.findall(r'import_optional\([^()]*,\s*"(\w+)"\)', code))
    assert {"zoo", "demo", "evaluation"} <= named
    assert named <= set(project["optional-dependencies"])


def test_extras_that_extras_name_exist(project):
    extras = project["optional-dependencies"]
    for requirements in extras.values():
        for requirement in requirements:
            inner = re.fullmatch(r"captum-advise\[([\w,]+)\]", requirement)
            assert inner is None or set(inner[1].split(",")) <= set(extras)


def test_the_repositorys_address_stands_in_one_place(project):
    address = project["urls"]["Repository"].removeprefix("https://")
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != "pyproject.toml"]
    for folder in (".ci", ".github", "captum_advise", "docs", "packaging", "tests", "tutorials"):
        files += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.suffix in SUFFIXES and not {"_build", "venv", "lowest-venv"} & {*path.parts}
        ]
    assert not [path for path in files if address in path.read_text(encoding="utf-8")]
