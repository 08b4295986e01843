from __future__ import annotations

import collections
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from pages import figures, table
from PIL import Image
from skimage import data
from torch import nn

import captum_advise
from captum_advise import GatedGradCam, cli, visualization, zoo
from captum_advise.cli import explain as explain_command
from captum_advise.cli.image_results import as_json
from captum_advise.density import _engine

SMALL = ("--model", "timm/test_resnet", "--weights", "random")


def explain(*arguments, output: Path) -> int:
    return cli.main(["explain", *map(str, arguments), "--output", str(output)])


def read_json(path: Path) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def class_of(result: dict, index: int) -> str:
    return f"class {index} ({result['setup']['class_names'][index]})"


def units_of(result: dict) -> list[int]:
    return [unit for unit, is_selected in enumerate(result["selected_units"][0]) if is_selected]


def sizes_of_groups(result: dict) -> list[tuple[int, int]]:
    return [(group["relevance"], len(group["units"])) for group in result["candidates"][0]]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the default image and network


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "results"
    finished = subprocess.run(
        [sys.executable, "-m", "captum_advise", "explain", "-o", str(output)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={key: value for key, value in os.environ.items() if key != "DISPLAY"}
        | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished, output


def test_default_run_prints_the_classes_and_what_was_found(default_run):
    finished, output = default_run
    assert finished.stderr == ""
    result = read_json(output / "chelsea.json")
    (shares,), units = result["confidences"], len(units_of(result))
    best, *others = sorted(range(1000), key=lambda index: -shares[index])[:5]
    assert finished.stdout.splitlines() == [
        f"chelsea (from scikit-image): {class_of(result, best)}, confidence {shares[best]:.1%}",
        *(f"  {shares[other]:6.1%}  {class_of(result, other)}" for other in others),
        "  GatedGradCam: from blocks.5.0.bn1, blocks.6, bn2",
        f"  LayerAdvise: relevance {result['selected'][0]} selected, {units} of 1280 units, "
        f"AVX {result['metrics']['avx'][0]:.3f}",
        f"  {output / 'chelsea.png'}",
        f"  {output / 'chelsea.json'}",
    ]


def test_verbose_prints_setup_groups_and_metrics(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, output=tmp_path) == 0
    plain = capsys.readouterr().out.splitlines()
    assert explain(cat, *SMALL, "--verbose", output=tmp_path) == 0
    verbose = capsys.readouterr().out.splitlines()
    assert [line for line in verbose if line in plain] == plain
    result = read_json(tmp_path / "cat.json")
    added = [line.strip() for line in verbose if line not in plain]
    assert added[0].startswith("setup: timm/test_resnet on ")
    groups = [f"relevance {number}: {size} unit" for number, size in sizes_of_groups(result)]
    assert [line.partition(" unit")[0] + " unit" for line in added[1 : 1 + len(groups)]] == groups
    metrics = result["metrics"]
    assert f"average drop: {metrics['average_drop'][0]:.3f}" in added
    assert f"hit: {'yes' if metrics['hit'][0] else 'no'}" in added
    assert len(added) == 1 + len(groups) + len(metrics)


def test_default_run_against_the_network_and_captum(default_run):
    result = read_json(default_run[1] / "chelsea.json")
    net = zoo.load("efficientnet-lite0")
    inputs = net.transform(zoo.example_image()).unsqueeze(0)
    confidence, index = net.model(inputs).softmax(1).max(1)
    assert result["target"] == [index.item()]
    assert result["confidence"] == pytest.approx([confidence.item()], abs=1e-5)
    assert max(result["confidences"][0]) == result["confidence"][0]
    assert "cat" in class_of(result, result["target"][0])
    grad_cam = LayerGradCam(net.model, net.layer).attribute(inputs, index)
    shown = torch.tensor(result["maps"]["grad-cam"])
    # Five significant digits.
    torch.testing.assert_close(shown, grad_cam, rtol=1e-4, atol=1e-6)
    gated = GatedGradCam(net.model, net.layers).attribute(inputs, index)
    values = torch.tensor(result["maps"]["gated-grad-cam"])
    torch.testing.assert_close(values, gated, rtol=1e-4, atol=1e-6)


def test_default_run_has_the_recommended_map_first(default_run):
    result = read_json(default_run[1] / "chelsea.json")
    assert list(result["maps"]) == ["gated-grad-cam", "layer-advise", "grad-cam"]


def test_default_run_names_the_layers_of_gated_grad_cam(default_run):
    _, output = default_run
    setup = read_json(output / "chelsea.json")["setup"]
    assert setup["gated_layers"] == ["blocks.5.0.bn1", "blocks.6", "bn2"]
    assert (setup["model"], setup["layer"]) == ("efficientnet-lite0", "bn2")


def test_default_run_selects_the_best_group(default_run):
    result = read_json(default_run[1] / "chelsea.json")
    (relevances,) = result["unit_relevance"]
    counts = collections.Counter(relevances)
    assert len(relevances) == 1280
    assert all(counts[number] == size for number, size in sizes_of_groups(result))
    best = max(result["candidates"][0], key=lambda group: group["metrics"]["avx"])
    assert result["selected"] == [best["relevance"]]
    assert result["metrics"]["avx"] == [best["metrics"]["avx"]]
    assert result["fallback"] == [False]
    assert units_of(result) == best["units"]
    assert {relevances[unit] for unit in best["units"]} == set(result["selected"])


def test_default_run_writes_a_figure(default_run):
    _, output = default_run
    assert files(output) == ["chelsea.json", "chelsea.png"]
    with Image.open(output / "chelsea.png") as figure:
        assert figure.width > 1500
        assert figure.width > 2 * figure.height
        assert np.asarray(figure.convert("L")).std() > 20


def test_html(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--html", output=tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["cat.html", "cat.json", "cat.png"]
    assert str(tmp_path / "out" / "cat.html") in capsys.readouterr().out
    page = (tmp_path / "out" / "cat.html").read_text(encoding="utf-8")
    result = read_json(tmp_path / "out" / "cat.json")
    assert f"{cat} · confidence {result['confidence'][0]:.1%}" in page
    name = result["setup"]["class_names"][result["target"][0]]
    assert f"<h2>{name}</h2>" in page
    for figure in figures(page, "Activation of unit "):
        number = int(figure.label.split()[-1])
        assert f"relevance {result['unit_relevance'][0][number]}:" in figure.caption
    gated, advise, grad_cam, *_ = figures(page, "Map of ")
    labels = [figure.label for figure in (gated, advise, grad_cam)]
    assert labels == ["Map of GatedGradCam", "Map of LayerAdvise", "Map of Grad-CAM"]
    assert gated.caption == "GatedGradCam: 160 x 160 positions"
    for shown, name in (("LayerAdvise", "layer-advise"), ("Grad-CAM", "grad-cam")):
        (avx,) = result["map_metrics"][name]["avx"]
        assert float(table(page)[shown][0]) == pytest.approx(avx, abs=6e-4)


@pytest.mark.parametrize(
    ("model", "passes"),
    [("efficientnet-lite0", 1), ("timm/test_resnet", 2)],
    ids=["known", "probe"],
)
def test_an_image_passes_at_most_twice(model, passes, cat, tmp_path, monkeypatch):
    """Once for all maps, and once more, as noise, where the layer is not known."""
    seen = []
    load = zoo.load

    def counting(*arguments, **options):
        hook = nn.modules.module.register_module_forward_pre_hook(record)
        handles.append(hook)
        network = load(*arguments, **options)
        networks.append(network)
        return network

    def record(module, inputs):
        if inputs and isinstance(inputs[0], torch.Tensor):
            seen.append((module, inputs[0].detach().clone()))

    handles, networks = [], []
    monkeypatch.setattr(zoo, "load", counting)
    try:
        assert explain(cat, "--model", model, "--weights", "random", "--html", output=tmp_path) == 0
    finally:
        for handle in handles:
            handle.remove()
    (network,) = networks
    image = network.transform(zoo.open_image(cat))[None]
    batches = [batch for module, batch in seen if module is network.model]
    # Masked images keep their black parts; noise has none of the image.
    unmasked = [batch for batch in batches if len(batch) == 1 and not is_masked(batch, image)]
    assert len(unmasked) == passes
    assert sum(torch.equal(batch, image) for batch in unmasked) == 1
    assert len(batches) > passes


def is_masked(batch, image):
    """Whether each pixel lies between that of the image and black."""
    black = image.amin()
    between = (batch <= image + 1e-4) & (batch >= black - 1e-1)
    return bool(between.all()) and not torch.equal(batch, image)


def titles(monkeypatch) -> list[list[str]]:
    """The names in the titles of the figures that are drawn from now on."""
    drawn = []
    gallery = visualization.gallery

    def recording(*arguments, **options):
        figure, axes = gallery(*arguments, **options)
        drawn.append([ax.get_title().split("\n")[0] for ax in axes[0]])
        return figure, axes

    monkeypatch.setattr(visualization, "gallery", recording)
    return drawn


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("timm/test_resnet", ["GatedGradCam", "LayerAdvise", "Grad-CAM"]),
        ("timm/test_mambaout", ["GatedGradCam", "LayerAdvise", "Grad-CAM"]),  # channels last
        ("timm/test_vit", ["LayerAdvise", "Grad-CAM"]),
    ],
)
def test_figures_have_gated_grad_cam_where_there_are_layers(
    model, names, cat, tmp_path, capsys, monkeypatch
):
    drawn = titles(monkeypatch)
    assert explain(cat, "--model", model, "--weights", "random", output=tmp_path) == 0
    (shown,) = drawn
    assert shown[1:] == names
    printed = capsys.readouterr().out
    is_found = "GatedGradCam" in names
    assert ("GatedGradCam: from " in printed) == is_found
    assert bool(read_json(tmp_path / "cat.json")["setup"]["gated_layers"]) == is_found


# --- images


def test_several_images_of_which_some_are_bad(cat, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "half.jpg").write_bytes(cat.read_bytes()[:9000])
    grey = tmp_path / "grey.png"
    Image.fromarray(data.camera()).save(grey)
    (tmp_path / "empty").mkdir()
    bad = ["missing.png", tmp_path / "notes.txt", tmp_path / "half.jpg", tmp_path / "empty"]
    output = tmp_path / "out"
    assert explain(cat, *bad, grey, *SMALL, output=output) == 1
    printed = capsys.readouterr()
    assert files(output) == ["cat.json", "cat.png", "grey.json", "grey.png"]
    complaints = printed.err.splitlines()
    assert len(complaints) == 5
    for complaint, name in zip(complaints, bad, strict=False):
        assert complaint.startswith("error: ")
        assert str(name) in complaint
    assert complaints[-1] == "error: 4 of 6 images could not be explained."
    assert len(printed.out.splitlines()) == 3


def test_images_of_the_same_name_get_different_names(cat, tmp_path):
    for folder, shade in (("a", 30), ("B", 220)):
        (tmp_path / folder).mkdir()
        Image.new("L", (60, 60), shade).save(
            tmp_path / folder / f"{'cat' if shade < 99 else 'CAT'}.png"
        )
    output = tmp_path / "out"
    images = [cat, tmp_path / "a" / "cat.png", tmp_path / "B" / "CAT.png"]
    assert explain(*images, *SMALL, output=output) == 0
    names = ["cat", "cat-2", "CAT-3"]
    assert files(output) == sorted(f"{name}.{end}" for name in names for end in ("json", "png"))
    for name, image in zip(names, images, strict=True):
        assert read_json(output / f"{name}.json")["image"] == str(image)


def test_a_image_in_the_output_folder_is_not_replaced(tmp_path):
    image = tmp_path / "grey.png"
    Image.fromarray(data.camera()).save(image)
    before = image.read_bytes()
    assert explain(image, *SMALL, output=tmp_path) == 0
    assert image.read_bytes() == before
    assert files(tmp_path) == ["grey-2.json", "grey-2.png", "grey.png"]


def test_a_failed_write_leaves_no_file(cat, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    output = tmp_path / "out"
    assert explain(cat, *SMALL, output=output) == 1
    assert f"{output / 'cat.png'} cannot be written: No space left" in capsys.readouterr().err
    assert files(output) == []


# --- many images


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time, and other tests look at them."""
    content = explain_command.content_of
    monkeypatch.setattr(
        explain_command,
        "content_of",
        lambda end, *of: b"Software\0captum-advise" if end == ".png" else content(end, *of),
    )


def test_folders_and_files_name_each_image_once(photos, tmp_path, capsys, no_figures):
    (photos / "more").mkdir()
    (photos / ".hidden").mkdir()
    Image.new("L", (50, 40), 90).save(photos / "more" / "coffee.bmp")
    Image.new("L", (50, 40), 90).save(photos / ".hidden" / "no.png")
    (photos / "notes.txt").write_text("not an image")
    odd = photos / "[b].png"
    Image.new("L", (50, 40), 120).save(odd)
    output = photos / "results"
    given = [odd, photos / "coffee.png", photos, photos / "chelsea.png"]
    for _ in range(2):  # the results of the first run are not images of the second one
        assert explain(*given, *SMALL, output=output) == 0
    names = ["[b]", "astronaut", "chelsea", "coffee", "coffee-2"]
    assert files(output) == sorted(f"{name}.{end}" for name in names for end in ("json", "png"))
    assert read_json(output / "coffee-2.json")["image"] == str(photos / "more" / "coffee.bmp")
    out = capsys.readouterr().out
    assert [out.count(f"{name}.png") for name in ("astronaut", "chelsea", "coffee")] == [2, 2, 2]
    assert out.count("[b].png") == 2  # brackets are no markup


def test_an_image_that_fails(photos, tmp_path, capsys, monkeypatch, no_figures):
    whole, bad = captum_advise.explain, Image.open(photos / "chelsea.png").tobytes()

    def fragile(image, *arguments, **options):
        if image.tobytes() == bad:
            raise RuntimeError("Out of memory.")
        return whole(image, *arguments, **options)

    monkeypatch.setattr(captum_advise, "explain", fragile)
    assert explain(photos, *SMALL, output=tmp_path) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == f"error: {photos / 'chelsea.png'}: Out of memory."
    assert errors[1] == "error: 1 of 3 images could not be explained."
    assert "coffee.json" in files(tmp_path)
    assert "chelsea.json" not in files(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_folder_that_takes_no_file_stops_the_run(
    number, photos, tmp_path, capsys, monkeypatch, no_figures
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    assert explain(photos, *SMALL, output=tmp_path) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert f"cannot be written: {os.strerror(number)}." in first
    assert second == "error: stopped after 0 of 3 images."


def test_the_output_folder_is_not_the_folder_of_images(photos, capsys, no_figures):
    assert explain(photos, *SMALL, output=photos) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "give another --output" in complaint
    assert files(photos) == ["astronaut.png", "chelsea.png", "coffee.png"]


def test_a_line_per_image(photos, tmp_path, capsys, no_figures):
    output = tmp_path / "out"
    assert explain(photos, *SMALL, output=output) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("astronaut", "chelsea", "coffee"), strict=True):
        result = read_json(output / f"{name}.json")
        (target,), units = result["target"], len(units_of(result))
        assert line == (
            f"{photos / name}.png: {class_of(result, target)}, confidence "
            f"{result['confidence'][0]:.1%}; LayerAdvise: relevance {result['selected'][0]} "
            f"selected, {units} of 96 units, AVX {result['metrics']['avx'][0]:.3f}"
        )
    assert last == f"Results: {output}"


def test_a_stopped_run_keeps_what_is_done(photos, tmp_path, capsys, monkeypatch, no_figures):
    whole, last = captum_advise.explain, Image.open(photos / "coffee.png").tobytes()

    def stopped(image, *arguments, **options):
        if image.tobytes() == last:
            raise KeyboardInterrupt
        return whole(image, *arguments, **options)

    monkeypatch.setattr(captum_advise, "explain", stopped)
    assert explain(photos, *SMALL, output=tmp_path / "out") == 130
    assert capsys.readouterr().err == "stopped after 2 of 3 images\n"
    names = [f"{name}.{end}" for name in ("astronaut", "chelsea") for end in ("json", "png")]
    assert files(tmp_path / "out") == names


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_is_told_of_compilation(
    is_terminal, cat, tmp_path, capsys, monkeypatch, no_figures
):
    monkeypatch.setattr(_engine, "must_compile", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    assert explain(cat, *SMALL, output=tmp_path) == 0
    assert ("compiles" in capsys.readouterr().err) == is_terminal


def test_kernels_are_compiled_once(tmp_path):
    pytest.importorskip("numba")
    code = "from captum_advise.density._engine import must_compile; print(must_compile())"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert first.stdout == "True\n"
    captum_advise.unit_relevance(torch.rand(1, 1, 7, 7))
    assert not _engine.must_compile()


# --- files of the user

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="no such files")


def test_files_of_the_user_are_not_replaced(cat, photos, tmp_path):
    """Whatever their names: cat.png, cat.json, the cat.html of a site."""
    site = tmp_path / "site"
    site.mkdir()
    own = {"cat.png": b"a photo", "coffee.json": b"{}", "chelsea.html": b"<title>my site</title>"}
    for name, content in own.items():
        (site / name).write_bytes(content)
    for _ in range(2):  # the second run replaces the files of the first one
        assert explain(cat, photos, *SMALL, "--html", output=site) == 0
        assert {name: (site / name).read_bytes() for name in own} == own
        endings = ("html", "json", "png")
        made = ["cat-2", "coffee-2", "chelsea-2", "astronaut"]
        assert files(site) == sorted([*own, *(f"{name}.{end}" for name in made for end in endings)])


def test_files_of_a_first_run_are_replaced(cat, tmp_path, no_figures):
    for target in ("tabby", "EGYPTIAN"):
        assert explain(cat, *SMALL, "--target", target, output=tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["cat.json", "cat.png"]
    assert read_json(tmp_path / "out" / "cat.json")["target"] == [285]


def test_a_figure_that_is_explained_is_not_replaced(cat, tmp_path):
    assert explain(cat, *SMALL, output=tmp_path) == 0
    before = (tmp_path / "cat.png").read_bytes()
    assert explain(tmp_path / "cat.png", *SMALL, output=tmp_path) == 0
    assert (tmp_path / "cat.png").read_bytes() == before
    assert "cat-2.png" in files(tmp_path)


@not_on_windows
def test_folders_say_what_they_skip(photos, tmp_path, capsys, no_figures):
    Image.open(photos / "coffee.png").save(photos / "moving.gif")
    for name in ("a.heic", "b.HEIC", "readme"):
        (photos / name).write_bytes(b"not read")
    os.mkfifo(photos / "pipe.png")
    assert explain(photos, *SMALL, output=tmp_path) == 0
    printed = capsys.readouterr().err
    assert printed == "4 files skipped: .heic, .png, without ending\n"
    assert "moving.json" in files(tmp_path)


@not_on_windows
def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    assert explain(tmp_path / "pipe.png", *SMALL, output=tmp_path / "out") == 1
    assert "pipe.png is not a file, but a folder, a pipe or a device." in capsys.readouterr().err


@not_on_windows
def test_names_do_nothing_to_the_terminal(cat, photos, tmp_path, capsys, no_figures):
    evil = photos / "\x1b[2J\x1b]0;title\x07.jpg"
    cat.rename(evil)
    (photos / "\x1b[31m.png").write_text("not an image")
    (photos / "\u202egnp\nerror: fake.png").write_text("not an image")
    assert explain(photos, *SMALL, output=tmp_path) == 1
    assert explain(evil, *SMALL, output=tmp_path / "one") == 0
    printed = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(printed.out + printed.err)
    assert printed.out.count(r"\x1b[2J") >= 2
    assert r"\x1b[31m.png is not an image" in printed.err
    assert r"\u202egnp\nerror: fake.png is not an image" in printed.err
    assert "\nerror: fake" not in printed.err
    assert "\u202e" not in printed.err


# --- options


def test_target_by_name(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--target", "EGYPTIAN", output=tmp_path) == 0
    result = read_json(tmp_path / "cat.json")
    assert result["target"] == [285]
    assert "explained: class 285 (Egyptian cat)" in capsys.readouterr().out


def test_selection_of_relevances(cat, tmp_path, capsys):
    assert explain(cat, *SMALL, "--selection", "1,2", output=tmp_path) == 0
    result = read_json(tmp_path / "cat.json")
    selected = [
        unit for unit, relevance in enumerate(result["unit_relevance"][0]) if relevance in (1, 2)
    ]
    assert units_of(result) == selected
    assert f"{len(selected)} of 96 units" in capsys.readouterr().out


def test_selection_that_no_unit_has(cat, photos, tmp_path, capsys, no_figures):
    for images, shown in (([cat], cat), ([cat, photos / "coffee.png"], photos / "coffee.png")):
        assert explain(*images, *SMALL, "--selection", "98,99", output=tmp_path / "out") == 1
        printed = capsys.readouterr()
        complaint = printed.err.splitlines()[len(images) - 1]
        assert complaint.startswith(f"error: {shown}: 1 of 1 examples have no unit with relevance")
        assert "98 or 99, so their maps are zero: the units have relevance 0 to " in complaint
        assert "warning" not in printed.err
        assert files(tmp_path / "out") == []


def test_selection_by_average_drop(cat, tmp_path):
    assert explain(cat, *SMALL, "--selection", "average_drop", output=tmp_path) == 0
    result = read_json(tmp_path / "cat.json")
    least = min(group["metrics"]["average_drop"] for group in result["candidates"][0])
    assert result["metrics"]["average_drop"] == pytest.approx([least], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "resnt50"), "did you mean resnet50"),
        (("--layer", "conv_hed"), "did you mean conv_head"),
        (("--target", "blob"), "no class 'blob'"),
        (("--target", "1000"), "0 to 999"),
        (("--selection", "best"), "--selection must be"),
        (("--selection", "-1"), "--selection must be"),
        (("--device", "gpu"), "not 'gpu'"),
        (("--weights", "w.pth"), 'weights must be "default" or "random"'),
        (("--colour", "red"), "--colour"),
        (("--model",), "--model"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    assert cli.main(["explain", "-o", str(tmp_path / "out"), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (complaint,) = printed.err.splitlines()
    assert complaint.startswith("error: ")
    assert message in complaint
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert explain(output=tmp_path / "out") == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "out cannot be made: a file has this name; give another --output." in complaint


def test_numbers_of_json():
    content = {"a": [float("nan"), 1.0], "b": -float("inf"), "c": (2, True, "x"), "d": 1 / 3}
    assert as_json(content) == '{"a": [null, 1.0], "b": null, "c": [2, true, "x"], "d": 0.33333}'
    assert as_json([123456.7, 1e-9 / 3, 123456]) == "[123460.0, 3.3333e-10, 123456]"
