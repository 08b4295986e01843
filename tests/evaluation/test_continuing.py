"""A run knows its inputs: what has changed is computed again or refused."""

from __future__ import annotations

import json
import shutil
import types
import warnings
from functools import partial

import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients
from squares import SPACE, Squares, squares_network
from torch import nn
from torchvision.transforms import v2

from captum_advise import zoo
from captum_advise.evaluation import (
    MethodError,
    MetricSettings,
    OutputError,
    evaluate,
    image_dataset,
)
from captum_advise.evaluation.columns import NOT_REPRODUCIBLE
from captum_advise.evaluation.data import ImageDataset

STEPS = MetricSettings(steps=1)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Reports are tested elsewhere; these runs write the summary only."""
    from captum_advise.evaluation.report import page

    def write_summary(folder, *, results, **_):
        results.to_csv(folder / "summary.csv")

    monkeypatch.setattr(page, "write_report", write_summary)


def dark(model, layer, inputs, target, context):
    return (1 - inputs).mean(1, keepdim=True)


def bright(model, layer, inputs, target, context):
    return inputs.mean(1, keepdim=True)


def run(output, dataset=None, methods=("random", "gaussian"), network=None, **options):
    network = squares_network() if network is None else network
    dataset = Squares(3) if dataset is None else dataset
    given = {"pixel_space": SPACE, "settings": STEPS, "progress": False, **options}
    return evaluate(network, network[3], dataset, methods, output, **given)


def table(evaluation):
    return evaluation.results.drop(columns=list(NOT_REPRODUCIBLE))


def counts(evaluation):
    return evaluation.reused, evaluation.evaluated, evaluation.changed, evaluation.left_out


def edited(n=3, **changes):
    """Squares with some attributes replaced."""
    squares = Squares(n)
    for name, value in changes.items():
        setattr(squares, name, value)
    return squares


def with_image(index, image):
    inputs = Squares(3).inputs
    inputs[index] = image
    return edited(inputs=inputs)


def with_target(index, target):
    targets = Squares(3).targets
    targets[index] = target
    return edited(targets=targets)


class TestDataInPython:
    def test_the_same_data_are_reused(self, tmp_path):
        first = run(tmp_path)
        assert counts(first) == (0, 3, 0, 0)
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        assert first.results["content"].nunique() == 3
        pd.testing.assert_frame_equal(again.results, first.results)

    @pytest.mark.parametrize(
        "changed",
        [
            with_image(1, Squares(3).inputs[1].flip(2)),
            with_image(1, Squares(3).inputs[1].double().float() * 0.5),
            with_target(1, 5),
            with_target(0, None),
        ],
        ids=["flipped", "darker", "target", "no target"],
    )
    def test_another_tensor_or_target_is_evaluated_again(self, changed, tmp_path):
        run(tmp_path / "changed")
        evaluation = run(tmp_path / "changed", changed)
        assert counts(evaluation) == (2, 1, 1, 0)
        fresh = run(tmp_path / "fresh", changed)
        pd.testing.assert_frame_equal(table(evaluation), table(fresh))
        assert counts(run(tmp_path / "changed", changed)) == (3, 0, 0, 0)

    def test_shape_and_type_count(self, tmp_path):
        run(tmp_path)
        squares = Squares(3)
        squares.inputs[0] = squares.inputs[0].transpose(1, 2).contiguous()
        assert counts(run(tmp_path, squares)) == (2, 1, 1, 0)

    def test_images_that_have_moved_are_reused(self, tmp_path):
        run(tmp_path / "moved")
        squares = Squares(3)
        for attribute in (squares.inputs, squares.names, squares.targets):
            attribute[0], attribute[2] = attribute[2], attribute[0]
        evaluation = run(tmp_path / "moved", squares)
        assert counts(evaluation) == (3, 0, 0, 0)
        assert evaluation.results["file"].unique().tolist() == ["square 2", "square 1", "square 0"]
        pd.testing.assert_frame_equal(table(evaluation), table(run(tmp_path / "fresh", squares)))

    def test_images_are_left_out_and_come_back(self, tmp_path):
        first = run(tmp_path)
        fewer = run(tmp_path, Squares(2))
        assert counts(fewer) == (2, 0, 0, 1)
        assert fewer.results["file"].unique().tolist() == ["square 0", "square 1"]
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        pd.testing.assert_frame_equal(again.results, first.results)
        assert counts(run(tmp_path, Squares(4))) == (3, 1, 0, 0)
        renamed = edited(4, names=["square 0", "square 1", "other", "square 3"])
        assert counts(run(tmp_path, renamed)) == (3, 1, 0, 1)

    def test_data_with_nothing_in_common_are_refused(self, tmp_path):
        before = run(tmp_path).results
        others = edited(names=["a", "b", "c"])
        with pytest.raises(ValueError, match=r"square 0.* restart=True .*--restart"):
            run(tmp_path, others)
        pd.testing.assert_frame_equal(run(tmp_path).results, before)
        assert counts(run(tmp_path, others, restart=True)) == (0, 3, 0, 0)

    def test_changed_rows_stay_until_the_run_has_ended(self, tmp_path):
        first = run(tmp_path)

        class Stopped(Squares):
            def __getitem__(self, index):
                if index == 2:
                    raise KeyboardInterrupt
                inputs, target = super().__getitem__(index)
                return inputs.flip(2), target

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Stopped(3))
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        pd.testing.assert_frame_equal(again.results, first.results)
        # And should they come back later.
        assert counts(run(tmp_path, with_image(0, Squares(3).inputs[0] / 2))) == (2, 1, 1, 0)
        assert counts(run(tmp_path)) == (3, 0, 0, 0)

    def test_a_stopped_change_is_not_computed_twice(self, tmp_path):
        run(tmp_path)
        flipped = [image.flip(2) for image in Squares(3).inputs]

        class Stopped(Squares):
            def __getitem__(self, index):
                # The two changed ones are read to compare them, then to evaluate them.
                if index == 2 and (tmp_path / "results.rank0.csv").exists():
                    raise KeyboardInterrupt
                return flipped[index], self.targets[index]

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Stopped(3))
        evaluation = run(tmp_path, edited(inputs=flipped))
        assert counts(evaluation) == (2, 1, 1, 0)
        assert len(evaluation.results) == 6

    def test_an_image_that_can_no_longer_be_read_is_a_failure(self, tmp_path):
        run(tmp_path)

        class Torn(Squares):
            def __getitem__(self, index):
                if index == 1:
                    raise ValueError("The image is torn.")
                return super().__getitem__(index)

        evaluation = run(tmp_path, Torn(3))
        assert evaluation.failures["file"].tolist() == ["square 1"]
        assert evaluation.results["index"].unique().tolist() == [0, 2]
        assert counts(evaluation) == (2, 0, 0, 0)
        # Its rows are not lost, should the image come back as it was.
        assert counts(run(tmp_path)) == (3, 0, 0, 0)
        assert not list(tmp_path.glob("results.rank*"))

    def test_results_survive_data_that_cannot_be_read_for_a_while(self, tmp_path):
        before = run(tmp_path).results

        class Unmounted(Squares):
            def __getitem__(self, index):
                raise OSError("The disk is gone")

        for _ in range(2):
            with pytest.raises(ValueError, match="None of the 3 images"):
                run(tmp_path, Unmounted(3))
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        pd.testing.assert_frame_equal(again.results, before)

    def test_results_survive_a_change_after_which_nothing_can_be_evaluated(self, tmp_path):
        before = run(tmp_path).results
        tiny = edited(inputs=[torch.zeros(3, 1, 1)] * 3)
        with pytest.raises(ValueError, match="None of the 3 images"):
            run(tmp_path, tiny)
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        pd.testing.assert_frame_equal(again.results, before)

    def test_strange_names_are_the_same_again(self, tmp_path):
        strange = edited(names=["a\nb", "c\0d", 'é,"\udcff'])
        first = run(tmp_path, strange)
        assert first.results["file"].nunique() == 3
        assert counts(run(tmp_path, strange)) == (3, 0, 0, 0)

    def test_data_without_names_are_known_by_position(self, tmp_path):
        pairs = [(image, 1) for image in Squares(3).inputs]
        run(tmp_path, pairs)
        assert counts(run(tmp_path, pairs[:2])) == (2, 0, 0, 1)

    def test_names_must_fit_the_data(self, tmp_path):
        with pytest.raises(ValueError, match="2 names for 3 images"):
            run(tmp_path / "out", edited(names=["a", "b"]))
        assert not (tmp_path / "out").exists()


MANY = ("grad-cam", "random", "layer-cam", "gaussian", "lime")
QUICK_LIME = {"method_settings": {"lime_samples": 10, "lime_grid": 2}}


def rows_of(folder):
    """``results.csv`` without the columns that differ from run to run, as text."""
    return pd.read_csv(folder / "results.csv", dtype=str).drop(columns=list(NOT_REPRODUCIBLE))


class TestMethods:
    @pytest.mark.parametrize("steps", [1, 4])
    def test_adding_gives_the_rows_of_one_go(self, steps, tmp_path):
        options = {**QUICK_LIME, "settings": MetricSettings(steps=steps), "internal_batch_size": 4}
        run(tmp_path / "one", methods=MANY, **options)
        run(tmp_path / "two", Squares(2), methods=MANY[1:2], **options)
        added = run(tmp_path / "two", methods=MANY[:3], **options)
        assert counts(added) == (0, 3, 0, 0)
        assert added.extended == 2
        run(tmp_path / "two", methods=MANY, **options)
        pd.testing.assert_frame_equal(rows_of(tmp_path / "two"), rows_of(tmp_path / "one"))

    def test_only_what_is_missing_is_computed(self, tmp_path):
        calls = []

        def counted(model, layer, inputs, target, context):
            calls.append(1)
            return inputs.mean(1, keepdim=True)

        # The list would count as a change.
        first = run(tmp_path, methods={"dark": dark})
        method = types.MethodType(lambda self, *arguments: counted(*arguments), object())
        run(tmp_path, methods={"dark": dark, "counted": method})
        assert len(calls) == 2 * 3  # the target and the runner-up class
        calls.clear()
        fewer = run(tmp_path, methods={"dark": dark})
        pd.testing.assert_frame_equal(fewer.results, first.results)
        assert fewer.summary["method"].unique().tolist() == ["dark"]
        assert calls == []

    def test_methods_left_out_come_back(self, tmp_path):
        first = run(tmp_path)
        run(tmp_path, methods=["gaussian"])
        again = run(tmp_path)
        assert counts(again) == (3, 0, 0, 0)
        pd.testing.assert_frame_equal(again.results, first.results)
        # In another order.
        turned = run(tmp_path, methods=["gaussian", "random"])
        assert turned.results["method"].tolist() == ["gaussian", "random"] * 3

    def test_an_added_method_that_fails_loses_nothing_and_may_be_corrected(self, tmp_path):
        before = run(tmp_path, methods={"dark": dark}).results

        def added(*_):
            raise RuntimeError("not yet")

        with pytest.raises(MethodError, match=r"images all fail.* added failed: not yet"):
            run(tmp_path, Squares(4), methods={"dark": dark, "added": added})

        def added(model, layer, inputs, target, context):
            return inputs.mean(1, keepdim=True)

        run(tmp_path, methods={"dark": dark, "added": added})
        again = run(tmp_path, methods={"dark": dark})
        pd.testing.assert_frame_equal(again.results, before)

    def test_an_image_on_which_an_added_method_fails_keeps_its_rows(self, tmp_path):
        before = run(tmp_path, methods={"dark": dark}).results
        dull = Squares(3).inputs[1]

        def fussy(model, layer, inputs, target, context):
            if torch.equal(inputs[0], dull):
                raise ValueError("too dull")
            return inputs.mean(1, keepdim=True)

        evaluation = run(tmp_path, methods={"dark": dark, "fussy": fussy})
        assert evaluation.failures["file"].tolist() == ["square 1"]
        assert evaluation.results["index"].tolist() == [0, 0, 2, 2]
        again = run(tmp_path, methods={"dark": dark})
        pd.testing.assert_frame_equal(again.results, before)


class TestRecompute:
    def test_other_settings_are_computed_again(self, tmp_path):
        run(tmp_path / "a")
        other = {"settings": MetricSettings(steps=2, on_request=frozenset({"infidelity"}))}
        evaluation = run(tmp_path / "a", recompute=True, **other)
        assert counts(evaluation) == (0, 3, 0, 0)
        pd.testing.assert_frame_equal(table(evaluation), table(run(tmp_path / "b", **other)))

    def test_a_stopped_one_continues(self, tmp_path):
        run(tmp_path)

        class Stopped(Squares):
            def __getitem__(self, index):
                if index == 2:
                    raise KeyboardInterrupt
                return super().__getitem__(index)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Stopped(3), seed=1, recompute=True)
        assert not (tmp_path / "results.csv").exists()
        refused("seed was 1 and is now 0", tmp_path)
        assert counts(run(tmp_path, seed=1, recompute=True)) == (2, 1, 0, 0)

    def test_nothing_is_computed_where_nothing_differs(self, tmp_path):
        run(tmp_path)
        assert counts(run(tmp_path, recompute=True)) == (3, 0, 0, 0)

    def test_it_excludes_a_restart(self, tmp_path):
        with pytest.raises(ValueError, match="restart or recompute, not both"):
            run(tmp_path / "new", restart=True, recompute=True)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("on_request", [(), ("infidelity",)])
def test_the_parquet_file_is_the_table(on_request, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    settings = MetricSettings(steps=1, on_request=frozenset(on_request), n_perturb_samples=1)
    strange = edited(names=["a\nb", "nan", 'é,"\udcff'])
    evaluation = run(tmp_path, strange, settings=settings)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "results.parquet"),
        # Counts that may be missing, as those of saved maps.
        evaluation.results.astype({"forward_passes": "Int64"}),
    )
    schema = parquet.read_schema(tmp_path / "results.parquet")
    header = (tmp_path / "results.csv").read_text(errors="replace").partition("\n")[0]
    assert schema.names == header.split(",")
    # Values such as 0 or 1 do not make a column of real numbers one of integers.
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert {kinds[name] for name in ("index", "target", "hit", "forward_passes")} == {"int64"}
    assert {kinds[name] for name in ("avx", "insertion", "seconds", "mse")} == {"double"}
    assert {kinds[name].removeprefix("large_") for name in ("file", "method")} == {"string"}


def zoo_network(transform):
    model = squares_network()
    return zoo.Network("net", model, model[3], "3", SPACE, transform, ("a",) * 7, "random")


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, image):
        small = v2.functional.to_image(image.convert("RGB").resize((24, 24)))
        return v2.functional.to_dtype(small, torch.float32, scale=True).as_subclass(
            torch.Tensor
        ) * (self.factor)


def run_files(output, data, *, factor=1.0, limit=None, **options):
    network = zoo_network(Scale(factor))
    dataset = image_dataset(data, network, limit=limit)
    return run(output, dataset, network=network.model, **options)


class TestFiles:
    def test_another_image_under_the_same_name_is_evaluated_again(self, photos, tmp_path):
        first = run_files(tmp_path / "out", photos)
        shutil.copy(photos / "coffee.png", photos / "chelsea.png")
        evaluation = run_files(tmp_path / "out", photos)
        assert counts(evaluation) == (2, 1, 1, 0)
        assert first.results["content"].nunique() == 3
        assert evaluation.results["content"].nunique() == 2
        pd.testing.assert_frame_equal(
            table(evaluation), table(run_files(tmp_path / "fresh", photos))
        )

    def test_finished_files_are_not_decoded_again(self, photos, tmp_path, monkeypatch):
        run_files(tmp_path / "out", photos)

        def opened(*_):
            raise AssertionError("a file was decoded")

        monkeypatch.setattr(zoo, "open_image", opened)
        assert counts(run_files(tmp_path / "out", photos)) == (3, 0, 0, 0)

    def test_another_class_is_evaluated_again(self, photos, tmp_path):
        csv = photos / "table.csv"
        csv.write_text("file,class\nchelsea.png,1\ncoffee.png,2\n")
        run_files(tmp_path / "out", csv)
        csv.write_text("file,class\nchelsea.png,1\ncoffee.png,3\n")
        evaluation = run_files(tmp_path / "out", csv)
        assert counts(evaluation) == (1, 1, 1, 0)
        assert sorted(evaluation.results["target"].unique()) == [1, 3]

    def test_the_folder_may_be_named_in_another_way_or_moved(self, photos, tmp_path, monkeypatch):
        output = tmp_path / "out"
        run_files(output, photos)
        monkeypatch.chdir(photos.parent)
        (tmp_path / "link").symlink_to(photos)
        for same in ("photos", "photos/", "./photos", "photos/../photos", "link"):
            assert counts(run_files(output, same)) == (3, 0, 0, 0)
        photos.rename(tmp_path / "moved")
        assert counts(run_files(output, "moved")) == (3, 0, 0, 0)
        information = json.loads((output / "run.json").read_text())
        assert "photos" not in json.dumps(information["configuration"])
        assert information["data"]["path"].endswith("moved")

    def test_a_limit_may_be_raised_and_lowered(self, photos, tmp_path):
        whole = run_files(tmp_path / "whole", photos)
        run_files(tmp_path / "out", photos, limit=1)
        evaluation = run_files(tmp_path / "out", photos)
        assert counts(evaluation) == (1, 2, 0, 0)
        pd.testing.assert_frame_equal(table(evaluation), table(whole))
        fewer = run_files(tmp_path / "out", photos, limit=2)
        assert counts(fewer) == (2, 0, 0, 1)
        assert fewer.results["index"].unique().tolist() == [0, 1]
        assert counts(run_files(tmp_path / "out", photos)) == (3, 0, 0, 0)

    def test_another_transform_is_refused(self, photos, tmp_path):
        run_files(tmp_path / "out", photos)
        with pytest.raises(
            ValueError, match=r"the transform of the images \(.*Scale\) has other code"
        ):
            run_files(tmp_path / "out", photos, factor=0.5)

    def test_a_subclass_that_reads_otherwise_is_another_run(self, photos, tmp_path):
        class Flipped(ImageDataset):
            def __getitem__(self, index):
                inputs, target = super().__getitem__(index)
                return inputs.flip(2), target

        network = zoo_network(Scale(1.0))
        dataset = image_dataset(photos, network)
        flipped = Flipped(**vars(dataset))
        run(tmp_path / "out", dataset, network=network.model)
        refused("transform .* now None", tmp_path / "out", dataset=flipped, network=network.model)


class Scaled(nn.Sequential):
    scale = 1.0

    def forward(self, x):
        return super().forward(x) * self.scale


def scaled_network(scale):
    network = Scaled(*squares_network()).eval()
    network.scale = scale
    return network


def refused(what, output, **options):
    with pytest.raises(ValueError, match=what) as error:
        run(output, **options)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "restart=True" in text
    assert "--restart" in text


class TestConfiguration:
    def test_other_weights_are_refused(self, tmp_path):
        run(tmp_path)
        refused("the weights of the model have changed", tmp_path, network=squares_network(1))

    def test_the_same_weights_on_another_model_are_refused(self, tmp_path):
        run(tmp_path, network=scaled_network(1.0))
        assert counts(run(tmp_path, network=scaled_network(1.0))) == (3, 0, 0, 0)
        refused("code or settings", tmp_path, network=scaled_network(2.0))
        refused("model was .*Scaled.* and is now .*Sequential", tmp_path)

    def test_a_method_redefined_under_its_name_is_refused(self, tmp_path):
        def method(model, layer, inputs, target, context):
            return inputs.mean(1, keepdim=True)

        run(tmp_path, methods={"mine": method})
        assert counts(run(tmp_path, methods={"mine": method})) == (3, 0, 0, 0)
        name = method.__qualname__

        def method(model, layer, inputs, target, context):
            return 1 - inputs.mean(1, keepdim=True)

        assert method.__qualname__ == name
        refused(
            r"the method mine \(.*method\) has other code or settings",
            tmp_path,
            methods={"mine": method},
        )
        refused(
            "the method mine was .*method and is now .*bright", tmp_path, methods={"mine": bright}
        )
        evaluation = run(tmp_path, methods={"mine": method, "dark": dark}, recompute=True)
        assert set(evaluation.results["method"]) == {"mine", "dark"}
        assert counts(evaluation) == (0, 3, 0, 0)

    def test_settings_of_a_method_count(self, tmp_path):
        network = squares_network()
        made = partial(IntegratedGradients, network)
        run(tmp_path, methods={"ig": made()}, network=network)
        assert run(tmp_path, methods={"ig": made()}, network=network).reused == 3
        other = made(multiply_by_inputs=False)
        refused("the method ig .* has other", tmp_path, methods={"ig": other}, network=network)

    def test_methods_known_by_name_are_the_same_in_a_mapping_again(self, tmp_path):
        from captum_advise.evaluation import get_methods

        run(tmp_path, methods={"m": get_methods(["grad-cam"])["grad-cam"]})
        assert run(tmp_path, methods={"m": get_methods(["grad-cam"])["grad-cam"]}).reused == 3
        refused(
            "the method m",
            tmp_path,
            methods={"m": get_methods(["guided-grad-cam"])["guided-grad-cam"]},
        )

    def test_another_confidence_is_refused(self, tmp_path):
        def confidence(temperature):
            return lambda logits: (logits / temperature).softmax(1)

        run(tmp_path, confidence=confidence(1.0))
        assert run(tmp_path, confidence=confidence(1.0)).reused == 3
        refused("confidence .* has other code or settings", tmp_path, confidence=confidence(2.0))
        refused("confidence was .* and is now ", tmp_path)

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"seed": 1}, "seed was 0 and is now 1"),
            ({"settings": MetricSettings(steps=2)}, "steps was 1 and is now 2"),
            ({"pixel_space": None}, "pixel_space was .* and is now None"),
            ({"description": {"network": "b"}}, "network was None and is now 'b'"),
        ],
    )
    def test_other_settings_are_refused(self, options, what, tmp_path):
        run(tmp_path)
        refused(what, tmp_path, **options)

    def test_another_version_of_a_package_is_refused(self, tmp_path, monkeypatch):
        import captum

        run(tmp_path)
        monkeypatch.setattr(captum, "__version__", "0.1.0")
        refused(r"captum was '.*' and is now '0\.1\.0'", tmp_path)


class TestRestart:
    def test_a_run_begins_anew(self, tmp_path):
        run(tmp_path)
        evaluation = run(tmp_path, seed=1, restart=True)
        assert counts(evaluation) == (0, 3, 0, 0)
        information = json.loads((tmp_path / "run.json").read_text())
        assert information["configuration"]["seed"] == 1
        assert len(information["sessions"]) == 1
        pd.testing.assert_frame_equal(table(evaluation), table(run(tmp_path, seed=1)))

    def test_the_same_run_may_begin_anew(self, tmp_path):
        run(tmp_path)
        assert counts(run(tmp_path, restart=True)) == (0, 3, 0, 0)
        assert len(json.loads((tmp_path / "run.json").read_text())["sessions"]) == 1

    def test_a_folder_without_a_run_is_just_used(self, tmp_path):
        assert run(tmp_path / "new", restart=True).evaluated == 3

    def test_bad_arguments_leave_the_old_results(self, tmp_path):
        first = run(tmp_path).results
        with pytest.raises(ValueError, match="no image in the data"):
            run(tmp_path, Squares(0), restart=True)
        with pytest.raises(ValueError, match="at least 1"):
            run(tmp_path, internal_batch_size=0, restart=True)
        pd.testing.assert_frame_equal(run(tmp_path).results, first)

    def test_only_files_of_a_run_are_deleted(self, tmp_path):
        run(tmp_path)
        kept = {"notes.txt": "mine", "results.rankings.csv": "mine", "results.csv.bak": "mine"}
        for name, text in kept.items():
            (tmp_path / name).write_text(text)
        for name in ("results.rank3.csv", "failures.rank3.csv", "failures.csv"):
            (tmp_path / name).write_text("index\n")
        run(tmp_path, restart=True, seed=1)
        for name, text in kept.items():
            assert (tmp_path / name).read_text() == text
        assert not list(tmp_path.glob("*.rank3.csv"))

    @pytest.mark.parametrize("restart", [False, True])
    @pytest.mark.parametrize(
        "name", ["results.csv", "summary.md", "gallery.png", "failures.csv", "results.rank0.csv"]
    )
    def test_files_that_no_run_has_written_are_not_touched(self, name, restart, tmp_path):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=f"{name} but no run.json"):
            run(tmp_path, restart=restart)
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("restart", [False, True])
    @pytest.mark.parametrize("content", ['{"mine": 1}', "[1]", '{"configuration": 3}', "{damaged"])
    def test_a_run_json_of_something_else_is_not_touched(self, content, restart, tmp_path):
        (tmp_path / "run.json").write_text(content)
        (tmp_path / "summary.md").write_text("mine")
        with pytest.raises(ValueError, match=r"run.json (was not written by|is damaged)"):
            run(tmp_path, restart=restart)
        assert (tmp_path / "run.json").read_text() == content
        assert (tmp_path / "summary.md").read_text() == "mine"

    @pytest.mark.parametrize("earlier", [None, 2, 99])
    def test_another_format_is_refused_and_may_be_replaced(self, earlier, tmp_path):
        run(tmp_path)
        path = tmp_path / "run.json"
        information = json.loads(path.read_text())
        assert information["configuration"]["format"] == 4
        information["configuration"]["format"] = earlier
        if earlier is None:
            del information["configuration"]["format"]
        path.write_text(json.dumps(information))
        version = "a later version" if earlier == 99 else "an earlier version"
        refused(version, tmp_path)
        assert run(tmp_path, restart=True).evaluated == 3

    def test_a_run_that_is_being_written_is_not_replaced(self, tmp_path):
        from captum_advise.evaluation.store import RunFolder

        run(tmp_path)
        with (
            RunFolder(tmp_path, (), ()).reserved(),
            pytest.raises(OutputError, match="Another run"),
        ):
            run(tmp_path, restart=True)
        assert run(tmp_path).reused == 3


class TestOutputAndData:
    def test_the_output_is_not_in_the_data(self, photos, tmp_path):
        (tmp_path / "link").symlink_to(photos)
        for output in (photos, photos / "report", tmp_path / "link" / "deep" / "report"):
            with pytest.raises(ValueError, match=r"is in the data .* another output folder"):
                run_files(output, photos)
        with pytest.raises(ValueError, match="is in the data"):
            run_files(photos / "report", tmp_path / "link")
        assert sorted(entry.name for entry in photos.iterdir()) == [
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
        ]

    def test_a_class_folder_may_be_a_link(self, photos, tmp_path):
        data = tmp_path / "data"
        data.mkdir()
        (data / "0").symlink_to(photos)
        with pytest.raises(ValueError, match="is in the data"):
            run_files(photos / "report", data)

    def test_a_report_beside_a_csv_file_is_fine(self, photos):
        csv = photos / "table.csv"
        csv.write_text("file\nchelsea.png\n")
        assert run_files(photos / "report", csv).evaluated == 1
        csv.write_text("file\nreport/gallery.png\n")
        with pytest.raises(ValueError, match="is in the output"):
            run_files(photos / "report", csv)


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"internal_batch_size": 0}, "internal_batch_size must be at least 1, got 0"),
            ({"internal_batch_size": -3}, "internal_batch_size must be at least 1, got -3"),
            ({"seed": -1}, "seed must be at least 0, got -1"),
            ({"methods": {}}, "at least one method"),
            ({"methods": {"a\nb": bright}}, "one line"),
            ({"methods": {"": bright}}, "one line"),
        ],
    )
    def test_bad_numbers_are_refused_before_any_work(self, options, what, tmp_path):
        with pytest.raises(ValueError, match=what):
            run(tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    def test_types_are_checked(self, tmp_path):
        with pytest.raises(TypeError, match="internal_batch_size must be an int, got float"):
            run(tmp_path / "out", internal_batch_size=2.5)
        with pytest.raises(TypeError, match="steps must be an int, got float"):
            MetricSettings(steps=2.5)


def test_suspicious_inputs_are_named_once(tmp_path):
    squares = edited(inputs=[image * 255 for image in Squares(3).inputs])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path, squares)
    messages = [str(w.message) for w in caught if "pixel_space" in str(w.message)]
    assert len(messages) == 1
