"""The account under which a node runs flows, where it is not the node's own: who it is, and what it can reach."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import pwd
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.node.executors.marked_processes import end_marked
from kodo.node.executors.process.executor import end_left
from kodo.node.executors.ray.cluster import MARK, stop_cluster
from kodo.node.executors.runner.environment import flow_environment
from kodo.p2p.errors import CapacityError, UsageError

__all__ = ["FOLDER", "Account", "check_holds", "check_reach", "find_account", "leave_folder", "make_folder", "settle"]

FOLDER = "apart"
"""The folder of the home that belongs to the account: its Ray's files, and those of its runs."""

PROBE_TIMEOUT = 60.0
"""Seconds in which the account must have looked at what it needs."""

MAX_PROBE_BYTES = 1 << 20
"""Bound of what it says about that."""

_OWN = frozenset(["TMPDIR", "TMP", "TEMP", "MAIL", "OLDPWD", "PWD"])
"""Variables that say where somebody's own things are, as do `XDG_…`; another account has others."""

_PROBE = """
import importlib.util, json, os, sys
folders, packages = json.load(sys.stdin)
closed = [folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK)]
def found(package):
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, OSError):
        return False
absent = [package for package in packages if not found(package)]
json.dump([closed, absent, os.access(os.path.expanduser("~"), os.W_OK)], sys.stdout)
"""


_RELIED_ON = ("kodo.node", "kodo.p2p", "kodo.cli")


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine, as `/etc/passwd` has it; `groups` are all of its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a process of the account: those given, less what is the node's or its user's."""
        kept = {
            name: value
            for name, value in flow_environment(given).items()
            if name not in _OWN and not name.startswith(("XDG_", "SUDO_"))
        }
        return {**kept, "HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def process(self) -> dict[str, Any]:
        """Return what `subprocess` has to be told: a process of the account holds nothing of this one's terminal."""
        return {
            "user": self.uid,
            "group": self.gid,
            "extra_groups": list(self.groups),
            "cwd": "/",
            "umask": 0o077,
            "start_new_session": True,
        }


def settle(home: Path, name: str | None, folders: Iterable[Path], *, needs_ray: bool = True) -> Account | None:
    """Return the account of a node's flows, once all is as it needs it; None: it is the node's own. Blocks.

    Args:
        home: the node's home; what another account has left in it is ended and removed.
        name: of the account.
        folders: what it has to read.
        needs_ray: whether it has to have Ray.

    Raises:
        UsageError: there is no such account, or it cannot be used; the message says what helps.
        CapacityError: its folder cannot be made.
    """
    if name is None:
        leave_folder(home)
        return None
    account = find_account(name)
    packages = [Path(place) for package in _RELIED_ON for place in importlib.import_module(package).__path__]
    check_holds(account, [home, Path(sys.executable), *packages])
    folder = make_folder(home, account)
    found = check_reach(account, [folder, *folders], needs_ray=needs_ray)
    # Of the node's own account, when it ran flows under that: nobody would end them.
    stop_cluster(home)
    end_left(home)
    return found


def find_account(name: str) -> Account:
    """Return the account.

    Raises:
        UsageError: there is no such account, it is the node's own or root, or this node may not switch to it.
    """
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        make = f"useradd --system --create-home {shlex.quote(name)}"
        raise UsageError(f"runner_user: there is no account {name!r} on this machine; to make one: {make}") from None
    if os.geteuid() != 0:
        raise UsageError(
            f"runner_user: only root may run flows as {name}; start the node as root, or as {name} without it"
        )
    if entry.pw_uid in (0, os.geteuid()):
        raise UsageError(f"runner_user: {name} is the node's own account; name one that may do less")
    groups = os.getgrouplist(name, entry.pw_gid)
    return Account(name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)


def make_folder(home: Path, account: Account) -> Path:
    """Make the account's folder in the home, which the account may enter and not list; return it.

    What another account has left there is ended and removed.

    Raises:
        CapacityError: it cannot be made.
    """
    folder = home / FOLDER
    try:
        if os.path.lexists(folder) and folder.lstat().st_uid != account.uid:
            leave_folder(home)
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        found = home.stat()
        if not found.st_mode & stat.S_IXOTH and found.st_uid != account.uid:
            os.chown(home, -1, account.gid)
            home.chmod(stat.S_IMODE(found.st_mode) & 0o700 | stat.S_IXGRP)
    except OSError as error:
        raise CapacityError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def leave_folder(home: Path) -> None:
    """End what runs for this home under another account, and remove its folder; nothing where there is none."""
    folder = home / FOLDER
    try:
        owner = folder.lstat().st_uid
    except OSError:
        return
    end_marked(MARK, str(folder / "ray"), user=owner)
    end_left(folder, user=owner)
    shutil.rmtree(folder, ignore_errors=True)  # it follows no link, whatever was put there


def check_holds(account: Account, places: Iterable[Path]) -> None:
    """Check that the account cannot replace what the node relies on: its home, its Python and its code.

    Raises:
        UsageError: it may write to one of them, or to a folder on the way there.
    """
    for path in places:
        for place in _steps(path):
            found = place.stat()
            writes = _may(account, found, 0o2) and not found.st_mode & stat.S_ISVTX
            if found.st_uid == account.uid or (place.is_dir() and writes):
                raise UsageError(
                    f"runner_user: {account.name} may write to {place}, so it could replace {path}, which the node "
                    "relies on; move that to a place where only root may write"
                )


def check_reach(account: Account, folders: Iterable[Path], *, needs_ray: bool = True) -> Account:
    """Check that the account can run this Python with kodo, and Ray if need be, and read the folders; blocks.

    Returns:
        The account; without a home of its own that it may write to, with `FOLDER` of this node instead.

    Raises:
        UsageError: it cannot; says which command helps.
    """
    wanted = [Path(folder) for folder in folders]
    packages = ["kodo.node.executors.apart.host", *(["ray"] if needs_ray else [])]
    try:
        answer = _probe(account, json.dumps([[str(folder) for folder in wanted], packages]).encode())
        closed, absent, at_home = json.loads(answer)
    except subprocess.TimeoutExpired:
        raise UsageError(f"runner_user: Python did not start as {account.name} in {PROBE_TIMEOUT:g} s") from None
    except OSError as error:
        if error.errno == errno.EPERM:
            raise UsageError(
                f"runner_user: this machine does not let the node switch to {account.name} ({error.strerror}); "
                "a container needs the capabilities SETUID and SETGID for it"
            ) from error
        raise _closed(account, Path(sys.executable), "Python") from error
    except ValueError:
        raise _closed(account, Path(sys.executable), "Python") from None
    if closed:
        raise _closed(account, Path(closed[0]), "it")
    if absent:
        package = absent[0].partition(".")[0]
        found = importlib.util.find_spec(package)
        raise _closed(account, Path(found.origin or __file__) if found else Path(__file__), f"the package {package}")
    if at_home:
        return account
    return Account(account.name, account.uid, account.gid, account.groups, str(wanted[0]))


def _probe(account: Account, question: bytes) -> bytes:
    """Return what Python says as the account; it may import what the account has put in its way.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
        OSError: it did not start.
    """
    command = [sys.executable, "-P", "-c", _PROBE]
    late = threading.Event()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=account.environment(os.environ),
        **account.process(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def give_up() -> None:
            late.set()
            _end(process)

        timer = threading.Timer(PROBE_TIMEOUT, give_up)
        timer.start()
        try:
            with contextlib.suppress(OSError):  # one that ended at once is told by its answer
                process.stdin.write(question)
                process.stdin.close()
            answer: bytes = process.stdout.read(MAX_PROBE_BYTES)
        finally:
            timer.cancel()
            _end(process)
    if late.is_set():
        raise subprocess.TimeoutExpired(command, PROBE_TIMEOUT)
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it has started, as far as that shares its group."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _closed(account: Account, path: Path, what: str) -> UsageError:
    """Return the refusal for what the account cannot reach, with the command that lets it."""
    for place in _steps(path):
        try:
            found = place.stat()
        except OSError:
            continue
        right = 0o5 if place == path and place.is_dir() else 0o1
        if not _may(account, found, right):
            mode = "ugo"[_class(account, found)] + ("+rx" if right == 0o5 else "+x")
            helps = shlex.join(["chmod", mode, str(place)])
            return UsageError(
                f"runner_user: {account.name} cannot reach {path}, because it may not enter {place}; "
                f"allow it with: {helps}; or keep {what} elsewhere"
            )
    return UsageError(f"runner_user: {account.name} cannot reach {path}; give it access, or keep {what} elsewhere")


def _steps(path: Path) -> Iterable[Path]:
    """Return what lies on the way to `path`, from the root on, and on the way to what it is a link to."""
    seen = dict.fromkeys([*reversed(path.absolute().parents), path])
    real = path.resolve()
    return [*seen, *(place for place in [*reversed(real.parents), real] if place not in seen)]


def _class(account: Account, found: os.stat_result) -> int:
    """Return whose rights are the account's: the owner's (0), the group's (1), or others' (2)."""
    return 0 if found.st_uid == account.uid else 1 if found.st_gid in (account.gid, *account.groups) else 2


def _may(account: Account, found: os.stat_result, right: int) -> bool:
    return (found.st_mode >> (6 - 3 * _class(account, found))) & right == right
