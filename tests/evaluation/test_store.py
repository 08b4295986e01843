from __future__ import annotations

import errno
import os
from pathlib import Path

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
CONFIGURATION = {"format": FORMAT, "seed": 1, "methods": ["b", "a"]}


def rows(index, content="0"):
    file = f'image, "{index}"\n\u00e9\udcff'
    return [
        {
            "index": index,
            "file": file,
            "content": content,
            "method": m,
            "value": index / 3 + (m == "a"),
        }
        for m in METHODS
    ]


def image(index, content="0"):
    return Image(index, as_field(rows(index)[0]["file"]), content)


def run(path, n=5, ranks=1):
    folder = RunFolder(path, COLUMNS, METHODS)
    path.mkdir(exist_ok=True)
    folder.prepare(CONFIGURATION)
    done = {image.index for image in folder.finished()}
    todo = [index for index in range(n) if index not in done]
    for rank in range(ranks):
        with Appender(folder.part("results", rank), COLUMNS) as appender:
            for index in reversed(todo[rank::ranks]):
                appender.append(rows(index))
    return folder


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
    expected.merge()
    truncated = run(tmp_path_factory.mktemp("truncated"), ranks=ranks)
    part = truncated.part("results", 0)
    content = part.read_bytes()
    # Anything but a newline may follow the last complete write.
    part.write_bytes(content[: int(cut * len(content))] + garbage.replace(b"\n", b"\0"))
    resumed = run(truncated.path, ranks=again)
    resumed.merge()
    assert resumed.results.read_bytes() == expected.results.read_bytes()
    assert not resumed.parts("results")


def test_only_complete_images_count(tmp_path):
    folder = run(tmp_path, n=2)
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(2)[:1])
    assert folder.finished() == [image(0), image(1)]
    folder.merge()
    # A kill between the merge and the removal of the parts leaves both.
    with Appender(folder.part("results", 7), COLUMNS) as appender:
        appender.append(rows(1))
    before = folder.results.read_bytes()
    folder.merge()
    assert folder.results.read_bytes() == before
    assert before.decode(errors="surrogateescape").count("\n") == 1 + 2 * 2


def test_rows_of_an_image_are_those_of_one_content(tmp_path):
    folder = run(tmp_path, n=2)
    folder.merge()
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(1, "1")[:1])
    assert folder.finished() == [image(0), image(1)]
    with Appender(folder.part("results", 1), COLUMNS) as appender:
        appender.append(rows(1, "1")[1:])
    assert folder.finished() == [image(0), image(1), image(1, "1")]
    before = folder.results.read_bytes()
    folder.prepare(CONFIGURATION)
    assert folder.results.read_bytes() == before


def test_rows_that_no_longer_hold_are_left_out_of_the_merged_table(tmp_path):
    folder = run(tmp_path, n=3)
    with Appender(folder.part("results", 0), COLUMNS) as appender:
        appender.append(rows(1, "1"))
    assert folder.merge(outdated={image(1), image(2)})
    assert folder.finished() == [image(0), image(1, "1")]


def test_rows_of_images_that_cannot_be_read_are_put_aside(tmp_path):
    folder = run(tmp_path, n=3, ranks=2)
    assert folder.merge(unread={image(1)})
    assert [path.name for path in folder.parts("results")] == ["results.rank2.csv"]
    assert "1," not in [line[:2] for line in folder.results.read_text(errors="replace").split()]
    assert folder.finished() == [image(0), image(1), image(2)]
    assert not folder.merge(unread={image(0), image(2)}, outdated={image(1)})
    assert folder.finished() == [image(0), image(1), image(2)]
    assert folder.merge()
    assert not folder.parts("results")


def test_failures_are_merged_in_order_and_tried_again(tmp_path):
    folder = run(tmp_path, n=1)
    for rank, index in ((0, 11), (1, 9)):
        with Appender(folder.part("failures", rank), ("index", "file", "reason")) as appender:
            appender.append([{"index": index, "file": "x", "reason": "damaged\nfile"}])
    folder.merge()
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
    assert folder.finished() == []


def test_a_stopped_restart_never_mixes_two_runs(tmp_path, monkeypatch):
    folder = run(tmp_path)
    folder.merge()
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
    assert folder.finished() == []
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
