"""How a process of the command line uses memory: when it looks for garbage, and what it keeps."""

from __future__ import annotations

import atexit
import gc
import sys

_USUAL, _WHILE_IMPORTING = gc.get_threshold(), (100_000, 50, 100)


def begin_imports() -> None:
    """Look for garbage rarely.

    Torch and other packages make 400,000 objects at import. To look for garbage among them, then
    and at exit, takes as long as importing torch.
    """
    gc.set_threshold(*_WHILE_IMPORTING)
    atexit.register(gc.freeze)


def end_imports() -> None:
    """Look for garbage as usual, but not among what was imported, if :func:`begin_imports` ran."""
    if gc.get_threshold() == _WHILE_IMPORTING:
        gc.freeze()
        gc.set_threshold(*_USUAL)
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Have the C library of Linux use freed memory again, instead of returning it to the system.

    The system clears memory before it gives it back. With the activations of forward passes, that
    is a third of the work of ``evaluate``.
    """
    if sys.platform != "linux":
        return
    import ctypes

    # Of glibc: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)
        mallopt(-3, 2**30)
