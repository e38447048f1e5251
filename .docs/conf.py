"""The site: the Markdown pages where they lie in the repository, and the reference from the docstrings of `common`.

sphinx-build -q -W -c .docs . site
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.version import __version__  # noqa: E402

project = "MRI super-resolution bundles"
author = "The authors of this collection"
copyright = f"{author}, Apache License 2.0"
release = __version__

root_doc = ".docs/index"
include_patterns = [
    ".docs/*.md",
    ".docs/api/*.rst",
    "README.md",
    ".github/CONTRIBUTING.md",
    "bundles/README.md",
    "bundles/**/*.md",
    "common/**/*.md",
    "tests/benchmarks/gpu_session/README.md",
]
exclude_patterns = [".ci-*", ".venv", "site"]
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinxcontrib.mermaid",
]
apidoc_modules = [
    {
        "path": "../common",
        "destination": ".docs/api",
        "exclude_patterns": ["../common/program/apps/**"],  # they run in environments of their own
        "separate_modules": True,
        "module_first": True,
    }
]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"
napoleon_use_ivar = True
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_title = project
html_extra_path = ["index.html"]  # servers look for it here, and the contents page is in .docs
# An overview of a package's modules has what their own pages have.
suppress_warnings = ["ref.python"]
