"""The tables in docs/reference/robustness-cases.md are made from the tests' ``case`` markers.

``python tests/robustness/test_table.py`` writes them.
"""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "reference" / "robustness-cases.md"
BEGIN, END = "<!-- cases: made by tests/robustness/test_table.py -->", "<!-- end of cases -->"
MODULES = sorted({path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")} - {"table"})


def cases(marks):
    """(what, outcome, test is slow) of a test's markers."""
    own = [mark for mark in marks if mark.name == "case"]
    slow = any(mark.name == "slow" for mark in marks)
    yield from ((*mark.args, slow) for mark in reversed(own))
    for mark in marks:
        if mark.name == "parametrize":
            for parameters in mark.args[1]:
                inner = [*getattr(parameters, "marks", ())]
                if inner:
                    yield from cases([*inner, *(m for m in marks if slow and m.name == "slow")])


def table():
    sections = []
    for name in MODULES:
        spec = importlib.util.spec_from_file_location(f"_{name}", HERE / f"test_{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rows = [
            f"| {what} | {outcome} | {'slow' if slow else ''} |"
            for test in vars(module).values()
            if callable(test) and getattr(test, "__name__", "").startswith("test_")
            for what, outcome, slow in cases(getattr(test, "pytestmark", []))
        ]
        title = module.__doc__.splitlines()[0]
        sections.append(
            f"## {title}\n\n`tests/robustness/test_{name}.py`\n\n"
            "| case | outcome | test |\n| --- | --- | --- |\n" + "\n".join(dict.fromkeys(rows))
        )
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
