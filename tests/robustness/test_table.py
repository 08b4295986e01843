"""The tables in docs/reference/robustness-cases.md are made from the tests' ``case`` markers.

``python tests/robustness/test_table.py`` writes them.
"""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "reference" / "robustness-cases.md"
BEGIN, END = "<!-- cases: made by tests/robustness/test_table.py -->", "<!-- end of cases -->"
# The networks of test_zoo_families.py are in docs/reference/layers.md.
LEFT_OUT = {"table", "zoo_families"}
MODULES = sorted({path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")} - LEFT_OUT)


def cases(marks):
    """(what, outcome) of a test's markers."""
    yield from (mark.args for mark in reversed(marks) if mark.name == "case")
    for mark in marks:
        if mark.name == "parametrize":
            for parameters in mark.args[1]:
                yield from cases([*getattr(parameters, "marks", ())])


def lines(tested):
    """A line per outcome, with its cases. Of a common start, such as "image: ", only the first."""
    by_outcome = {}
    for what, outcome in dict.fromkeys(tested):
        by_outcome.setdefault(outcome, []).append(what)
    for outcome, names in by_outcome.items():
        texts, last = [], None
        for name in names:
            start, colon, rest = name.partition(": ")
            texts.append(rest if colon and start == last else name)
            last = start
        yield f"- {'; '.join(texts)}: *{outcome}*"


def table():
    sections = []
    for name in MODULES:
        spec = importlib.util.spec_from_file_location(f"_{name}", HERE / f"test_{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tested = [
            case
            for test in vars(module).values()
            if callable(test) and getattr(test, "__name__", "").startswith("test_")
            for case in cases(getattr(test, "pytestmark", []))
        ]
        title = module.__doc__.splitlines()[0].rstrip(".")
        sections.append(f"## {title} (`test_{name}.py`)\n\n" + "\n".join(lines(tested)))
    return "\n\n".join(sections)


def parts():
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before, rest.removesuffix(after).removesuffix(END).strip(), after


def test_the_table_is_that_of_the_tests():
    _, written, _ = parts()
    assert written == table(), "run `python tests/robustness/test_table.py`"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "helpers"))
    before, _, after = parts()
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")
