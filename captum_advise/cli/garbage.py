"""When a process of the command line looks for garbage."""

from __future__ import annotations

import atexit
import gc

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
