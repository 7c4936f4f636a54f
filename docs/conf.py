"""The documentation: `sphinx-build -W docs docs/_build/html`, or `nox -s docs`."""

import sys
from pathlib import Path

# The reference is that of the source beside these pages, whether or not it is installed.
sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

project = "batchproxy"
author = "The batchproxy developers"
html_title = project
html_theme = "furo"
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
autodoc_typehints = "signature"
myst_heading_anchors = 3
