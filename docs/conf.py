"""Sphinx builds the documentation with these settings; `make docs` turns every warning into an error."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

project = "camatlas"
author = "the authors of camatlas"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "handbook.deployment",
    "handbook.docstrings",
    "handbook.reference",
    "handbook.mathml",
    "handbook.checked",
    "handbook.offline",
]
exclude_patterns = ["extensions", "**/_generated", "**.ipynb_checkpoints"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "inherited-members": "object,tuple,Exception,Protocol",
}
autodoc_typehints = "none"
napoleon_use_ivar = True
default_role = "literal"

html_theme = "furo"
html_title = "camatlas"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
