"""What is in the store is reused, what differs is computed, and nothing else is shown."""

from __future__ import annotations

import shutil
import types
from importlib import metadata

import pandas as pd
import pytest
import torch
from captum.attr import IntegratedGradients
from quick_runs import bright, counts, dark, edited, reproducible, table
from quick_runs import run as run_squares
from squares import SPACE, Squares, squares_network
from torch import nn
from torchvision.transforms import v2

from captum_advise import zoo
from captum_advise.evaluation import MethodError, MetricSettings, get_methods, image_dataset

pytestmark = pytest.mark.usefixtures("no_report")


def run(output, dataset=None, methods=("random", "gaussian"), network=None, **options):
    dataset = Squares(3) if dataset is None else dataset
    options = {"settings": MetricSettings(steps=1), **options}
    return run_squares(output, dataset, methods, network, **options)


def with_image(index, image):
    inputs = Squares(3).inputs
    inputs[index] = image
    return edited(inputs=inputs)


def with_target(index, target):
    targets = Squares(3).targets
    targets[index] = target
    return edited(targets=targets)


class TestImages:
    def test_the_same_are_reused(self, tmp_path):
        first = run(tmp_path)
        assert counts(first) == (0, 6, {"new image": 6})
        again = run(tmp_path)
        assert counts(again) == (6, 0, {})
        assert first.results["content"].nunique() == 3
        pd.testing.assert_frame_equal(again.results, first.results)

    @pytest.mark.parametrize(
        "changed",
        [
            with_image(1, Squares(3).inputs[1].flip(2)),
            with_image(1, Squares(3).inputs[1] * 0.5),
            with_image(1, Squares(3).inputs[1].transpose(1, 2).contiguous()),
            with_target(1, 5),
            with_target(0, None),
        ],
        ids=["flipped", "darker", "shape", "target", "no target"],
    )
    def test_a_changed_one_is_computed(self, changed, tmp_path):
        first = run(tmp_path / "changed")
        evaluation = run(tmp_path / "changed", changed)
        assert counts(evaluation) == (4, 2, {"the image changed": 2})
        fresh = run(tmp_path / "fresh", changed)
        pd.testing.assert_frame_equal(table(evaluation), table(fresh))
        # And as it was before.
        again = run(tmp_path / "changed")
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)

    def test_one_that_has_moved_is_reused(self, tmp_path):
        run(tmp_path / "moved")
        squares = Squares(3)
        for attribute in (squares.inputs, squares.names, squares.targets):
            attribute[0], attribute[2] = attribute[2], attribute[0]
        evaluation = run(tmp_path / "moved", squares)
        assert counts(evaluation) == (6, 0, {})
        assert evaluation.results["file"].unique().tolist() == ["square 2", "square 1", "square 0"]
        pd.testing.assert_frame_equal(table(evaluation), table(run(tmp_path / "fresh", squares)))

    def test_they_are_left_out_added_and_come_back(self, tmp_path):
        first = run(tmp_path)
        fewer = run(tmp_path, Squares(2))
        assert counts(fewer) == (4, 0, {})
        assert fewer.results["file"].unique().tolist() == ["square 0", "square 1"]
        again = run(tmp_path)
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)
        assert counts(run(tmp_path, Squares(4))) == (6, 2, {"new image": 2})
        renamed = edited(4, names=["square 0", "square 1", "other", "square 3"])
        assert counts(run(tmp_path, renamed)) == (6, 2, {"new image": 2})

    def test_one_that_can_no_longer_be_read_is_a_failure_and_keeps_its_rows(self, tmp_path):
        run(tmp_path)

        class Torn(Squares):
            def __getitem__(self, index):
                if index == 1:
                    raise ValueError("The image is torn.")
                return super().__getitem__(index)

        evaluation = run(tmp_path, Torn(3), prune=True)
        assert evaluation.failures["file"].tolist() == ["square 1"]
        assert evaluation.results["index"].unique().tolist() == [0, 2]
        assert counts(run(tmp_path)) == (6, 0, {})

    @pytest.mark.parametrize("error", ["cannot be read", "cannot be evaluated"])
    def test_results_survive_data_of_which_nothing_can_be_evaluated(self, error, tmp_path):
        before = run(tmp_path).results
        written = (tmp_path / "results.csv").read_bytes()

        class Bad(Squares):
            def __getitem__(self, index):
                if error == "cannot be read":
                    raise OSError("The disk is gone")
                return torch.zeros(3, 1, 1), None

        for _ in range(2):
            with pytest.raises(ValueError, match="None of the 3 images"):
                run(tmp_path, Bad(3))
        assert (tmp_path / "results.csv").read_bytes() == written
        again = run(tmp_path)
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, before)

    def test_strange_names_are_the_same_again(self, tmp_path):
        strange = edited(names=["a\nb", "c\0d", 'é,"\udcff'])
        first = run(tmp_path, strange)
        assert first.results["file"].nunique() == 3
        assert counts(run(tmp_path, strange)) == (6, 0, {})
        assert b'"\xc3\xa9,""\xff"' in (tmp_path / "results.csv").read_bytes()

    def test_those_without_names_are_known_by_position(self, tmp_path):
        pairs = [(image, 1) for image in Squares(3).inputs]
        run(tmp_path, pairs)
        assert counts(run(tmp_path, pairs[:2])) == (4, 0, {})
        assert counts(run(tmp_path, pairs[1:])) == (0, 4, {"the image changed": 4})

    def test_each_is_read_once(self, tmp_path):
        read = []

        class Counted(Squares):
            def __getitem__(self, index):
                read.append(index)
                return super().__getitem__(index)

        for _ in range(2):
            run(tmp_path, Counted(3))
            assert read == [0, 1, 2]
            read.clear()


MANY = ("grad-cam", "random", "layer-cam", "gaussian", "lime")
QUICK_LIME = {"method_settings": {"lime_samples": 10, "lime_grid": 2}}


class TestMethods:
    @pytest.mark.parametrize("steps", [1, 4])
    def test_adding_gives_the_rows_of_one_go(self, steps, tmp_path):
        options = {**QUICK_LIME, "settings": MetricSettings(steps=steps), "internal_batch_size": 4}
        run(tmp_path / "one", methods=MANY, **options)
        run(tmp_path / "two", Squares(2), methods=MANY[1:2], **options)
        added = run(tmp_path / "two", methods=MANY[:3], **options)
        assert counts(added) == (2, 7, {"new method": 4, "new image": 3})
        run(tmp_path / "two", methods=MANY, **options)
        pd.testing.assert_frame_equal(
            reproducible(tmp_path / "two"), reproducible(tmp_path / "one")
        )

    def test_only_what_is_missing_is_computed(self, tmp_path):
        calls = []

        def counted(model, layer, inputs, target, context):
            calls.append(1)
            return inputs.mean(1, keepdim=True)

        first = run(tmp_path, methods={"dark": dark})
        # The list would count as a change.
        method = types.MethodType(lambda self, *arguments: counted(*arguments), object())
        run(tmp_path, methods={"dark": dark, "counted": method})
        assert len(calls) == 2 * 3  # the target and the runner-up class
        calls.clear()
        fewer = run(tmp_path, methods={"dark": dark})
        pd.testing.assert_frame_equal(fewer.results, first.results)
        assert fewer.summary["method"].unique().tolist() == ["dark"]
        assert calls == []

    def test_those_left_out_come_back(self, tmp_path):
        first = run(tmp_path)
        run(tmp_path, methods=["gaussian"])
        again = run(tmp_path)
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)
        # In another order.
        turned = run(tmp_path, methods=["gaussian", "random"])
        assert turned.results["method"].tolist() == ["gaussian", "random"] * 3

    def test_one_that_fails_loses_nothing_and_may_be_corrected(self, tmp_path):
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

    def test_an_image_on_which_an_added_one_fails_keeps_its_rows(self, tmp_path):
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

    def test_one_redefined_under_its_name_is_computed(self, tmp_path):
        def method(model, layer, inputs, target, context):
            return inputs.mean(1, keepdim=True)

        first, old = run(tmp_path, methods={"mine": method, "dark": dark}), method
        assert counts(run(tmp_path, methods={"mine": method, "dark": dark})) == (6, 0, {})

        def method(model, layer, inputs, target, context):
            return 1 - inputs.mean(1, keepdim=True)

        assert method.__qualname__ == old.__qualname__
        evaluation = run(tmp_path, methods={"mine": method, "dark": dark})
        assert counts(evaluation) == (3, 3, {"the method changed": 3})
        by_method = evaluation.results.set_index(["method", "index"])
        for column in ("insertion", "avx"):  # dark is the same
            pd.testing.assert_series_equal(
                by_method.loc["mine", column], by_method.loc["dark", column]
            )
        again = run(tmp_path, methods={"mine": old, "dark": dark})
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)

    def test_settings_of_an_attribution_count(self, tmp_path):
        def integrated(*, multiply):
            def method(model, layer, inputs, target, context):
                attribution = IntegratedGradients(model, multiply_by_inputs=multiply)
                return attribution.attribute(inputs, target=target)

            return {"ig": method}

        for expected in (0, 3):
            assert run(tmp_path, methods=integrated(multiply=True)).reused == expected
        evaluation = run(tmp_path, methods=integrated(multiply=False))
        assert counts(evaluation) == (0, 3, {"the method changed": 3})

    def test_those_known_by_name_are_the_same_in_a_mapping_again(self, tmp_path):
        run(tmp_path, methods={"m": get_methods(["grad-cam"])["grad-cam"]})
        assert run(tmp_path, methods={"m": get_methods(["grad-cam"])["grad-cam"]}).reused == 3
        other = run(tmp_path, methods={"m": get_methods(["guided-grad-cam"])["guided-grad-cam"]})
        assert counts(other) == (0, 3, {"the method changed": 3})

    def test_what_cannot_be_seen_is_computed_again_on_request(self, tmp_path):
        state = {"sign": 1}
        scope = {"STATE": state}
        exec("def method(model, layer, inputs, target, context):\n"
             "    return STATE['sign'] * inputs.mean(1, keepdim=True)", scope)  # fmt: skip
        methods = {"mine": scope["method"], "dark": dark}
        first = run(tmp_path, methods=methods)
        state["sign"] = -1
        assert counts(run(tmp_path, methods=methods)) == (6, 0, {})
        evaluation = run(tmp_path, methods=methods, recompute=["mine"])
        assert counts(evaluation) == (3, 3, {"asked for again": 3})
        assert not (evaluation.results["avx"] == first.results["avx"])[::2].any()
        pd.testing.assert_frame_equal(evaluation.results[1::2], first.results[1::2])
        assert counts(run(tmp_path, methods=methods)) == (6, 0, {})


class TestMetrics:
    def test_only_those_that_are_new_are_computed(self, tmp_path, monkeypatch):
        from captum_advise.evaluation import metric_values

        whole = run(tmp_path / "whole", metrics=["road", "deletion", "sparseness"])
        run(tmp_path / "out", metrics=["deletion"])

        def computed(*_, **__):
            raise AssertionError("deletion was computed again")

        with monkeypatch.context() as patch:
            patch.setattr(metric_values, "curves_between", computed)
            added = run(tmp_path / "out", metrics=["road", "deletion", "sparseness"])
        assert counts(added) == (0, 6, {"new metric": 6})
        pd.testing.assert_frame_equal(table(added), table(whole))
        assert counts(run(tmp_path / "out", metrics=["deletion"])) == (6, 0, {})
        assert counts(run(tmp_path / "out", metrics=["road", "sparseness"])) == (6, 0, {})


class Scaled(nn.Sequential):
    scale = 1.0

    def forward(self, x):
        return super().forward(x) * self.scale


def scaled_network(scale):
    network = Scaled(*squares_network()).eval()
    network.scale = scale
    return network


class TestSettings:
    def other(self, output, what, *, before=None, **options):
        """A run with another setting computes all rows, and going back none."""
        before = before or {}
        first = run(output, **before)
        changed = run(output, **{**before, **options})
        assert counts(changed) == (0, 6, {what: 6})
        again = run(output, **before)
        assert counts(again) == (6, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)
        return changed

    def test_weights(self, tmp_path):
        network = squares_network()
        with torch.no_grad():
            network[7].weight[3, 5] += 1e-3
        changed = self.other(tmp_path / "a", "the weights changed", network=network)
        pd.testing.assert_frame_equal(table(changed), table(run(tmp_path / "b", network=network)))

    def test_a_setting_of_the_model(self, tmp_path):
        before = {"network": scaled_network(1.0)}
        self.other(tmp_path, "the model changed", before=before, network=scaled_network(2.0))

    def test_a_confidence(self, tmp_path):
        def confidence(temperature):
            return lambda logits: (logits / temperature).softmax(1)

        before = {"confidence": confidence(1.0)}
        self.other(tmp_path, "the confidence changed", before=before, confidence=confidence(2.0))

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"seed": 1}, "the seed changed"),
            ({"settings": MetricSettings(steps=2)}, "the settings of metrics changed"),
            ({"pixel_space": None}, "the pixel space changed"),
            ({"internal_batch_size": 3}, "the batch size changed"),
            (
                {"seed": 1, "settings": MetricSettings(steps=2)},
                "the settings of metrics and the seed changed",
            ),
        ],
    )
    def test_others(self, options, what, tmp_path):
        self.other(tmp_path, what, **options)

    def test_a_setting_of_a_method(self, tmp_path):
        options = {"methods": ["random", "occlusion"], "dataset": Squares(1)}
        few, more = ({"method_settings": {"occlusion_windows": n}} for n in (2, 3))
        first = run(tmp_path, **options, **few)
        assert counts(run(tmp_path, **options, **more)) == (1, 1, {"the method changed": 1})
        again = run(tmp_path, **options, **few)
        assert counts(again) == (2, 0, {})
        pd.testing.assert_frame_equal(again.results, first.results)

    def test_the_version_of_a_package(self, tmp_path, monkeypatch):
        run(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda package: "0.1.0")
            changed = run(tmp_path)
        assert counts(changed) == (0, 6, {"the versions of packages changed": 6})
        assert counts(run(tmp_path)) == (6, 0, {})


def test_rows_of_other_calls_are_deleted_on_request(tmp_path):
    run(tmp_path, seed=1)
    run(tmp_path, Squares(4))
    pruned = run(tmp_path, methods=["random"], prune=True)
    assert counts(pruned) == (3, 0, {})
    assert counts(run(tmp_path)) == (3, 3, {"new method": 3})
    assert run(tmp_path, seed=1).computed == 6


@pytest.mark.parametrize("content", [b"mine", b"SQLite format 3\0" + bytes(4080)])
def test_rows_of_something_else_are_not_touched(content, tmp_path):
    (tmp_path / "results.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match=r"results.sqlite is damaged"):
        run(tmp_path, prune=True)
    assert (tmp_path / "results.sqlite").read_bytes() == content
    assert not (tmp_path / "results.csv").exists()


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
    def test_another_image_under_the_same_name_is_computed(self, photos, tmp_path):
        run_files(tmp_path / "out", photos)
        shutil.copy(photos / "coffee.png", photos / "chelsea.png")
        evaluation = run_files(tmp_path / "out", photos)
        assert counts(evaluation) == (4, 2, {"the image changed": 2})
        assert evaluation.results["content"].nunique() == 2
        pd.testing.assert_frame_equal(
            table(evaluation), table(run_files(tmp_path / "fresh", photos))
        )

    def test_another_class_is_computed(self, photos, tmp_path):
        csv = photos / "table.csv"
        csv.write_text("file,class\nchelsea.png,1\ncoffee.png,2\n")
        run_files(tmp_path / "out", csv)
        csv.write_text("file,class\nchelsea.png,1\ncoffee.png,3\n")
        evaluation = run_files(tmp_path / "out", csv)
        assert counts(evaluation) == (2, 2, {"the image changed": 2})
        assert sorted(evaluation.results["target"].unique()) == [1, 3]

    def test_the_folder_may_be_named_in_another_way_or_moved(self, photos, tmp_path, monkeypatch):
        output = tmp_path / "out"
        run_files(output, photos)
        monkeypatch.chdir(photos.parent)
        (tmp_path / "link").symlink_to(photos)
        for same in ("photos", "photos/", "./photos", "photos/../photos", "link"):
            assert counts(run_files(output, same)) == (6, 0, {})
        photos.rename(tmp_path / "moved")
        assert counts(run_files(output, "moved")) == (6, 0, {})

    def test_a_limit_may_be_raised_and_lowered(self, photos, tmp_path):
        whole = run_files(tmp_path / "whole", photos)
        run_files(tmp_path / "out", photos, limit=1)
        evaluation = run_files(tmp_path / "out", photos)
        assert counts(evaluation) == (2, 4, {"new image": 4})
        pd.testing.assert_frame_equal(table(evaluation), table(whole))
        fewer = run_files(tmp_path / "out", photos, limit=2)
        assert counts(fewer) == (4, 0, {})

    def test_another_transform_makes_other_images(self, photos, tmp_path):
        run_files(tmp_path / "out", photos)
        evaluation = run_files(tmp_path / "out", photos, factor=0.5)
        assert counts(evaluation) == (0, 6, {"the image changed": 6})
        pd.testing.assert_frame_equal(
            table(evaluation), table(run_files(tmp_path / "fresh", photos, factor=0.5))
        )


def test_the_output_may_be_among_the_images(photos):
    for output in (photos, photos / "report"):
        assert run_files(output, photos).computed == 6
        assert run_files(output, photos).reused == 6


def test_a_method_may_use_what_it_finds(tmp_path):
    """Another method's rows do not depend on this one's."""
    run(tmp_path, methods={"bright": bright})
    assert counts(run(tmp_path, methods={"bright": bright, "dark": dark})) == (
        3,
        3,
        {"new method": 3},
    )
