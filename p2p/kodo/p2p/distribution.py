"""kodo as it is installed: its name among packages, its version, and how a part of it is added."""

from __future__ import annotations

import functools
import shlex

__all__ = ["DISTRIBUTION", "IS_PUBLISHED", "how_to_install", "installed_version"]

DISTRIBUTION = "kodo"
"""The name in `pyproject.toml`, by which kodo is installed; nowhere else is it looked up by name."""

IS_PUBLISHED = False
"""Whether a package index has a release of that name.

Until then whoever registers the name decides what `pip install` of it brings, so nobody is told to do that.
"""


def how_to_install(extra: str) -> str:
    """Return what to do to add an extra of kodo, such as `node`: a command, and where to run it."""
    if IS_PUBLISHED:
        return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extra}]')}"
    return f"in your clone of kodo, run: pip install -e {shlex.quote(f'.[{extra}]')}"


@functools.cache
def installed_version() -> str:
    """Return the version of kodo that this process runs, `0` where kodo is not installed as a package.

    It is looked up once: that parses the package's metadata, and every session is told the version.
    """
    # Imported here: it takes longer to import than most commands need this.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"
