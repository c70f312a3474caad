"""Which versions run a flow: the data of each run's `version` event."""

from __future__ import annotations

import importlib.metadata
import platform

from kodo.p2p.distribution import installed_version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Return the versions of kodo, Python and Ray; empty where it is not installed."""
    return {"kodo": installed_version(), "python": platform.python_version(), "ray": _version("ray")}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
