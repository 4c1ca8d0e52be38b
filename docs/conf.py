"""How Sphinx builds these pages: `make docs`."""

import re

from sphinx.application import Sphinx

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
napoleon_custom_sections = [("Shapes", "notes_style"), ("Source", "notes_style")]

html_theme = "alabaster"
html_theme_options = {"description": "Data pipelines for PyTorch", "page_width": "1100px"}


def as_restructured_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Says in reStructuredText what docstrings say in plain text: `code`, shapes (N, *feature), trees and tables."""
    text = "\n".join(lines)
    text = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", text)
    text = re.sub(r", \*(?=\w+\))", r", \\*", text)
    if what == "module":
        text = re.sub(r"(?<=\n)(\S.*\n\n)(?= {4})", r"\1::\n\n", "\n" + text).removeprefix("\n")
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)
