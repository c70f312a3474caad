"""Find the Pythons on which kodo promises to run, of those that this machine has: pythons.py oldest|newest|list

Prints paths of interpreters, oldest first. Which versions are promised stands in the classifiers of `pyproject.toml`.
Looks in PATH and in the folder of pyenv. An interpreter counts when it starts, has SQLite, and is of no virtual
environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_ABOUT = "import sqlite3, sys; print(sys.version_info[0], sys.version_info[1], sys.prefix == sys.base_prefix)"


def promised() -> list[str]:
    """Return the versions of the classifiers, as `3.11`, oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    return sorted(found, key=lambda version: int(version.partition(".")[2]))


def candidates(version: str) -> list[Path]:
    """Return where an interpreter of this version may be, the best first."""
    places = [shutil.which(f"python{version}"), shutil.which("python3")]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    return [*installed, *(Path(place) for place in places if place)]


def is_usable(python: Path, version: str) -> bool:
    """Return whether this interpreter starts, has this version and SQLite, and is of no virtual environment."""
    try:
        done = subprocess.run(
            [str(python), "-c", _ABOUT],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.split() == [*version.split("."), "True"]


def found() -> list[Path]:
    """Return one usable interpreter for each promised version that this machine has, oldest first."""
    best = (
        next((place for place in candidates(version) if is_usable(place, version)), None) for version in promised()
    )
    return [place for place in best if place is not None]


def main(arguments: Sequence[str]) -> int:
    """Print what was asked for."""
    if list(arguments) not in (["oldest"], ["newest"], ["list"]):
        print("usage: pythons.py oldest|newest|list", file=sys.stderr)
        return 2
    pythons = found()
    if not pythons:
        print(f"none of Python {', '.join(promised())} is on this machine", file=sys.stderr)
        return 1
    shown = {"oldest": pythons[:1], "newest": pythons[-1:], "list": pythons}[arguments[0]]
    print(*shown, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
