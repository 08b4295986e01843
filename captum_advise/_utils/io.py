"""Files: what can be read to its end, and atomic writes."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from captum_advise._utils.errors import on_one_line

# Names of files that are not in UTF-8 are kept as they are.
ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}


def require_file(path: Path, kind: str = "file") -> None:
    """Raise an error if there is no file, or a pipe or a device, which may have no end."""
    shown = on_one_line(str(path))
    if not path.exists():
        raise FileNotFoundError(f"There is no {kind} {shown}.")
    if not path.is_file():
        raise ValueError(f"{shown} is not a file, but a folder, a pipe or a device.")


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file so that at every moment it is whole: the old one or the new one.

    Devices and pipes, which cannot be replaced, are written to as they are. Text is encoded as
    UTF-8. Where the file cannot be written, what was there before still is.
    """
    data = content.encode(**ENCODING) if isinstance(content, str) else content
    # Not the file's own name, which may have the greatest length already.
    unfinished = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
