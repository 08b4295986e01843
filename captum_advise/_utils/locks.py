"""A lock that processes which are forked can take."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock_of_threads() -> Any:
    """A reentrant lock that is free in a forked process, whichever thread held it before.

    A fork waits for that thread, so that the process has no hooks of a pass that never ends.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock
