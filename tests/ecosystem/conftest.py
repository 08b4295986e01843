"""The examples of docs/how-to/ecosystem.md, by heading."""

import re
from pathlib import Path

import pytest
from toy_networks import Net, images, network

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ecosystem.md"


def example(heading):
    """The code under a heading; that before the first heading for None."""
    sections = re.split(r"^## (.*)$", _PAGE.read_text(encoding="utf-8"), flags=re.M)
    texts = {None: sections[0], **dict(zip(sections[1::2], sections[2::2], strict=True))}
    return "\n".join(re.findall(r"```python\n(.*?)```", texts[heading], re.S))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the example of a heading, after the first one, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {"net": network(Net), "images": images(2)}
    exec(example(None), names)

    def run(heading, **more):
        names.update(more)
        exec(example(heading), names)
        return names

    return run
