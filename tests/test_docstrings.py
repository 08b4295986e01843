"""Every public name is documented, and the examples do what they say."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import io
import re
import textwrap

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from PIL import Image
from skimage import data
from torch import nn

import captum_advise
from captum_advise import zoo

PARTS = ("axioms", "evaluation", "layouts", "metrics", "pixels", "targets", "visualization", "zoo")
MODULES = [captum_advise, *(importlib.import_module(f"captum_advise.{part}") for part in PARTS)]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
}
DOCUMENTED = {
    name: found
    for name, found in PUBLIC.items()
    if inspect.isfunction(found) or (inspect.isclass(found) and not issubclass(found, Exception))
}


class ImageClassifier(nn.Module):
    """The network of Captum's docstrings."""

    def __init__(self):
        super().__init__()
        self.conv4 = nn.Conv2d(3, 50, 3, stride=4, padding=1)
        self.head = nn.Linear(50, 10)

    def forward(self, x):
        return self.head(self.conv4(x).relu().mean((2, 3)))


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What docs/reference/api/index.md promises to the examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "photos/1.jpg", "photos/2.jpg"):
        Image.fromarray(data.chelsea()[60:284, 100:324]).save(tmp_path / name)
    net = ImageClassifier().eval()
    return {
        **{export: getattr(captum_advise, export) for export in captum_advise.__all__},
        "ImageClassifier": ImageClassifier,
        "LayerAttribution": LayerAttribution,
        "LayerGradCam": LayerGradCam,
        "images": torch.rand(2, 3, 32, 32),
        "net": net,
        "torch": torch,
        "zoo": zoo,
    }


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples(name, names):
    found = DOCUMENTED[name]
    module = importlib.import_module(found.__module__)
    tests = doctest.DocTestFinder(exclude_empty=True).find(
        found, name, module=module, globs={**vars(module), **names}
    )
    assert any(test.examples for test in tests), "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said = io.StringIO()
    for test in tests:
        runner.run(test, out=said.write)
    assert runner.failures == 0, said.getvalue()


def documented(found):
    """A function, or a class and its public methods, each with the docstring that covers it."""
    if inspect.isfunction(found):
        return [(found, found.__doc__)]
    own = [getattr(found, name) for name in vars(found) if not name.startswith("_")]
    own = [getattr(member, "func", member) for member in own]  # of a cached property
    methods = [(method, method.__doc__) for method in own if inspect.isroutine(method)]
    made = [vars(found).get("__init__"), vars(found).get("__post_init__")]
    return methods + [
        (function, found.__doc__)
        for function in made
        if function is not None and function.__module__ == found.__module__  # not typing's
    ]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_errors_are_documented(name):
    for function, text in documented(DOCUMENTED[name]):
        try:
            source = inspect.getsource(inspect.unwrap(function))
        except OSError:  # written by dataclass
            continue
        raised = [n.exc for n in ast.walk(ast.parse(textwrap.dedent(source))) if is_raise(n)]
        errors = {getattr(error, "func", error).id for error in raised}
        section = (text or "").partition("Raises:")[2]
        missing = {error for error in errors if error.endswith("Error") and error not in section}
        assert not missing, f"{function.__qualname__} raises {missing}"


def is_raise(node):
    return isinstance(node, ast.Raise) and isinstance(getattr(node.exc, "func", node.exc), ast.Name)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_arguments_are_documented(name):
    found = DOCUMENTED[name]
    if dataclasses.is_dataclass(found):
        # Those of a base class are documented there.
        own = inspect.get_annotations(found)
        names = [field.name for field in dataclasses.fields(found) if field.name in own]
        assert_named(found.__doc__, names, name)
        return
    for function, text in documented(found):
        parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        # One argument of a method can be told in its first line.
        if len(parameters) > 1 and "As in :meth:`attribute`" not in text:
            assert_named(text, parameters, function.__qualname__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_only_arguments_are_documented(name):
    found = DOCUMENTED[name]
    fields = getattr(found, "__dataclass_fields__", ())
    for function, text in documented(found):
        known = {*inspect.signature(function).parameters, *fields}
        strangers = [word for word in explained(text or "") if word not in known]
        assert not strangers, f"{function.__qualname__} has no {strangers}"


def explained(text):
    """The names that the sections of arguments and of attributes explain."""
    sections = re.findall(r"^( *)(?:Args|Attributes):\n((?:\1 +.*\n| *\n)+)", f"{text}\n", re.M)
    for indent, section in sections:
        depth = len(re.match(" *", section)[0])
        assert depth > len(indent)
        for names in re.findall(rf"^ {{{depth}}}((?:\w+, )*\w+)[^\n:]*:", section, re.M):
            yield from names.split(", ")


def test_what_is_explained():
    text = """Head.

    Args:
        first, second: Of these: two.
            third: no head.
        fourth (int, optional): Another.

    Returns:
        fifth: No argument.
    """
    assert list(explained(text)) == ["first", "second", "fourth"]


def assert_named(text, words, where):
    missing = [word for word in words if not re.search(rf"^\s+(\w+, )*{word}\b.*:", text, re.M)]
    assert not missing, f"{where} does not say what {missing} are"
