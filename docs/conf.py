"""Sphinx configuration: ``sphinx-build -W --keep-going -n docs docs/_build``."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

import captum_advise

project = "captum-advise"
author = "The captum-advise authors"
version = release = captum_advise.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = f"captum-advise {version}"

# The notebooks are committed with their outputs. The tests run them.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
html_extra_path = ["llms.txt"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True

# Nothing is fetched while the pages are built, so names of other projects have no links.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(captum\.|collections|hypothesis|matplotlib|np\.|npt\.|numpy|pandas|pathlib|pd\.|PIL|st\."
        r"|scipy|torch|typing).*",
    ),
    # As they are written in annotations and in Captum's way of documenting arguments.
    (
        "py:class",
        r"Activation|ActivationRange|captum_advise\.relevance\.DensityOptions|Array|Axes|Callable"
        r"|Choice|Dataset|DensityOptions|Figure|Head|Image\.Image|ImageLike|Layer|ManyAxes|MethodLike|nn\.Module|optional"
        r"|Path|ReshapeTransform|scalar|Tensor|UnitSelection|attribution|arguments|spatial_dims",
    ),
]

# Pages that live elsewhere in the repository.
_COPIED = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "tutorials")
# Links to them, as they work in the repository: one folder further up than in the copies.
_LINK = re.compile(r"\]\(((?:\.\./)*)\.\./(?=tutorials/|CHANGELOG|CONTRIBUTING)")


def setup(app: Sphinx) -> None:
    """Copy the pages that are outside this folder, and let links lead to the copies."""
    here = Path(__file__).parent
    for name in _COPIED:
        source = here.parent / name
        if source.is_dir():
            shutil.copytree(source, here / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, here / name)
    app.connect("source-read", _link_to_copies)
    app.connect("build-finished", _link_to_sources)


def _link_to_copies(_app: Sphinx, _page: str, content: list[str]) -> None:
    content[0] = _LINK.sub(r"](\1", content[0])


def _link_to_sources(app: Sphinx, error: Exception | None) -> None:
    """Let the links of ``llms.txt`` lead to the pages as text, which are served too."""
    served = Path(app.outdir, "llms.txt")
    if error is None and served.is_file():
        text = served.read_text(encoding="utf-8")
        served.write_text(re.sub(r"\]\((.+?\.md)\)", r"](_sources/\1.txt)", text), encoding="utf-8")
