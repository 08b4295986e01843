from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from captum_advise.evaluation.batches import fixed_size_batches
from captum_advise.evaluation.image_evaluation import ImageEvaluator
from squares import SIZE, SPACE

from captum_advise import AVXProtocol, LayerAdvise
from captum_advise.evaluation import Context, MethodError, MetricSettings, get_methods


@pytest.fixture
def image(squares):
    return squares.inputs[0][None]


def evaluator_of(network, methods, *, steps=32, seed=0, compiled=False):
    return ImageEvaluator(
        network, network[3], methods, Context(SPACE), MetricSettings(steps=steps), seed, compiled
    )


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
    (row,) = evaluator.rows(0, "image", image, 2)
    layer_advise = LayerAdvise(network, network[3], pixel_space=SPACE)
    explanation = layer_advise.explain(image, 2, **options)
    (maps,) = evaluator.maps("image", image, 2).values()
    torch.testing.assert_close(maps, explanation.attributions)
    assert row["class_sensitivity"] == pytest.approx(
        explanation.metrics.class_sensitivity.item(), abs=1e-5
    )
    if name != "layer-advise-reference":  # its protocol differs from the evaluator's
        for part in ("avx", "average_drop", "ssim", "fsim", "mse", "hit"):
            assert row[part] == pytest.approx(getattr(explanation.metrics, part).item(), abs=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("compiler", [None, pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_compiled_model_gives_the_same_metrics(compiler, network, image, monkeypatch):
    if compiler is None:
        monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    methods = get_methods(["layer-advise", "grad-cam"])
    expected, compiled = (
        evaluator_of(network, methods, steps=4, compiled=flag).rows(0, "image", image, 2)
        for flag in (False, True)
    )
    for row, expected_row in zip(compiled, expected, strict=True):
        for column in row.keys() - {"file", "method", "seconds", "curves"}:
            assert row[column] == pytest.approx(expected_row[column], abs=1e-5), column


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bfloat16_changes_the_metrics_a_little_and_maps_not_at_all(network, image):
    methods = get_methods(["grad-cam", "random"])
    exact = evaluator_of(network, methods, steps=4)
    rounded = replace(exact, bf16=True)
    for method, maps in exact.maps("image", image, 2).items():
        assert torch.equal(rounded.maps("image", image, 2)[method], maps)
    assert rounded.forward_func(image).dtype == torch.float32
    assert not torch.equal(rounded.forward_func(image), exact.forward_func(image))
    pairs = list(zip(rounded.rows(0, "i", image, 2), exact.rows(0, "i", image, 2), strict=True))
    for row, expected in pairs:
        # bfloat16 has eight bits of precision.
        for column in ("insertion", "deletion", "average_drop", "avx"):
            assert row[column] == pytest.approx(expected[column], abs=2**-8), column
        for column in ("ssim", "fsim", "mse", "class_sensitivity", "confidence"):
            assert row[column] == expected[column], column
    assert any(row["insertion"] != expected["insertion"] for row, expected in pairs)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_rows_do_not_depend_on_the_other_methods(batch_size, network, image):
    names = ["grad-cam", "random", "layer-cam", "gaussian"]
    evaluator = replace(
        evaluator_of(network, get_methods(names), steps=3),
        context=Context(SPACE, internal_batch_size=batch_size),
    )
    together = {row["method"]: row for row in evaluator.rows(0, "image", image, 2)}
    for some in (["random"], ["gaussian", "grad-cam"], names[1:]):
        for row in evaluator.rows(0, "image", image, 2, methods=some):
            expected = together[row["method"]]
            assert {**row, "seconds": 0} == {**expected, "seconds": 0}


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
    maps = evaluator.maps("image", image, None)
    torch.testing.assert_close(maps["summed"], image.sum(1, keepdim=True) / 4)
    for row in evaluator.rows(0, "image", image, None):
        assert row["class_sensitivity"] == pytest.approx(1, abs=1e-5)
    other_seed = evaluator_of(network, methods, seed=8).maps("image", image, None)
    assert torch.equal(maps["gaussian"], other_seed["gaussian"])
    assert not torch.equal(maps["random"], other_seed["random"])
    assert not torch.equal(maps["random"], evaluator.maps("other", image, None)["random"])
    centre = maps["gaussian"][0, 0]
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
        evaluator.rows(0, "image", image, None)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        MetricSettings(steps=0)
    with pytest.raises(ValueError, match="not accuracy"):
        MetricSettings(on_request=frozenset({"accuracy"}))
