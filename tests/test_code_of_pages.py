"""The Python code of README and of guides runs, from the top of a page to its end.

Other tests run targets.md, ecosystem.md and from-other-packages.md. Commands are not run: their
options must exist.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import matplotlib
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from skimage import data

from captum_advise import LayerAdvise, PixelSpace
from captum_advise import metrics as every_metric

models = pytest.importorskip("torchvision.models")
ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "how-to"
matplotlib.use("Agg")


def inputs():
    return PixelSpace.imagenet().from_pixels(
        torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    )


def names_of(page):
    """What a page says that the reader has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.resnet18().eval()
    names = {"model": model, "inputs": inputs(), "torch": torch}
    if page == "choose-units.md":
        names["advise"] = LayerAdvise(model, model.layer4, pixel_space=PixelSpace.imagenet())
    return names


def run(path, names):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
        exec(compile(block, path.name, "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("photo.jpg")
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")
def test_readme(folder):
    names = run(ROOT / "README.md", names_of("README.md"))
    assert (folder / "cat.png").is_file()
    assert names["maps"].shape == (2, 1, 64, 64)
    assert names["attributions"].shape == (2, 1, 2, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")
@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("choose-units.md", "explanation"),
        ("gated-grad-cam.md", "result"),
        ("save-plot-share.md", "page"),
    ],
)
def test_guides(page, made, folder):
    assert made in run(GUIDES / page, names_of(page))


def test_axioms(folder):
    for package in ("hypothesis", "timm"):
        pytest.importorskip(package)
    found = run(GUIDES / "test-axioms.md", {"MyMethod": LayerGradCam})
    assert "my method" in found["TestMyMethod"].subject.name
    assert found["classes"].shape == (6,)


def first_cells(path):
    """The code in the first cells of a page's tables."""
    rows = re.findall(r"^\| (`.*?) \|", path.read_text(encoding="utf-8"), re.M)
    return {name for row in rows for name in re.findall(r"`([\w+-]+)`", row)}


def test_pages_list_every_method_setting_and_metric():
    evaluation = pytest.importorskip("captum_advise.evaluation")
    guide, report = GUIDES / "evaluate-methods.md", ROOT / "docs/reference/evaluation-report.md"
    assert set(evaluation.list_methods()) <= first_cells(guide)
    assert set(evaluation.list_metrics()) <= first_cells(report)
    text = guide.read_text(encoding="utf-8")
    for method in evaluation.get_methods(evaluation.list_methods()).values():
        assert all(f"{name}={value}" in text for name, value in method.settings.items())


def letters(text):
    return re.sub(r"[^a-z+]", "", text.lower().replace("μ", "mu"))


def test_the_readme_lists_every_method_metric_and_network():
    evaluation = pytest.importorskip("captum_advise.evaluation")
    zoo = pytest.importorskip("captum_advise.zoo")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Methods, metrics, architectures")[1].split("\n## ")[0]
    methods, metrics, networks = map(letters, section.split("\n\n")[1:4])
    variants = ("-occlusion", "-minmax", "-reference", "-multi")
    for name in evaluation.list_methods():
        shown = name.removesuffix(next((v for v in variants if name.endswith(v)), ""))
        assert letters(shown.replace("layer-gradient", "gradient")) in methods
    of_modules = {name for name in every_metric.__all__ if name.islower()}
    shown = {"energy_pointing_game": "energy", "visual_explainability": "avx"}
    for name in of_modules | {*evaluation.list_metrics()} - {"forward_passes", "seconds"}:
        for part in ("_black", "_blurred", "_auc", "_against", "average_", "grid_mass", "grid_top"):
            name = shown.get(name, name).replace(part, "")
        assert letters(name) in metrics
    for name in zoo.list_networks():
        if not name.startswith("scenes-"):
            assert letters(name.split("-")[0]) in networks


def test_commands_have_the_options_that_pages_name():
    typer = pytest.importorskip("typer")
    app = importlib.import_module("captum_advise.cli.commands").app
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    found = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```(?:console|bash)\n(.*?)```", text, re.S):
            for name, arguments in re.findall(r"captum[-_]advise (\w+)(.*)", block):
                found.append((page.name, name, options[name], arguments))
            for name, arguments in re.findall(r"python ((?:docs|tests)/\S+\.py)(.*)", block):
                known = re.findall(r'"(--[\w-]+)"', (ROOT / name).read_text(encoding="utf-8"))
                found.append((page.name, name, {*known}, arguments))
    assert len(found) > 40
    wrong = [
        (page, name, option)
        for page, name, known, arguments in found
        for option in re.findall(r"(?<!\S)--[\w-]+", arguments)
        if option not in known
    ]
    assert wrong == []
