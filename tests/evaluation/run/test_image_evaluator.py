from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from squares import SIZE, SPACE

from captum_advise import AVXProtocol, LayerAdvise
from captum_advise.evaluation import Context, MethodError, MetricSettings, get_methods
from captum_advise.evaluation.columns import get_metrics
from captum_advise.evaluation.data.items import Item
from captum_advise.evaluation.run.image_evaluator import ImageEvaluator
from captum_advise.evaluation.run.passes import fixed_size_batches


@pytest.fixture
def image(squares):
    return squares.inputs[0][None]


def evaluator_of(network, methods, *, steps=32, seed=0, **settings):
    settings = MetricSettings(steps=steps, **settings)
    return ImageEvaluator(network, network[3], methods, Context(SPACE), settings, seed)


def rows(evaluator, image, target, methods=None):
    """The values and curves of each method, without the time."""
    metrics = [m for m in get_metrics(["default", "mu_fidelity"]) if m.of == "images"]
    wanted = methods or list(evaluator.methods)
    found = evaluator.rows(Item("image", image, target), wanted, metrics)
    return {name: {**row.values, "seconds": 0} for name, row in found.items()}


def maps(evaluator, image, target, name="image"):
    item = Item(name, image, target)
    scorer = evaluator._scorer(item)
    return {own: evaluator._explained(own, item, scorer, False).maps for own in evaluator.methods}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("layer-advise", {}),
        ("layer-advise-minmax", {"activation_range": "minmax"}),
        ("layer-advise-reference", {"protocol": AVXProtocol.reference()}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_metrics_of_advise_are_those_of_its_own_explanation(name, options, network, image):
    evaluator = evaluator_of(network, get_methods([name]), steps=2)
    (row,) = rows(evaluator, image, 2).values()
    layer_advise = LayerAdvise(network, network[3], pixel_space=SPACE, **options)
    explanation = layer_advise.explain(image, 2)
    (own,) = maps(evaluator, image, 2).values()
    torch.testing.assert_close(own, explanation.attributions)
    assert row["class_sensitivity"] == pytest.approx(
        explanation.metrics.class_sensitivity.item(), abs=1e-5
    )
    if name != "layer-advise-reference":  # its protocol differs from the evaluator's
        for part in ("avx", "average_drop", "ssim", "fsim", "mse", "hit"):
            expected = float(getattr(explanation.metrics, part))
            assert row[part] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_rows_do_not_depend_on_the_other_methods(batch_size, network, image):
    names = ["grad-cam", "random", "layer-cam", "gaussian"]
    evaluator = replace(
        evaluator_of(network, get_methods(names), steps=3),
        context=Context(SPACE, internal_batch_size=batch_size),
    )
    together = rows(evaluator, image, 2)
    for some in (["random"], ["gaussian", "grad-cam"], names[1:]):
        for method, row in rows(evaluator, image, 2, some).items():
            assert row == together[method]


def test_every_batch_has_one_size():
    sizes = []

    def forward(inputs):
        sizes.append(len(inputs))
        return inputs.flatten(1)

    run = fixed_size_batches(forward, 4)
    for n in range(1, 5):
        inputs = torch.rand(n, 3, 2, 2)
        assert torch.equal(run(inputs), inputs.flatten(1))
    assert sizes == [4] * 4


def test_channels_are_summed_and_floors_do_not_depend_on_the_class(network, image):
    methods = {
        "summed": lambda *_: image / 4,
        **get_methods(["random", "gaussian"]),
    }
    evaluator = evaluator_of(network, methods, steps=2, seed=7)
    own = maps(evaluator, image, None)
    torch.testing.assert_close(own["summed"], image.sum(1, keepdim=True) / 4)
    for row in rows(evaluator, image, None).values():
        assert row["class_sensitivity"] == pytest.approx(1, abs=1e-5)
    other_seed = maps(evaluator_of(network, methods, seed=8), image, None)
    assert torch.equal(own["gaussian"], other_seed["gaussian"])
    assert not torch.equal(own["random"], other_seed["random"])
    assert not torch.equal(own["random"], maps(evaluator, image, None, "other")["random"])
    centre = own["gaussian"][0, 0]
    assert centre.argmax() in (SIZE // 2 * SIZE + SIZE // 2, (SIZE // 2 - 1) * (SIZE + 1))
    torch.testing.assert_close(centre, centre.flip(0, 1))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda *_: torch.zeros(3), r"the method broken returned \(3,\) instead of maps"),
        (
            lambda *_: torch.full((1, 1, 2, 2), torch.nan),
            "method broken returned a map with inf",
        ),
        (lambda *_: 1 / 0, "the method broken failed: division by zero"),
    ],
)
def test_a_result_that_is_not_a_map_is_an_error_that_names_the_method(
    broken, sentence, network, image
):
    evaluator = evaluator_of(network, {"broken": broken})
    with pytest.raises(MethodError, match=sentence):
        rows(evaluator, image, None)
