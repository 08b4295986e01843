"""What importing the package brings in, and that the core works without optional packages."""

import ast
import json
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import captum_advise
from captum_advise import axioms, evaluation, visualization, zoo

LAZY = (captum_advise, axioms, evaluation, visualization, zoo)

# As with a torch that it was not built for, and as where it is not installed.
BROKEN = "RuntimeError('operator torchvision::nms does not exist')"
MISSING = "ModuleNotFoundError(f'No module named {name!r}', name=name)"

WITHOUT_TORCHVISION = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchvision":
                raise {error}

    sys.meta_path.insert(0, Refuse())
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_adds_nothing_but_ourselves_to_captums():
    before, added = json.loads(
        run(
            """
            import json, sys

            def packages(modules):
                return sorted({name.partition(".")[0] for name in modules})

            import captum.attr, captum.metrics
            before = set(sys.modules)
            import captum_advise
            print(json.dumps([packages(before), packages(set(sys.modules) - before)]))
            """
        )
    )
    assert set(added) - set(sys.stdlib_module_names) == {"captum_advise"}
    # Else Captum would bring in what we must not.
    assert not set(before) & {"pandas", "piq", "scipy", "sklearn", "timm", "torchvision", "typer"}


def test_a_name_is_imported_when_it_is_used():
    run(
        """
        import sys

        import captum_advise
        from captum_advise import evaluation, visualization, zoo

        assert captum_advise.__version__ and "resnet50" in zoo.list_networks()
        assert not {"torch", "captum", "numpy"} & set(sys.modules)
        assert {"LayerAdvise", "metrics", "zoo"} <= set(dir(captum_advise))
        assert not hasattr(captum_advise, "Advise")

        assert captum_advise.metrics.ssim.__name__ == "ssim" and "torch" in sys.modules
        space = captum_advise.PixelSpace.imagenet()
        assert vars(captum_advise)["PixelSpace"] is type(space)

        import pickle
        assert pickle.loads(pickle.dumps(space)) == space

        from captum_advise import *
        from captum_advise.layer_advise import LayerAdvise as direct
        assert LayerAdvise is direct and callable(explain) and "metrics" not in globals()
        """
    )


@pytest.mark.parametrize("package", LAZY)
def test_no_name_is_that_of_a_module_too(package):
    # Importing the module would replace what the name stands for.
    modules = {info.name for info in pkgutil.iter_modules(package.__path__)}
    assert set(package.__all__)
    assert not set(package.__all__) & modules
    for name in package.__all__:
        assert getattr(package, name) is not None


@pytest.mark.parametrize("error", [BROKEN, MISSING], ids=["broken", "missing"])
def test_without_torchvision(error):
    run(
        textwrap.dedent(WITHOUT_TORCHVISION.format(error=error))
        + textwrap.dedent(
            """
            import torch
            from torch import nn

            import captum_advise
            import captum_advise.axioms
            import captum_advise.evaluation
            import captum_advise.visualization
            from captum_advise import LayerAdvise, metrics, targets, zoo

            net = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                nn.Linear(4, 3),
            ).eval()
            inputs, target = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
            advise = LayerAdvise(net, net[1])
            for selection in (None, 0, [0, 1], "average_drop", "avx"):
                assert advise.attribute(inputs, unit_selection=selection).shape == (2, 1, 16, 16)
            assert advise.unit_relevance(inputs).shape == (2, 4)
            assert metrics.deletion_auc(net, inputs, inputs[:, :1], target).shape == (2,)

            for needs_it in (
                lambda: metrics.insertion_auc(net, inputs, inputs[:, :1], target),
                lambda: zoo.load("alexnet", weights="random"),
                lambda: targets.Detection(net),
            ):
                try:
                    needs_it()
                except ImportError as error:
                    assert "torchvision" in str(error) and "install" in str(error), error
                else:
                    raise AssertionError("torchvision was not needed")
            """
        )
    )


# --- one direction

ROOMS = (
    *("_version", "_utils", "pixels", "density", "relevance", "layouts", "metrics", "_core"),
    *("explanation", "layer_advise", "gated_grad_cam", "targets", "zoo"),
    *("visualization", "evaluation", "axioms", "_explain", "cli", "__main__"),
)


def imports():
    """Module to the modules that it imports when it runs, lazily or not."""
    package = Path(captum_advise.__file__).parent
    modules = {
        ".".join(("captum_advise", *path.relative_to(package).with_suffix("").parts)): path
        for path in package.rglob("*.py")
    }
    found = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        types_only = {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
            for node in ast.walk(branch)
        }
        named = [
            # A module of a package, a name of a module, or a name of a package.
            (f"{node.module}.{alias.name}", node.module, f"{node.module}.__init__")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and id(node) not in types_only and node.module
            for alias in node.names
        ]
        first = [next((name for name in names if name in modules), None) for names in named]
        found[module] = {name for name in first if name not in (None, module)}
    return found


def test_no_module_imports_one_that_imports_it():
    graph = {name: set(names) for name, names in imports().items()}
    # What imports nothing that is left is no part of a circle.
    while free := [name for name, names in graph.items() if not names & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph


def test_no_room_imports_one_above_it():
    def room(module):
        return module.split(".")[1]

    upwards = [
        (module, name)
        for module, names in imports().items()
        for name in names
        if {room(module), room(name)} <= {*ROOMS}
        and ROOMS.index(room(name)) > ROOMS.index(room(module))
    ]
    assert upwards == []
    assert {room(module) for module in imports()} <= {*ROOMS, "__init__"}
