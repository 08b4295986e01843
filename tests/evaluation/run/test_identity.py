"""Redefinitions are noticed, and the same objects have the same identity in any process."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import types
from importlib import metadata

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Lime, Saliency
from captum.attr._core.lime import SkLearnLasso
from method_names import OF_CONVOLUTIONS
from quick_runs import QUICK_SETTINGS
from squares import SPACE, squares_network
from torch import nn

from captum_advise.evaluation import Context, get_methods
from captum_advise.evaluation.run.identity import identity


def cell(source, name="method", **namespace):
    """What a notebook's cell defines, under the module name of a notebook."""
    namespace["__name__"] = "__main__"
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), namespace)
    return namespace[name]


# The pairs differ in what the brackets of the id say.
REDEFINITIONS = {
    "constant": ("def method(x): return x * 2", "def method(x): return x * 3"),
    "name": ("def method(x): return x.sum()", "def method(x): return x.prod()"),
    "default": ("def method(x, k=1): return x * k", "def method(x, k=2): return x * k"),
    "keyword default": ("def method(x, *, k=1): return k", "def method(x, *, k=2): return k"),
    "nested": (
        "def method(x):\n    return [i * 2 for i in x]",
        "def method(x):\n    return [i * 3 for i in x]",
    ),
    "lambda": ("method = lambda x: x + 1", "method = lambda x: x + 2"),
    "set constant": (
        "def method(x): return x in {'a', 'b'}",
        "def method(x): return x in {'a', 'c'}",
    ),
    "closure": (
        "def make(k):\n    return lambda x: x * k\nmethod = make(1)",
        "def make(k):\n    return lambda x: x * k\nmethod = make(2)",
    ),
    "helper": (
        "def helper(x): return x + 1\ndef method(x): return helper(x)",
        "def helper(x): return x + 2\ndef method(x): return helper(x)",
    ),
    "global constant": (
        "STRENGTH = 1\ndef method(x): return x * STRENGTH",
        "STRENGTH = 2\ndef method(x): return x * STRENGTH",
    ),
    "class": (
        "class C:\n    def __call__(self, x): return x + 1\nmethod = C()",
        "class C:\n    def __call__(self, x): return x + 2\nmethod = C()",
    ),
    "base class": (
        "class B:\n    k = 1\nclass C(B):\n    def __call__(self, x): return self.k\nmethod = C()",
        "class B:\n    k = 2\nclass C(B):\n    def __call__(self, x): return self.k\nmethod = C()",
    ),
    "static method": (
        "class C:\n    @staticmethod\n    def f(x): return x + 1\nmethod = C.f",
        "class C:\n    @staticmethod\n    def f(x): return x + 2\nmethod = C.f",
    ),
    "property": (
        "class C:\n    @property\n    def k(self): return 1\nmethod = C()",
        "class C:\n    @property\n    def k(self): return 2\nmethod = C()",
    ),
    "attribute": (
        "class C:\n    def __init__(self, k): self.k = k\nmethod = C(1)",
        "class C:\n    def __init__(self, k): self.k = k\nmethod = C(2)",
    ),
    "slot": (
        "class C:\n    __slots__ = ('k',)\nmethod = C()\nmethod.k = 1",
        "class C:\n    __slots__ = ('k',)\nmethod = C()\nmethod.k = 2",
    ),
    "bound method": (
        "class C:\n    def __init__(self, k): self.k = k\n    def f(self): pass\nmethod = C(1).f",
        "class C:\n    def __init__(self, k): self.k = k\n    def f(self): pass\nmethod = C(2).f",
    ),
    "attribute of the function": (
        "def method(x): return method.k\nmethod.k = 1",
        "def method(x): return method.k\nmethod.k = 2",
    ),
    "decorated": (
        "import functools\n@functools.lru_cache\ndef method(x): return 1",
        "import functools\n@functools.lru_cache\ndef method(x): return 2",
    ),
    "method of a global class": (
        "class C:\n    def f(self): return 1\ndef method(x): return C().f()",
        "class C:\n    def f(self): return 2\ndef method(x): return C().f()",
    ),
    "enumeration": (
        "import enum\nclass E(enum.Enum):\n    A = 1\nmethod = E.A",
        "import enum\nclass E(enum.Enum):\n    A = 2\nmethod = E.A",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    k: int = 1\nmethod = C(5)",
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    k: int = 2\nmethod = C(5)",
    ),
}

# What a module sets in other ways than by a number.
SETTINGS = {
    "enumeration": ("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2", "E.A", "E.B"),
    "frozen set": ("", "frozenset({('a', 1), ('b', 2)})", "frozenset({('a', 1), ('b', 3)})"),
    "options of a command": (
        "import argparse",
        "argparse.Namespace(k=1)",
        "argparse.Namespace(k=2)",
    ),
    "namespace": ("import types", "types.SimpleNamespace(k=1)", "types.SimpleNamespace(k=2)"),
    "pattern": ("import re", "re.compile('a')", "re.compile('a', re.I)"),
    "getter": ("import operator", "operator.itemgetter(1)", "operator.itemgetter(2)"),
    "decimal": ("import decimal", "decimal.Decimal('0.1')", "decimal.Decimal('0.2')"),
    "fraction": ("import fractions", "fractions.Fraction(1, 3)", "fractions.Fraction(2, 3)"),
    "time": ("import datetime", "datetime.timedelta(1)", "datetime.timedelta(2)"),
    "date": ("import datetime", "datetime.date(2026, 1, 1)", "datetime.date(2026, 1, 2)"),
    "bytes": ("", "bytearray(b'1')", "bytearray(b'2')"),
    "frozen settings": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n    k: int = 1",
        "C(1)",
        "C(2)",
    ),
}
for what, (given, *values) in SETTINGS.items():
    globally, inside = (
        tuple(text.format(given=given, value=value) for value in values)
        for text in (
            "{given}\nK = {value}\ndef method(x): return K",
            "{given}\ndef make(k): return lambda x: k\nmethod = make({value})",
        )
    )
    REDEFINITIONS |= {f"{what} of the module": globally, f"{what} in a closure": inside}


@pytest.mark.parametrize("what", REDEFINITIONS)
def test_a_redefinition_is_noticed_and_a_repetition_is_not(what):
    first, second = REDEFINITIONS[what]
    assert identity(cell(first)) == identity(cell(first))
    assert identity(cell(first)) != identity(cell(second))


def test_comments_places_and_file_names_do_not_count():
    short = cell("def method(x):\n    return x + 1")
    long = cell("\n\n# comment\n\ndef method(x):\n    # comment\n    return x + 1")
    assert identity(short) == identity(long)


PAIRS = {
    "partial": (functools.partial(max, key=abs), functools.partial(max, key=len)),
    "tensors": (torch.ones(3), torch.ones(3) * 2),
    "types of tensors": (torch.ones(3), torch.ones(3, dtype=torch.float64)),
    "shapes": (torch.ones(2, 3), torch.ones(3, 2)),
    "arrays": (np.arange(3), np.arange(1, 4)),
    "numbers": (1, 1.0),
    "truth": (1, True),
    "lists": ([1, 2], [2, 1]),
    "nested lists": ([[1], 2], [[1, 2]]),
    "library functions": (torch.relu, torch.sigmoid),
    "library classes": (LayerGradCam, Saliency),
    "functions of NumPy": (np.exp, np.log),
    "dictionaries": ({"a": 1}, {"a": 2}),
    "devices": (torch.device("cpu"), torch.device("cuda")),
    "named methods": tuple(get_methods(["layer-advise", "layer-advise-minmax"]).values()),
    "methods of torchcam": tuple(get_methods(["grad-cam++", "layer-cam"]).values()),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_values_are_told_apart(pair):
    first, second = PAIRS[pair]
    assert identity(first) == identity(first)
    assert identity(first) != identity(second)


def test_the_order_of_sets_and_dictionaries_does_not_count():
    assert identity({"b", "a"}) == identity({"a", "b"})
    assert identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})


def test_an_attribution_is_known_by_its_settings():
    network = squares_network()
    objects = {
        "model": IntegratedGradients(network),
        "copy": IntegratedGradients(squares_network()),
        "other model": IntegratedGradients(squares_network(seed=1)),
        "setting": IntegratedGradients(network, multiply_by_inputs=False),
        "layer": LayerGradCam(network, network[3]),
        "other layer": LayerGradCam(network, network[0]),
        "lime": Lime(network, SkLearnLasso(alpha=0.01)),
        "other lime": Lime(network, SkLearnLasso(alpha=0.1)),
    }
    digests = {name: identity(value) for name, value in objects.items()}
    unlike = [name for name in digests if name != "copy"]
    assert len({digests[name] for name in unlike}) == len(unlike)
    assert digests["copy"] == digests["model"]


class Scaled(nn.Module):
    """A model with a setting that is not in its state dict."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.scale * self.layer(x)


def test_settings_of_a_model_count():
    def made(scale=1.0, slope=0.1):
        torch.manual_seed(0)
        return nn.Sequential(Scaled(scale), nn.LeakyReLU(slope)).eval()

    assert identity(made()) == identity(made())
    assert identity(made()) != identity(made(scale=2.0))
    assert identity(made()) != identity(made(slope=0.2))
    in_training = made()
    in_training[0].train()
    assert identity(made()) != identity(in_training)
    hooked = made()
    handle = hooked.register_forward_hook(lambda *_: None)
    assert identity(made()) != identity(hooked)
    handle.remove()
    assert identity(made()) == identity(hooked)
    patched = made()
    patched.forward = types.MethodType(lambda self, x: x, patched)
    assert identity(made()) != identity(patched)


@pytest.mark.filterwarnings("ignore")
def test_compiled_models_are_known_by_their_code():
    def made(slope=0.1):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(slope)).eval()

    image = torch.rand(1, 3, 8, 8)
    for compiled in (
        torch.jit.script,
        lambda model: torch.jit.trace(model, image),
        torch.fx.symbolic_trace,
        lambda model: torch.compile(model, backend="eager"),
    ):
        model = compiled(made())
        before = identity(model)
        model(image)
        assert identity(model) == before == identity(compiled(made()))
        assert identity(compiled(made(0.2))) != before


def test_a_model_is_the_same_after_it_has_been_used():
    class Recorder(Scaled):
        def forward(self, x):
            self.seen = x
            return super().forward(x)

    model = nn.Sequential(Recorder(), squares_network()[1:2])
    before = identity(model)
    model(torch.rand(1, 3, 8, 8))
    assert identity(model) == before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_methods_do_not_change_the_model_s_identity(squares):
    network = squares_network()
    before = identity(network)
    for method in get_methods(OF_CONVOLUTIONS, QUICK_SETTINGS).values():
        method(
            network,
            network[3],
            squares.inputs[0][None].clone(),
            torch.tensor([1]),
            Context(SPACE),
        )
        assert identity(network) == before


def test_the_surroundings_of_a_process_do_not_count(monkeypatch):
    method = cell("import os, sys\ndef method(x): return os.environ, sys.argv, sys.modules")
    before = identity(method)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(sys, "argv", ["other"])
    assert identity(method) == before


def test_helpers_in_a_module_of_the_user_count(monkeypatch):
    helpers = types.ModuleType("helpers_of_a_user")
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)
    method = cell("def method(x): return helpers.double(x)", helpers=helpers)
    helpers.double = cell("def double(x): return 2 * x", "double")
    before = identity(method)
    helpers.other = 3
    assert identity(method) == before
    helpers.double = cell("def double(x): return x + x", "double")
    assert identity(method) != before


def test_cached_properties_are_no_settings():
    method = cell(
        """
        import functools
        class C:
            @functools.cached_property
            def table(self): return [1]
        method = C()
        """
    )
    before = identity(method)
    assert method.table == [1]
    assert identity(method) == before


def test_compiled_functions_are_known_by_their_code():
    first, second = REDEFINITIONS["constant"]
    compiled = [torch.compile(cell(source), backend="eager") for source in (first, first, second)]
    assert identity(compiled[0]) == identity(compiled[1])
    assert identity(compiled[0]) != identity(compiled[2])


def test_cycles_and_opaque_objects_end():
    ring = []
    ring.append(ring)
    assert identity(ring) == identity(ring)
    opaque = [object(), iter([]), torch.Generator(), open, sys, types.SimpleNamespace(k=1)]
    assert identity(opaque) == identity([object(), iter([]), torch.Generator(), *opaque[3:]])


def test_identities_do_not_depend_on_the_process():
    code = """
        import sys
        sys.path[:0] = {path!r}
        import torch
        import test_identity as t
        parts = [t.identity(t.cell(first)) for first, _ in t.REDEFINITIONS.values()]
        parts.append(t.identity(t.squares_network()))
        print("".join(parts))
    """
    paths = [part for part in sys.path if part.endswith("helpers")] + [__file__.rpartition("/")[0]]
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code.format(path=paths))],
        env={"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = [identity(cell(first)) for first, _ in REDEFINITIONS.values()]
    assert printed == "".join([*here, identity(squares_network())]) + "\n"


def test_versions_of_packages_count(monkeypatch):
    before = identity(cell(TRANSFORM)), identity(LayerGradCam)
    monkeypatch.setattr(metadata, "version", lambda package: "0.1.0")
    assert identity(cell(TRANSFORM)) != before[0]
    # Of Captum and torch, it is a part of its own.
    assert identity(LayerGradCam) == before[1]


TRANSFORM = """
    from torchvision.transforms import v2
    method = v2.Compose([v2.Resize(8)])
"""
