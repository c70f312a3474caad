"""Virtual environments beside this one, for tests that need packages too large or too rare for everybody's."""

import contextlib
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from scripts.locks import install_commands, is_newest_wanted, path_of, uv

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 1200


def do(*command: str | Path, seconds: float = INSTALL_SECONDS) -> str:
    """Run a command in the repository; gives what it printed, which is the failure when it fails."""
    # What is not compiled at the first import would be compiled at each.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in kept.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout


def environment(name: str) -> Path:
    """Make `.venv-NAME` from the lock of that name, unless it is there and as the lock says; gives its Python."""
    folder = ROOT / (f".venv-{name}-unlocked" if is_newest_wanted() else f".venv-{name}")
    made, stamp = folder / "bin" / "python", folder / ".kodo"
    sources = (ROOT / "pyproject.toml").read_bytes() + path_of(name).read_bytes()
    wanted = hashlib.sha256(sources + sys.version.encode()).hexdigest()
    if is_newest_wanted() or not stamp.is_file() or stamp.read_text() != wanted:
        try:
            _install(folder, made, name, uv())
        except (AssertionError, SystemExit, subprocess.TimeoutExpired):
            # uv knows nothing of an index that only pip is told of.
            _install(folder, made, name, None)
        stamp.write_text(wanted)
    return made


def _install(folder: Path, python: Path, name: str, installer: Path | None) -> None:
    venv.create(folder, with_pip=installer is None, clear=True)
    for command in install_commands(python, name, newest=is_newest_wanted(), installer=installer):
        do(*command)
    for ray in folder.glob("lib/*/site-packages/ray"):  # uv compiles nothing, and Ray has to start in a given time
        with contextlib.suppress(AssertionError):  # as pip does: what cannot be compiled may never be imported
            do(python, "-m", "compileall", "-q", ray)
