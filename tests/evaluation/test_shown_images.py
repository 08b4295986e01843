from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from squares import SPACE, Squares, squares_network

from captum_advise.evaluation import MetricSettings, evaluate
from captum_advise.evaluation.image_evaluation import ImageEvaluator
from captum_advise.evaluation.methods import Context, get_methods
from captum_advise.evaluation.pictures import as_png
from captum_advise.evaluation.report.images import embedded
from captum_advise.evaluation.shown_images import ShownImages
from captum_advise.evaluation.store import RunFolder


def costly(model, layer, inputs, target, context):
    """A saliency map after more than 100 forward passes."""
    with torch.no_grad():
        model(inputs.repeat(101, 1, 1, 1))
    inputs = inputs.requires_grad_()
    (gradients,) = torch.autograd.grad(model(inputs)[:, target].sum(), inputs)
    return gradients.abs()


def dark(model, layer, inputs, target, context):
    return 1 - inputs


def bright(model, layer, inputs, target, context):
    return inputs


METHODS = {**get_methods(["grad-cam"]), "costly": costly}


@pytest.fixture
def calls(monkeypatch):
    """The methods that were called, in order."""
    called = []
    call = ImageEvaluator._call

    def recorded(self, method, *arguments):
        called.append(method)
        return call(self, method, *arguments)

    monkeypatch.setattr(ImageEvaluator, "_call", recorded)
    return called


def run(output, methods=METHODS, **options):
    network = squares_network()
    return evaluate(
        network,
        network[3],
        Squares(3),
        methods,
        output,
        pixel_space=SPACE,
        settings=MetricSettings(steps=2),
        progress=False,
        **options,
    )


def shown(evaluation):
    network = squares_network()
    evaluator = ImageEvaluator(
        model=network,
        layer=network[3],
        methods=METHODS,
        context=Context(SPACE),
        settings=MetricSettings(steps=2),
        seed=0,
    )
    folder = RunFolder(evaluation.folder, tuple(evaluation.results), tuple(METHODS))
    return ShownImages(evaluator, Squares(3), folder, evaluation.results)


def maps_of(folder):
    return sorted((folder / "maps").glob("*"))


def test_maps_of_many_passes_are_made_once(calls, tmp_path):
    run(tmp_path)
    # Both explain the target and the runner-up. Grad-CAM is made again for the report.
    assert calls.count("costly") == 3 * 2
    assert calls.count("grad-cam") == 3 * 3
    assert len(maps_of(tmp_path)) == 3
    page = (tmp_path / "report.html").read_text()
    calls.clear()
    run(tmp_path)  # only the report
    assert set(calls) == {"grad-cam"}
    assert (tmp_path / "report.html").read_text() == page


def test_pictures_are_those_of_the_evaluated_maps(tmp_path):
    evaluation = run(tmp_path)
    read = [embedded(i, *shown(evaluation).explained(i)) for i in range(3)]
    for path in maps_of(tmp_path):
        path.unlink()
    assert read == [embedded(i, *shown(evaluation).explained(i)) for i in range(3)]
    assert len({image.maps for image in read}) == 3


@pytest.mark.parametrize("content", [b"", b"\x89PNG", None], ids=["empty", "truncated", "missing"])
def test_a_damaged_map_is_made_again(content, calls, tmp_path):
    run(tmp_path)
    page = (tmp_path / "report.html").read_text()
    damaged = maps_of(tmp_path)[0]
    damaged.unlink() if content is None else damaged.write_bytes(content)
    calls.clear()
    run(tmp_path)
    assert calls.count("costly") == 1
    assert (tmp_path / "report.html").read_text() == page


def test_maps_go_with_their_rows(calls, tmp_path):
    run(tmp_path, {"mine": bright, "costly": costly})
    kept = maps_of(tmp_path)
    calls.clear()
    run(tmp_path, {"mine": dark, "costly": costly}, recompute=True)
    assert maps_of(tmp_path) == kept
    assert set(calls) == {"mine"}
    users = tmp_path / "maps" / "mine.png"
    users.touch()
    run(tmp_path, {"mine": dark, "costly": bright}, recompute=True)
    assert maps_of(tmp_path) == [users]
    users.unlink()
    run(tmp_path, {"costly": costly}, restart=True)
    assert len(maps_of(tmp_path)) == 3
    run(tmp_path, {"mine": dark}, restart=True)
    assert not (tmp_path / "maps").exists()


def test_a_map_of_an_interrupted_run_with_other_settings_is_not_shown(tmp_path):
    """A kill can leave a map without its row. The next run may take fewer passes."""
    evaluation = run(tmp_path)
    for path in maps_of(tmp_path):
        path.write_bytes(as_png(torch.zeros(1, 24, 24)))
    images = shown(evaluation)
    assert not any(images.explained(index)[1]["costly"].any() for index in range(3))
    of_few_passes = replace(images, results=evaluation.results.assign(forward_passes=50.0))
    assert all(of_few_passes.explained(index)[1]["costly"].any() for index in range(3))
