"""Atomic file writes."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

# Names of files that are not in UTF-8 are kept as they are.
ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}


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
