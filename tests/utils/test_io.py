"""Atomic file writes; full disks and devices are in tests/robustness/test_files.py."""

import os
import stat
from threading import Timer

import pytest
import torch

from captum_advise import Explanation, zoo
from captum_advise._utils.io import atomic_write
from captum_advise._utils.records import pack, unpack


def test_text_and_bytes(tmp_path):
    atomic_write(tmp_path / "text", "ä\n")
    assert (tmp_path / "text").read_bytes() == "ä\n".encode()
    atomic_write(tmp_path / "text", b"new")
    assert (tmp_path / "text").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["text"]


def test_content_is_on_the_disk_before_the_file_is_replaced(tmp_path, monkeypatch):
    synced, path = [], tmp_path / "file"
    path.write_text("old")

    def fsync(descriptor):
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        synced.append(path.read_text())

    monkeypatch.setattr("os.fsync", fsync)
    atomic_write(path, "new")
    assert synced == ["old"]
    assert path.read_text() == "new"


@pytest.mark.parametrize("name", ["a" * 255, "with space", "ümlaut"])
def test_names(tmp_path, name):
    atomic_write(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match=r"file cannot be written: No such file or directory\.$"):
        atomic_write(tmp_path / "missing" / "file", "x")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"cannot be written: Not a directory\.$"):
        atomic_write(tmp_path / "file" / "inside", "x")


def test_tensors_of_every_type_come_back(tmp_path):
    types = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool)
    tensors = {str(dtype): torch.tensor([0, 1, 1]).to(dtype) for dtype in types}
    content = {"tensors": tensors, "notes": {"a": (1, "b", None)}}
    atomic_write(tmp_path / "tensors", pack("tests", content))
    found = unpack(tmp_path / "tensors", "tests", dict)
    assert found["notes"] == {"a": (1, "b", None)}
    again = found["tensors"]
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    with pytest.raises(ValueError, match="not a file with others"):
        unpack(tmp_path / "tensors", "others", dict)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("read", [zoo.open_image, Explanation.load], ids=["image", "explanation"])
def test_a_pipe_is_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = Timer(5, lambda: (tmp_path / "pipe").write_bytes(b"late"))
    writer.daemon = True
    writer.start()
    with pytest.raises(
        ValueError, match=r"pipe is not a file, but a folder, a pipe or a device\.$"
    ):
        read(tmp_path / "pipe")
    assert writer.is_alive()
    writer.cancel()
