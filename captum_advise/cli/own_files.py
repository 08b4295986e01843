"""Names for results that replace files of ours, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from captum_advise.cli.image_sources import Source

# How files of ours begin, within so many bytes.
_MARKS = {
    ".png": b"Software\0captum-advise",
    ".json": b'{\n  "captum_advise": ',
    ".html": b'<meta name="generator" content="captum-advise ',
}
_BEGINNING = 4096

_INDEX = "index"


def output_names(sources: Sequence[Source], folder: Path, endings: Sequence[str]) -> list[str]:
    """A name per image: its own, with a number where another or a user's file has it."""
    originals = {source.path.resolve() for source in sources if source.path is not None}
    # On some systems, names in capitals are the same.
    taken = {_INDEX}
    names = []
    for source in sources:
        for name in _numbered(source.stem):
            paths = [folder / f"{name}{ending}" for ending in endings]
            is_free = name.casefold() not in taken and all(map(_may_be_replaced, paths))
            if is_free and originals.isdisjoint(path.resolve() for path in paths):
                break
        taken.add(name.casefold())
        names.append(name)
    return names


def index_name(folder: Path) -> str:
    """The name of the page that lists the results."""
    names = (f"{name}.html" for name in _numbered(_INDEX))
    return next(name for name in names if _may_be_replaced(folder / name))


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def _may_be_replaced(path: Path) -> bool:
    """Whether there is no such file, or one of ours."""
    if not path.is_file():
        return not path.exists()
    with path.open("rb") as file:
        return _MARKS[path.suffix] in file.read(_BEGINNING)
