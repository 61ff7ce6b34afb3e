"""The site: `make docs` builds it into docs/_build. What can be read from the code is written by docs/_ext."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]

project = PROJECT["name"]
release = version = PROJECT["version"]
html_title = f"lrkit {release}"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages", "docstrings"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "text"  # of an indented block: commands, and what they print

html_show_copyright = False
maximum_signature_line_length = 88  # a line for each argument of a longer one
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "literal"  # docstrings write code in single backticks, too

# Every reference must lead somewhere. Types of other packages, and of lrkit's inner modules, have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!lrkit\.(schedules\.)?\w+$).*")]
linkcheck_timeout = 20
linkcheck_ignore = [PROJECT["urls"]["Repository"] + r".*/(blob|tree)/main/.*"]  # tests/test_readme.py looks at those
