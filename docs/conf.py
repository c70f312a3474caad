"""How Sphinx builds the documentation: `scripts/docs`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from sphinx.application import Sphinx

from kodo.p2p.distribution import installed_version

DOCS = Path(__file__).resolve().parent

project = "kodo"
author = "The kodo authors"
copyright = "The kodo authors, Apache-2.0"
version = release = installed_version()

extensions = ["myst_parser"]
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

language = "en"
html_theme = "pydata_sphinx_theme"
html_title = "kodo"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": []}


def _lead_out_of_the_site(app: object, path: str, source: list[str]) -> None:
    """Name files of the repository instead of linking to them: the site has the pages of `docs/` alone."""
    source[0] = re.sub(
        r"\[([^\]]+)\]\(((?:\.\./)+(?:[\w.]+/)*[\w.]*)(?:#[\w-]*)?\)", partial(_named, path), source[0]
    )


def _named(path: str, link: re.Match[str]) -> str:
    target = (DOCS / path).parent.joinpath(link[2]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    return f"{link[1]} (`{target.relative_to(DOCS.parent)}`)"


def setup(app: Sphinx) -> None:
    """Turn links that lead out of `docs/` into names."""
    app.connect("source-read", _lead_out_of_the_site)
