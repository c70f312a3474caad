"""Makes a file of keys or secrets in processes that die at each step of it, or whose disk is full half way.

`python -m tests.support.crashes MAKER FOLDER` prints, as JSON, what was found to be broken afterwards. A process of
its own, for it forks: one that is killed runs no cleanup, and an audit hook stays for good.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from kodo.client.known_nodes import KnownNodes
from kodo.client.logins import Login, Logins
from kodo.node.runs.vault import Vault
from kodo.p2p.core.identity import Identity
from kodo.p2p.net.keystore import load_certificate, load_identity, make_home, write_private

FID = "0" * 26
HALF = 10
"""Bytes that the full disk takes of a file; each of these has more."""


def _secrets(home: Path) -> Vault:
    vault = Vault(home / "secrets", home / "secrets.key")
    vault.open()
    return vault


def _keep_secrets(home: Path) -> None:
    vault = _secrets(home)
    asyncio.run(vault.put(FID, "inputs", [[["token"], "x" * 100]]))
    assert asyncio.run(vault.get(FID, "inputs")) == [[["token"], "x" * 100]]


def _log_in(home: Path) -> None:
    logins = Logins(home / "logins.json", keyring=False)
    logins.put("https://registry.example", Login(provider="local", secret="s"), {"token": "t"})
    assert logins.get("https://registry.example") is not None


def _pin(home: Path) -> None:
    KnownNodes(home / "known_nodes").pin("node.example", Identity.from_seed(bytes(32)).peer_id)


MAKERS: dict[str, Callable[[Path], object]] = {
    "node.key": lambda home: load_identity(home, "node"),
    "user.key": lambda home: load_identity(home, "user"),
    "registry.key": lambda home: load_identity(home, "registry"),
    "node.crt": load_certificate,
    "secrets.key": _secrets,
    f"secrets/{FID}": _keep_secrets,
    "logins.json": _log_in,
    "known_nodes": _pin,
    "any other": lambda home: write_private(make_home(home) / "any other", b"x" * 100),
}
"""By the file that it makes in a home: makes it where it is missing or of no use, and reads it."""


def _in_a_child(work: Callable[[], object]) -> int:
    """Do it in a process of its own; give its exit code: 0, 1 when it raised, 9 when it was to die."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(step: int) -> None:
    """Die before the operation on files of this number."""
    steps = itertools.count()

    def hook(event: str, args: object) -> None:
        if (event == "open" or event.startswith(("os.", "fcntl."))) and next(steps) == step:
            os._exit(9)

    sys.addaudithook(hook)


def _fill_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, resource.RLIM_INFINITY))


def _broken(name: str, folder: Path) -> list[str]:
    """Give what is broken after each crash: by its number, in words."""
    make = MAKERS[name]
    make(folder / "imported")  # what is imported late is not a step
    found = []

    def look(home: Path, when: str) -> None:
        if (home / name).exists() and (size := (home / name).stat().st_size) <= HALF:
            found.append(f"{when}: {name} has {size} bytes")
        if _in_a_child(lambda: make(home)) != 0:
            found.append(f"{when}: {name} cannot be made or read any more")
        elif (home / name).stat().st_mode & 0o777 != 0o600:
            found.append(f"{when}: others may read {name}")

    for step in itertools.count():
        home = folder / str(step)

        def crash(home: Path = home, step: int = step) -> None:
            _die_at(step)
            make(home)

        code = _in_a_child(crash)
        look(home, f"killed at step {step}")
        if code == 0:
            break

    def fill(home: Path = folder / "full") -> None:
        _fill_disk()
        make(home)

    if _in_a_child(fill) == 0:
        found.append("a full disk was not noticed")
    look(folder / "full", "full disk")
    return found


if __name__ == "__main__":
    print(json.dumps(_broken(sys.argv[1], Path(sys.argv[2]))))
