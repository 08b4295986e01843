"""Links between the repository's pages lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Sphinx copies pages into docs.
COPIES = {"docs/CHANGELOG.md", "docs/CONTRIBUTING.md"}
PAGES = sorted(
    str(path.relative_to(ROOT).as_posix())
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tutorials/README.md")
)
PAGES = [
    page for page in PAGES if page not in COPIES and not re.match("docs/(_build|tutorials)", page)
]


def without_code(text):
    return re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.S | re.M)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    text = without_code((ROOT / page).read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"https?:|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `title`, and more\n\n```text\n# no heading\n```\n", encoding="utf-8")
    assert anchors(page) == {"one-title-and-more"}
