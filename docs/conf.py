"""How Sphinx builds these pages: `make docs`."""

import fireworks

project = "fireworks"
author = "the fireworks authors"
copyright = f"2026, {author}"
release = fireworks.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "description"
# Docstrings write code in single backticks.
default_role = "literal"

napoleon_custom_sections = [("Shapes", "notes_style"), ("Source", "notes_style")]

html_theme = "alabaster"
html_theme_options = {"description": "Data pipelines for PyTorch", "page_width": "1100px"}
