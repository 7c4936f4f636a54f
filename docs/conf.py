"""The documentation: `sphinx-build -W docs docs/_build/html`, or `nox -s docs`."""

import ast
import inspect
import sys
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

# The reference is that of the source beside these pages, whether or not it is installed.
sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

project = "batchproxy"
author = "The batchproxy developers"
project_copyright = f"2026 {author}"
html_title = project
html_theme = "furo"
pygments_dark_style = "github-dark"  # furo's own underlines names, as if they were links
html_static_path = ["_static"]
html_css_files = ["tables.css"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# What is in these is included by other pages.
exclude_patterns = ["_build", "_house.md", "speed", "proof"]

# `name` in a docstring is code, whether or not there is a page to link to.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# The sections that a docstring of this project has beyond those that napoleon knows.
napoleon_custom_sections = ["Checkpoints", "Cancellation", "Threads"]
autodoc_member_order = "bysource"
# Not needed to document.
autodoc_mock_imports = ["duckdb", "pandas", "polars", "pyarrow", "pyspark"]
autodoc_typehints = "signature"
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3


def read_rooms(door: str) -> None:
    """Read the rooms that a door shows: Sphinx looks there for what attributes are, and orders."""
    shown = ModuleAnalyzer.for_module(door)
    shown.analyze()
    package = door if Path(shown.srcname).name == "__init__.py" else door.rpartition(".")[0]
    for node in ast.walk(ast.parse(shown.code)):
        if isinstance(node, ast.ImportFrom) and node.level:
            name = resolve_name("." * node.level + (node.module or ""), package)
            room = ModuleAnalyzer.for_module(name)
            room.analyze()
            shown.attr_docs |= room.attr_docs
            shown.tagorder |= room.tagorder


def list_tests(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What a contract for stores tests, as a list: an entry for each would fill the contents."""
    if what == "class":
        tests = [each for method, each in vars(obj).items() if method.startswith("test_")]
        said = [f"- ``{test.__name__}``: {inspect.getdoc(test)}" for test in tests]
        lines += ["", "Its tests:", "", *said] if tests else []


def setup(app: Sphinx) -> None:
    for door in ("", ".stores", ".codecs", ".testing"):
        read_rooms(f"batchproxy{door}")
    app.connect("autodoc-process-docstring", list_tests)
