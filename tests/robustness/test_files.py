"""Files"""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from messages import one_sentence
from PIL import Image

from captum_advise import cli, zoo
from captum_advise._utils.io import atomic_write
from captum_advise.zoo.images import to_rgb

SMALL = ("--model", "timm/test_resnet", "--weights", "random")


def case(what, outcome, *values):
    return pytest.param(*values, marks=pytest.mark.case(what, outcome))


@pytest.fixture(scope="module")
def noise():
    """An image that does not compress to nothing, wider than high."""
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def encoded(pixels, suffix, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(
        stream, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **options
    )
    return stream.getvalue()


# --- images


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(width, height, *more):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IEND", b"")


BOMB_TEXT = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))

BAD_IMAGES = {
    "zero bytes": (lambda noise: b"", "not an image in a format"),
    "truncated JPEG": (lambda noise: encoded(noise, "jpg")[:-400], "truncated or damaged"),
    "truncated PNG": (lambda noise: encoded(noise, "png")[:5000], "truncated or damaged"),
    "PNG with a damaged checksum": (
        lambda noise: encoded(noise, "png").replace(b"IDAT", b"IDAT\xff", 1),
        "truncated or damaged|not an image",
    ),
    "text": (lambda noise: b"not an image", "not an image in a format"),
    "decompression bomb: 100,000 x 100,000 pixels in 60 bytes": (
        lambda noise: png_of(100_000, 100_000),
        "too many pixels",
    ),
    "decompression bomb: 100 MB of text in a PNG": (
        lambda noise: png_of(4, 4, BOMB_TEXT),
        "truncated or damaged|too many|not an image",
    ),
}


@pytest.mark.parametrize(
    "kind",
    [case(f"image: {kind}", "ValueError in one sentence", kind) for kind in BAD_IMAGES],
)
def test_bad_images(kind, noise, tmp_path):
    make, message = BAD_IMAGES[kind]
    path = tmp_path / "p.png"
    path.write_bytes(make(noise))
    with pytest.raises(ValueError, match=message) as error:
        zoo.open_image(path)
    assert str(path) in one_sentence(error)


@pytest.mark.case("image: JPEG named .png, or without suffix", "opened by its content")
@pytest.mark.parametrize("name", ["p.png", "image"])
def test_wrong_suffix(name, noise, tmp_path):
    (tmp_path / name).write_bytes(encoded(noise, "jpg"))
    assert zoo.open_image(tmp_path / name).size == (90, 60)


@pytest.mark.parametrize(
    "suffix",
    [
        case(f"image: EXIF-rotated {kind}", "turned upright", suffix)
        for kind, suffix in {"JPEG": "jpg", "PNG": "png", "WebP": "webp", "TIFF": "tif"}.items()
    ],
)
def test_exif_rotated(suffix, noise, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if suffix == "webp" else {}
    (tmp_path / f"p.{suffix}").write_bytes(encoded(noise, suffix, exif=exif, **options))
    upright = np.asarray(to_rgb(zoo.open_image(tmp_path / f"p.{suffix}"))).astype(int)
    assert upright.shape == (90, 60, 3)
    if suffix != "jpg":
        assert np.array_equal(upright, np.rot90(noise, -1))


@pytest.mark.case("image: damaged EXIF", "shown as it is")
def test_damaged_exif(noise, tmp_path):
    (tmp_path / "p.jpg").write_bytes(
        encoded(noise, "jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about the EXIF data
        assert to_rgb(zoo.open_image(tmp_path / "p.jpg")).size == (90, 60)


@pytest.mark.parametrize(
    "suffix",
    [
        case(f"image: animated {kind}", "its first frame", suffix)
        for kind, suffix in {"GIF": "gif", "PNG": "png", "WebP": "webp"}.items()
    ],
)
def test_animated(suffix, tmp_path):
    frames = [Image.new("RGB", (40, 40), (value,) * 3) for value in (10, 200)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(
        tmp_path / f"p.{suffix}", save_all=True, append_images=frames[1:], duration=100, **options
    )
    assert np.unique(np.asarray(to_rgb(zoo.open_image(tmp_path / f"p.{suffix}")))) == [10]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        case("image: grey", "the same grey in three channels", "L", 128),
        case("image: RGBA", "transparent parts white", "RGBA", 255),
        case("image: 16-bit grey", "scaled to 8 bits", "I;16", 128),
        case("image: 1-bit", "black and white", "1", 255),
        case("image: CMYK", "converted", "CMYK", 255),
    ],
)
def test_modes(mode, expected, tmp_path):
    fill = {"L": 128, "RGBA": (0, 0, 0, 0), "I;16": 128 * 257, "1": 1, "CMYK": (0, 0, 0, 0)}
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new(mode, (8, 8), fill[mode]).save(path)
    pixels = np.asarray(to_rgb(zoo.open_image(path)))
    assert pixels.shape == (8, 8, 3)
    assert np.unique(pixels).tolist() == [expected]


@pytest.mark.case(
    "image names with spaces, non-ASCII letters, bytes that are not text, 250 letters",
    "explained; the results have the same names",
)
@pytest.mark.case(
    "good and bad images in one command", "the good ones are explained, a line for each bad one"
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_images_on_the_command_line(noise, tmp_path, capfd):
    names = ["two words", "Größe 猫", os.fsdecode(b"\xff\xfe"), "n" * 250]
    good = [tmp_path / f"{name}.jpg" for name in names]
    for path in good:
        path.write_bytes(encoded(noise, "jpg"))
    bad = []
    for number, (make, _) in enumerate(BAD_IMAGES.values()):
        bad.append(tmp_path / f"bad{number}.png")
        bad[-1].write_bytes(make(noise))
    output = tmp_path / "out put"
    status = cli.main(
        ["explain", *map(str, [*bad[:3], *good, *bad[3:]]), *SMALL, "--output", str(output)]
    )
    assert status == 1
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "json")}
    assert set(os.listdir(output)) == expected
    for name in names:
        assert json.loads((output / f"{name}.json").read_text())["image"].endswith(".jpg")
    complaints = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(complaints) == len(bad) + 1
    assert all(any(path.name in line for line in complaints) for path in bad)


# --- output


@contextmanager
def at_most(size):
    """Files cannot grow beyond ``size`` bytes, as on a disk with little room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.case(
    "disk full while a file is written", "OSError; the old file is whole, no other file is left"
)
def test_full_disk(tmp_path):
    path = tmp_path / "results.json"
    atomic_write(path, b"old")
    with at_most(1000), pytest.raises(OSError, match=r"results\.json cannot be written"):
        atomic_write(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.case("`/dev/full` as a file", "OSError; the device stays a device")
def test_dev_full():
    with pytest.raises(OSError, match="No space left"):
        atomic_write(Path("/dev/full"), b"content")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    "output",
    [
        case("output folder: `/dev/full`, a file", "one line, nothing is computed", "/dev/full"),
        case("output folder that cannot be made or written to", "one line", "/proc/advise"),
    ],
)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="not Linux")
def test_bad_output_folders(output, noise, tmp_path, capfd):
    (tmp_path / "p.jpg").write_bytes(encoded(noise, "jpg"))
    for command in (
        ["explain", str(tmp_path / "p.jpg"), *SMALL, "--output", output],
        ["evaluate", "--data", str(tmp_path), *SMALL, "--output", output],
    ):
        assert cli.main(command) == 2
        (complaint,) = capfd.readouterr().err.splitlines()
        assert complaint.startswith("error: ")
        assert output in complaint


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 256 KB; root can make it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.case(
    "output folder on a full or read-only file system, `explain`",
    "one line, and nothing more is computed; what was there is whole, nothing half-written",
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_explain_on_a_full_disk(small_disk, noise, tmp_path, capfd):
    images = [tmp_path / f"{name}.jpg" for name in "pqr"]
    for image in images:
        image.write_bytes(encoded(noise, "jpg"))
    (small_disk / "old").write_bytes(bytes(200_000))
    command = ["explain", *map(str, images), *SMALL, "-o", str(small_disk)]
    assert cli.main(command) == 1
    written, stopped = capfd.readouterr().err.splitlines()
    assert "p.png cannot be written: No space left" in written
    assert stopped == "error: stopped after 0 of 3 images."
    assert os.listdir(small_disk) == ["old"]

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli.main(["explain", str(images[0]), *SMALL, "-o", str(small_disk)]) == 1
    assert "Read-only file system" in capfd.readouterr().err
    assert os.listdir(small_disk) == ["old"]


@pytest.mark.slow
@pytest.mark.case(
    "output folder on a full disk, `evaluate`, then with room again",
    "stops in one line; the same command continues and loses nothing",
)
@pytest.mark.filterwarnings("ignore:.* no group")
def test_evaluate_on_a_full_disk(small_disk, noise, tmp_path, capfd):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.jpg").write_bytes(encoded(noise + number, "jpg"))
    command = ["evaluate", "--data", str(data), *SMALL, "--methods", "grad-cam,random"]
    command += ["--output", str(small_disk / "out"), "--steps", "4"]
    (small_disk / "ballast").write_bytes(bytes(254_000))
    assert cli.main(command) == 2
    assert "the same command then continues" in capfd.readouterr().err
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert cli.main(command) == 0
    assert not [name for name in os.listdir(small_disk / "out") if "partial" in name]


@pytest.mark.case("output to `/dev/full` on the screen", "no result file is lost")
@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_screen_is_full(noise, tmp_path):
    (tmp_path / "p.jpg").write_bytes(encoded(noise, "jpg"))
    command = [sys.executable, "-m", "captum_advise", "explain", str(tmp_path / "p.jpg"), *SMALL]
    with Path("/dev/full").open("w") as full:
        subprocess.run([*command, "-o", str(tmp_path / "out")], stdout=full, check=False)
    assert sorted(os.listdir(tmp_path / "out")) == ["p.json", "p.png"]
