"""What guards the page of ``captum-advise app``: who may ask, and how much may be uploaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from captum_advise._utils.optional_dependencies import import_optional

MAX_BYTES = 20 * 2**20  # of an image
QUOTA = 500 * 2**20  # of all images
AT_ONCE = 8  # uploads
_FORM_BYTES = 10_000  # of a request, in addition to the image

_PREFIX, _LOCK = "captum-advise-", "in-use"


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for uploads, which is deleted with what is around it at the end.

    Folders of processes that were killed, and could not do so, are deleted at the start.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        # Of another user, it cannot be opened.
        with suppress(OSError), lock.open("r+") as file:
            if _is_locked_now(file):
                shutil.rmtree(lock.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        uploads = Path(name, "uploads")
        uploads.mkdir()
        with Path(name, _LOCK).open("w") as file:
            _is_locked_now(file)
            yield uploads


def _is_locked_now(file: Any) -> bool:
    """Lock a file until it is closed; False if another process has it, and on Windows."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


class Guard:
    """Middleware that refuses requests of other sites and too large uploads.

    Args:
        app: What answers the other requests.
        hosts: Names under which the page may be asked for; any if None. A page elsewhere whose name
            is made to lead to this machine must not reach us.
        folder: Of the uploads. What is there already, as the examples, stays.
    """

    def __init__(self, app: Any, hosts: set[str] | None, folder: Path) -> None:
        self.app = app
        self.hosts = hosts
        self.folder = folder
        self.kept = set(folder.rglob("*"))
        self.uploading = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or let the app do so."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        limit = _FORM_BYTES + MAX_BYTES * is_upload if scope.get("method") == "POST" else None
        refusal = self._refusal(dict(scope["headers"]), limit)
        if refusal is None and is_upload and self.uploading >= AT_ONCE:
            refusal = 503, "Too many uploads at once."
        if refusal is not None:
            await send({"type": "http.response.start", "status": refusal[0]})
            await send({"type": "http.response.body", "body": refusal[1].encode()})
            return
        self.uploading += is_upload
        try:
            if is_upload:
                _make_room(set(self.folder.rglob("*")) - self.kept, self.uploading)
            await self.app(scope, receive, send)
        except import_optional("starlette.requests", "app").ClientDisconnect:
            pass
        finally:
            self.uploading -= is_upload

    def _refusal(self, headers: dict[bytes, bytes], limit: int | None) -> tuple[int, str] | None:
        host, origin, length = (
            headers.get(name, b"").decode("latin-1")
            for name in (b"host", b"origin", b"content-length")
        )
        try:
            name, site = urlsplit(f"//{host}").hostname, urlsplit(origin).netloc
        except ValueError:  # brackets that do not close
            return 400, "No address."
        if self.hosts is not None and name not in self.hosts:
            return 400, "Unknown host."
        if origin and site != host:
            return 403, "Another site may not ask."
        # Chunks would be read to their end, whatever length is said.
        is_chunked = b"transfer-encoding" in headers
        if limit and (is_chunked or not length.isdecimal() or int(length) > limit):
            return 413, f"An image may have {MAX_BYTES // 2**20} MiB."
        return None


def _make_room(uploads: set[Path], more: int) -> None:
    """Delete the oldest uploads, so that some more stay within the quota."""
    files = [(path, path.stat()) for path in uploads if path.is_file()]
    files.sort(key=lambda file: file[1].st_mtime)
    size = sum(stat.st_size for _, stat in files)
    for path, stat in files:
        if size <= QUOTA - MAX_BYTES * more:
            return
        path.unlink(missing_ok=True)
        size -= stat.st_size
