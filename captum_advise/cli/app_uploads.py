"""What guards the page of ``captum-advise app``: who may ask, and how much may be uploaded."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MAX_BYTES = 20 * 2**20  # of an image
QUOTA = 500 * 2**20  # of all images
_FORM_BYTES = 10_000  # of an upload, in addition to the image
_AT_ONCE = 4  # uploads

_PREFIX, _LOCK = "captum-advise-", "in-use"

# Gradio's own page needs inline scripts and styles. Nothing comes from elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'self'"
)


def check_site(site: str) -> None:
    """Raise a ValueError if this is not the address of a site, without a path."""
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", site, re.ASCII):
        raise ValueError(
            f"{site!r} is not the address of a site: give one like https://example.org."
        )


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for uploads, which is deleted with what is around it at the end.

    Folders of processes that were killed, and could not do so, are deleted at the start.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        uploads = Path(name, "uploads")
        uploads.mkdir()
        with Path(name, _LOCK).open("w") as lock:
            _try_to_lock(lock)
            yield uploads


def _is_abandoned(folder: Path) -> bool:
    lock = folder / _LOCK
    if folder.is_symlink() or lock.is_symlink() or not lock.is_file():
        return False
    # Of another user, it cannot be opened.
    with suppress(OSError), lock.open("r+") as file:
        return _try_to_lock(file)
    return False


def _try_to_lock(file: Any) -> bool:
    """Lock a file until it is closed; False if another process has it, or locks are unknown."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Guard:
    """Middleware that refuses requests of other sites and too large uploads.

    Args:
        app: What answers the other requests.
        hosts: Names under which the page may be asked for; any if None. A page elsewhere whose name
            is made to lead to this machine must not reach us.
        folder: Of the uploads.
        embed_in: A site, besides this one, that may show the page in a frame.
    """

    def __init__(
        self, app: Any, hosts: set[str] | None, folder: Path, embed_in: str | None = None
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.folder = folder
        policy = _POLICY if embed_in is None else f"{_POLICY} {embed_in}"
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]
        self._uploads = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or let the app do so."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        is_upload = scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload")
        refusal = self._refusal(headers, is_upload and scope["method"] == "POST")
        if refusal:
            await _refuse(*refusal, send_with_policy)
        elif is_upload:
            async with self._uploads:
                _make_room(self.folder)
                await self.app(scope, receive, send_with_policy)
        else:
            await self.app(scope, receive, send_with_policy)

    def _refusal(self, headers: dict[bytes, str], is_upload: bool) -> tuple[int, str] | None:
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        try:
            name, site = urlsplit(f"//{host}").hostname, urlsplit(origin or "").netloc
        except ValueError:  # brackets that do not close
            return 400, "No address."
        if self.hosts is not None and name not in self.hosts:
            return 400, "Unknown host."
        if origin is not None and site != host:
            return 403, "Another site may not ask."
        length = headers.get(b"content-length", "")
        if is_upload and not length.isdecimal():
            return 411, "The length is missing."
        if is_upload and int(length) > MAX_BYTES + _FORM_BYTES:
            return 413, f"An image may have {MAX_BYTES // 2**20} MiB."
        return None


async def _refuse(status: int, text: str, send: Any) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _make_room(folder: Path) -> None:
    """Delete the oldest uploads, so that all who upload at once stay within the quota."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    files.sort(key=lambda file: file[1].st_mtime)
    size = sum(stat.st_size for _, stat in files)
    for path, stat in files:
        if size <= QUOTA - _AT_ONCE * MAX_BYTES:
            return
        with suppress(OSError):
            path.unlink()
            size -= stat.st_size
