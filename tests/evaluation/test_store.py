from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captum_advise.evaluation.store import (
    FORMAT,
    Appender,
    Image,
    OutputError,
    RunFolder,
    as_field,
    write_output,
)

COLUMNS = ("index", "file", "content", "method", "value")
METHODS = ("b", "a")
CONFIGURATION = {"format": FORMAT, "seed": 1, "methods": {"b": "B", "a": "A"}}


def rows(index, content="0", methods=METHODS):
    file = f'image, "{index}"\n\u00e9\udcff'
    return [
        {
            "index": index,
            "file": file,
            "content": content,
            "method": m,
            "value": index / 3 + (m == "a"),
        }
        for m in methods
    ]


def image(index, content="0"):
    return Image(as_field(rows(index)[0]["file"]), content)


def of_methods(*contents):
    """The same image for each method."""
    return dict.fromkeys((*METHODS, "c"), image(*contents))


def images(n):
    return {index: of_methods(index) for index in range(n)}


def run(path, n=5, ranks=1):
    folder = RunFolder(path, COLUMNS, METHODS)
    path.mkdir(exist_ok=True)
    folder.prepare(CONFIGURATION)
    stored = folder.stored()
    for rank in range(ranks):
        with Appender(folder.part("results", rank), COLUMNS) as appender:
            for index in reversed(range(rank, n, ranks)):
                present = stored.get(image(index), ())
                appender.append(rows(index, methods=[m for m in METHODS if m not in present]))
    return folder


def values(path):
    """The rows of a table as position, method and content."""
    table = pd.read_csv(path, dtype=str, encoding_errors="replace")
    return list(zip(table["index"].astype(int), table["method"], table["content"], strict=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    ranks=st.integers(1, 3),
    again=st.integers(1, 3),
    cut=st.floats(0, 1),
    garbage=st.binary(max_size=6),
)
def test_a_run_truncated_anywhere_ends_like_an_uninterrupted_one(
    ranks, again, cut, garbage, tmp_path_factory
):
    expected = run(tmp_path_factory.mktemp("whole"))
    assert expected.merge(images(5))
    truncated = run(tmp_path_factory.mktemp("truncated"), ranks=ranks)
    part = truncated.part("results", 0)
    content = part.read_bytes()
    # Anything but a newline may follow the last complete write.
    part.write_bytes(content[: int(cut * len(content))] + garbage.replace(b"\n", b"\0"))
    resumed = run(truncated.path, ranks=again)
    assert resumed.merge(images(5))
    assert resumed.results.read_bytes() == expected.results.read_bytes()
    assert resumed.rows.read_bytes() == expected.rows.read_bytes()
    assert not resumed.parts("results")


def test_results_have_images_with_a_row_for_every_method(tmp_path):
    folder = run(tmp_path, n=2)
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(2)[:1])
    both = frozenset(METHODS)
    assert folder.stored() == {image(0): both, image(1): both, image(2): {"b"}}
    assert folder.merge(images(3))
    assert values(folder.results) == [(i, m, "0") for i in range(2) for m in METHODS]
    assert (2, "b", "0") in values(folder.rows)
    # A kill between the merge and the removal of the parts leaves both.
    with Appender(folder.part("results", 7), COLUMNS) as appender:
        appender.append(rows(1))
    before = folder.results.read_bytes(), folder.rows.read_bytes()
    assert folder.merge(images(3))
    assert (folder.results.read_bytes(), folder.rows.read_bytes()) == before
    # What is missing completes the image.
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(2)[1:])
    assert folder.merge(images(3))
    assert len(values(folder.results)) == 6


def test_methods_that_a_call_leaves_out_are_kept(tmp_path):
    folder = run(tmp_path, n=2)
    assert folder.merge(images(2))
    rows_before = folder.rows.read_bytes()
    fewer = RunFolder(tmp_path, COLUMNS, ("a",))
    fewer.prepare({**CONFIGURATION, "methods": {"a": "A"}})
    assert fewer.merge(images(2))
    assert values(fewer.results) == [(0, "a", "0"), (1, "a", "0")]
    assert fewer.rows.read_bytes() == rows_before
    assert fewer.information_so_far()["configuration"] == CONFIGURATION
    other = RunFolder(tmp_path, COLUMNS, ("c", "b"))
    other.prepare({**CONFIGURATION, "methods": {"c": "C", "b": "B"}})
    with Appender(other.part("results", 0), COLUMNS) as appender:
        appender.append(rows(1, methods=["c"]))
    assert other.merge(images(2))
    assert values(other.results) == [(1, "c", "0"), (1, "b", "0")]
    methods = other.information_so_far()["configuration"]["methods"]
    assert methods == {"b": "B", "a": "A", "c": "C"}


def test_rows_have_the_position_of_their_image(tmp_path):
    folder = run(tmp_path, n=3)
    assert folder.merge({0: of_methods(2), 5: of_methods(0), 7: of_methods(0)})
    assert [index for index, *_ in values(folder.results)] == [0, 0, 5, 5, 7, 7]
    table = pd.read_csv(folder.results, encoding_errors="replace")
    assert table["value"].tolist() == pytest.approx([2 / 3, 5 / 3, 0, 1, 0, 1])
    assert len(values(folder.rows)) == 6


def test_rows_of_an_image_are_those_of_one_content(tmp_path):
    folder = run(tmp_path, n=2)
    folder.merge(images(2))
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(1, "1")[:1])
    assert folder.stored()[image(1, "1")] == {"b"}
    with Appender(folder.part("results", 1), COLUMNS) as appender:
        appender.append(rows(1, "1")[1:])
    assert folder.merge({0: of_methods(0), 1: of_methods(1, "1")})
    assert values(folder.results) == [
        (0, "b", "0"),
        (0, "a", "0"),
        (1, "b", "1"),
        (1, "a", "1"),
    ]
    # The old content may come back.
    assert folder.merge(images(2))
    assert {content for *_, content in values(folder.results)} == {"0"}


def test_rows_of_a_method_may_have_a_content_of_their_own(tmp_path):
    folder = run(tmp_path, n=1)
    with Appender(folder.part("results", 1), COLUMNS) as appender:
        appender.append(rows(0, "map", methods=["a"]))
    assert folder.merge({0: {"b": image(0), "a": image(0, "map")}})
    assert values(folder.results) == [(0, "b", "0"), (0, "a", "map")]
    assert len(values(folder.rows)) == 3


def test_without_a_complete_image_the_results_stay(tmp_path):
    folder = run(tmp_path, n=2)
    assert folder.merge(images(2))
    before = folder.results.read_bytes()
    assert not folder.merge({0: of_methods(0, "other")})
    assert not folder.merge({})
    assert folder.results.read_bytes() == before


def test_failures_are_merged_in_order_and_tried_again(tmp_path):
    folder = run(tmp_path, n=1)
    for rank, index in ((0, 11), (1, 9)):
        with Appender(folder.part("failures", rank), ("index", "file", "reason")) as appender:
            appender.append([{"index": index, "file": "x", "reason": "damaged\nfile"}])
    folder.merge({})
    assert folder.failures.read_text() == "index,file,reason\n9,x,damaged file\n11,x,damaged file\n"
    folder.prepare(CONFIGURATION)
    assert not folder.failures.exists()


def test_another_configuration_is_refused_and_named(tmp_path):
    folder = run(tmp_path)
    with pytest.raises(
        ValueError, match=r"another run \(seed was 1 and is now 2; new was None and .*restart=True"
    ):
        folder.prepare({**CONFIGURATION, "seed": 2, "new": True})
    folder.prepare(CONFIGURATION)
    folder.information.write_text("{damaged")
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        folder.prepare(CONFIGURATION)
    folder.information.unlink()
    with pytest.raises(ValueError, match=r"no run.json that describes it"):
        folder.prepare(CONFIGURATION)


@pytest.mark.parametrize("earlier", [{"seed": 1}, {"seed": 1, "format": 2, "images": 5}])
def test_a_run_of_an_earlier_version_is_refused(earlier, tmp_path):
    folder = run(tmp_path)
    folder.inform({"configuration": earlier})
    before = folder.part("results", 0).read_bytes()
    with pytest.raises(ValueError, match=r"an earlier version .*: give another out.*--restart"):
        folder.prepare(CONFIGURATION)
    assert folder.part("results", 0).read_bytes() == before
    folder.prepare(CONFIGURATION, restart=True)
    assert not folder.stored()


def test_methods_without_rows_may_change(tmp_path):
    folder = run(tmp_path, n=1)
    added = {**CONFIGURATION, "methods": {"b": "B", "c": "broken"}}
    folder.prepare(added)
    mended = {**CONFIGURATION, "methods": {"b": "B", "c": "mended"}}
    folder.prepare(mended)
    assert folder.information_so_far()["configuration"]["methods"] == {
        "b": "B",
        "a": "A",
        "c": "mended",
    }
    other = {**CONFIGURATION, "methods": {"a": "other"}}
    with pytest.raises(
        ValueError, match=r"method a was 'A' and is now 'other'\): .*recompute=True"
    ):
        folder.prepare(other)


def test_a_run_without_rows_may_change(tmp_path):
    folder = run(tmp_path, n=0)
    anew = {**CONFIGURATION, "seed": 2}
    folder.prepare(anew)
    assert folder.information_so_far() == {"configuration": anew}
    with pytest.raises(ValueError, match="seed was 2 and is now 1"):
        folder.check(CONFIGURATION)  # what another host calls


def test_recomputing_deletes_what_depends_on_the_change(tmp_path):
    folder = run(tmp_path, n=2)
    folder.merge(images(2))
    folder.inform({"configuration": CONFIGURATION, "sessions": ["one"]})
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(2))
    method = {**CONFIGURATION, "methods": {"a": "other", "b": "B"}}
    folder.prepare(method, recompute=True)
    assert set(folder.stored().values()) == {frozenset("b")}
    assert len(folder.stored()) == 3
    assert not folder.results.exists()
    assert folder.information_so_far() == {
        "configuration": {**method, "methods": {"b": "B", "a": "other"}},
        "sessions": ["one"],
    }
    anew = {**CONFIGURATION, "seed": 2}
    folder.prepare(anew, recompute=True)
    assert not folder.stored()
    assert folder.information_so_far() == {"configuration": anew}


def test_recomputing_again_continues(tmp_path):
    folder = run(tmp_path, n=2)
    anew = {**CONFIGURATION, "seed": 2}
    folder.prepare(anew, recompute=True)
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(1))
    folder.prepare(anew, recompute=True)
    assert list(folder.stored()) == [image(1)]


def test_rows_with_other_columns_are_rows(tmp_path):
    run(tmp_path, n=1).merge(images(1))
    other = RunFolder(tmp_path, (*COLUMNS, "more"), METHODS)
    anew = {**CONFIGURATION, "on_request": ["more"]}
    with pytest.raises(ValueError, match="on_request was None and is now"):
        other.prepare(anew)
    other.prepare(anew, recompute=True)
    assert not other.rows.exists()


def stopping_after(count, action):
    calls = iter(range(100))

    def stopping(*arguments, **options):
        action(*arguments, **options)
        if next(calls) == count:
            raise KeyboardInterrupt

    return stopping


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("merged", [True, False])
def test_a_stopped_deletion_never_mixes_two_runs(seed, merged, tmp_path, monkeypatch):
    """Stopped after every deletion or write, the rows are those of the old run or none."""
    anew = {**CONFIGURATION, "seed": seed, "methods": {"a": "other", "b": "B"}}
    for restart in (True, False):
        for moment in range(8):
            path = tmp_path / f"{restart} {moment}"
            folder = run(path, n=2)
            if merged:
                folder.merge(images(2))
                folder.inform({"configuration": CONFIGURATION})
            options = {"restart": True} if restart else {"recompute": True}
            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(Path, "unlink", stopping_after(moment, Path.unlink))
                folder.prepare(anew, **options)
            refusal = None
            try:
                folder.prepare(anew)
            except ValueError as error:
                refusal = str(error)
                folder.prepare(anew, **options)
            assert refusal is None or "method a was" in refusal
            kept = set() if restart or seed == 2 else {"b"}
            assert {m for methods in folder.stored().values() for m in methods} == kept
            assert not folder.results.exists()


def test_a_stopped_restart_never_mixes_two_runs(tmp_path, monkeypatch):
    folder = run(tmp_path)
    folder.merge(images(5))
    anew = {**CONFIGURATION, "seed": 2}
    unlink = Path.unlink

    def stop(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            folder.prepare(anew, restart=True)
    with pytest.raises(ValueError, match="seed was 1 and is now 2"):
        folder.prepare(anew)
    folder.prepare(anew, restart=True)
    assert not folder.stored()
    assert folder.information_so_far() == {"configuration": anew}


def test_a_folder_has_one_run_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "out", COLUMNS, METHODS)
    with folder.reserved(), pytest.raises(OutputError, match="Another run is writing"):
        folder.reserved().__enter__()
    with folder.reserved():
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "out", COLUMNS, METHODS)
    with pytest.raises(OutputError, match=r"file/out cannot be written \(Not a directory\)"):
        folder.reserved().__enter__()


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.md"
    write_output(path, "old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\): free"):
        write_output(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.md"]
    with pytest.raises(OutputError, match="No space left"):
        Appender(tmp_path / "results.rank0.csv", COLUMNS)
