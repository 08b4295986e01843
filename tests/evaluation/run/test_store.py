"""Rows by their keys, in files that can be damaged, foreign, full, or of several processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import zlib
from contextlib import closing

import pytest
import torch
from messages import one_sentence

from captum_advise.evaluation import OutputError
from captum_advise.evaluation.digests import digest
from captum_advise.evaluation.output import reserved
from captum_advise.evaluation.run.store import FILE, Key, Row, Setting, Store, packed, unpacked

A, B = Setting("a", {"seed": "0"}), Setting("b", {"seed": "0"})


def key(name="image", content="c", setting=A):
    return Key(digest(name), content, setting.id)


def row(value, map=b""):
    return Row({"insertion": value}, map)


def count(store):
    return store._query("SELECT count(*) FROM rows")[0][0]


def rows(path):
    """All rows of the file, as value by key."""
    with closing(sqlite3.connect(path / FILE)) as connection:
        found = connection.execute('SELECT image, content, setting, "values" FROM rows').fetchall()
    return {Key(*entry[:3]): entry[3] for entry in found}


def test_what_is_written_is_read_again(tmp_path):
    numbers = Row(
        {"file": 'é,"\udcff\n', "avx": float("nan"), "mse": 1 / 3, "hit": True, "layer": "-"}
        | {"road_curve": [0.1, 1 / 3]},
        packed(torch.rand(1, 1, 64, 64)),
    )
    with closing(Store(tmp_path)) as store:
        store.add({key("é\udcff"): numbers}, [A])
    with closing(Store(tmp_path)) as store:
        assert store.row(key("other")) is None
        assert repr(store.row(key("é\udcff"))) == repr(numbers)  # bit for bit, with NaN


def test_maps_are_small_and_as_they_were():
    rising = torch.linspace(0, 1, 224).expand(1, 1, 160, 224)
    content = packed(rising)
    assert len(content) < 1000
    shown = unpacked(content) / 255
    assert shown.shape == (1, 1, 64, 64)
    torch.testing.assert_close(shown[0, 0, 0], torch.linspace(0, 1, 64), atol=0.02, rtol=0)


def test_the_latest_row_of_an_image_and_a_method(tmp_path):
    other = Setting("a", {"seed": "1"})
    with closing(Store(tmp_path)) as store:
        store.add({key(): row(1)}, [A])
        store.add({key(content="d", setting=other): row(2)}, [other])
        store.add({key(setting=B): row(3)}, [B])
        assert store.latest(digest("image"))["a"] == ("d", {"seed": "1"})
        assert store.latest(digest("other")) == {}
        # Written again, it is the latest.
        store.add({key(): row(4)}, [A])
        assert store.latest(digest("image"))["a"] == ("c", {"seed": "0"})
        assert count(store) == 3


def test_files_of_processes_are_merged(tmp_path):
    with closing(Store(tmp_path)) as store:
        store.add({key("0"): row(0), key("1"): row(1)}, [A])
    for rank in range(2):
        with closing(Store(tmp_path, rank)) as store:
            assert store.row(key("0")) == row(0)
            store.add({key(f"new {rank}", setting=B): row(rank)}, [B])
            store.add({key("1"): Row({"insertion": 1, "road": 2})}, [A])
    assert len(rows(tmp_path)) == 2
    with closing(Store(tmp_path)) as store:
        store.merge()
        assert count(store) == 4
        assert "b" in store.latest(digest("new 1"))
        assert store.row(key("1")) == Row({"insertion": 1, "road": 2})
    assert os.listdir(tmp_path) == [FILE]


def test_rows_that_are_not_named_are_deleted(tmp_path):
    with closing(Store(tmp_path)) as store:
        store.add({key("0"): row(0), key("1"): row(1), key("1", "d"): row(2)}, [A])
        store.add({key("0", setting=B): row(3), key("unreadable", "e"): row(4)}, [A, B])
        store.keep({key("0"), key("1")}, {digest("unreadable")})
    assert rows(tmp_path).keys() == {key("0"), key("1"), key("unreadable", "e")}


def write_for_ever(folder, said):
    with closing(Store(folder)) as store:
        for number in range(10**6):
            store.add({key(f"{number} {part}"): row(number) for part in "abc"}, [A])
            os.write(said, b".")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not POSIX")
@pytest.mark.parametrize("wait", [0, 0.001, 0.003, 0.007, 0.013, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2])
def test_a_kill_leaves_whole_images(wait, tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(tmp_path, write)
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as said:
        first = said.read(1)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        n_said = len(first + said.read())
    os.waitpid(child, 0)
    with closing(Store(tmp_path)) as store:
        n_images, rest = divmod(count(store), 3)
        assert rest == 0
        # What was said to be written is there.
        assert n_images >= n_said >= 1


FOREIGN = {
    "text": b"mine, and longer than the header of a database " * 9,
    "short": b"mine",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(5000),
}


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_file_is_not_overwritten(content, tmp_path):
    (tmp_path / FILE).write_bytes(FOREIGN[content])
    with pytest.raises(ValueError, match=r"results.sqlite is damaged, or not a file of") as error:
        Store(tmp_path)
    one_sentence(error)
    assert (tmp_path / FILE).read_bytes() == FOREIGN[content]


@pytest.mark.parametrize("pragma", ["", "PRAGMA application_id = 7"])
def test_a_foreign_database_is_not_overwritten(pragma, tmp_path):
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("CREATE TABLE mine (value)")
        other.execute(pragma)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match=r"was written by something else: give") as error:
        Store(tmp_path)
    one_sentence(error)
    assert (tmp_path / FILE).read_bytes() == before


def test_another_version_is_not_overwritten(tmp_path):
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="written by another version of captum-advise"):
        Store(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "zeros"])
def test_a_damaged_file_is_named_and_kept(damage, tmp_path):
    with closing(Store(tmp_path)) as store:
        for number in range(200):
            store.add({key(str(number)): row(number)}, [A])
    content = bytearray((tmp_path / FILE).read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[4096:12288] = bytes(8192)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"results.sqlite is damaged") as error:
        Store(tmp_path)
    one_sentence(error)
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("map", zlib.compress(bytes(4096))[:-9]),
        ("map", b"\0\xff"),
        ("map", zlib.compress(b"short")),
        ('"values"', '{"avx": 0.5,'),
        ('"values"', "[1]"),
        ('"values"', "5"),
        ("parts", "{"),
    ],
)
def test_damage_that_sqlite_does_not_see(column, content, tmp_path):
    with closing(Store(tmp_path)) as store:
        store.add({key(): Row({"avx": 0.5}, packed(torch.rand(1, 1, 64, 64)))}, [A])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        table = "settings" if column == "parts" else "rows"
        connection.execute(f"UPDATE {table} SET {column} = ?", (content,))
    with closing(Store(tmp_path)) as store:
        read = (store.latest, digest("image")) if column == "parts" else (store.row, key())
        with pytest.raises(ValueError, match=r"results.sqlite is damaged") as error:
            read[0](read[1])
    one_sentence(error)


def test_an_empty_file_of_a_kill_is_a_new_store(tmp_path):
    (tmp_path / FILE).touch()
    with closing(Store(tmp_path)) as store:
        assert count(store) == 0


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path):
    with closing(Store(tmp_path)) as store:
        store.add({key("0"): row(0)}, [A])
        store._own.execute("PRAGMA max_page_count = 12")

        def fill():
            for number in range(1, 999):
                store.add({key(f"{number} {part}"): row(1, map=bytes(99)) for part in "ab"}, [A])

        with pytest.raises(OutputError, match=r"cannot be written \(database or disk is full\)"):
            fill()
        written = count(store)
        assert written % 2 == 1
        store._own.execute("PRAGMA max_page_count = 999")
        store.add({key("more"): row(2)}, [A])
        assert count(store) == written + 1


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with (
        reserved(tmp_path / "out", FILE),
        pytest.raises(OutputError, match="Another run is writing"),
    ):
        reserved(tmp_path / "out", FILE).__enter__()
    with reserved(tmp_path / "out", FILE):
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file cannot be written \(.*\): a file has this name"):
        reserved(tmp_path / "file", FILE).__enter__()
    with pytest.raises(OutputError, match=r"file/out cannot be written \(Not a directory\)"):
        reserved(tmp_path / "file" / "out", FILE).__enter__()


def test_a_lock_that_is_a_link_leads_nowhere(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OutputError, match="out cannot be written"):
        reserved(tmp_path / "out", FILE).__enter__()
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["results.csv", "report.html", "failures.csv", "run.json"])
def test_files_that_no_run_has_written_are_not_touched(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name} but no results.sqlite") as error:
        reserved(tmp_path, FILE).__enter__()
    one_sentence(error)
    assert (tmp_path / name).read_text() == "mine"
