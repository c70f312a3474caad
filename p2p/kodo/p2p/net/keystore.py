"""The keys of one home folder: who this node and this user are. Made on first use, readable by their owner only."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import clear_parts, make_once, whole_file

if TYPE_CHECKING:
    from kodo.p2p.net.certificate import Certificate

__all__ = ["load_certificate", "load_identity", "make_home", "make_private", "read_private", "write_private"]


def make_home(home: Path) -> Path:
    """Make the folder (mode 0700) if it is not there, and remove what a crash left half written; give it back.

    Raises:
        UsageError: when it cannot be made or others may enter it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = home.stat().st_mode
    except OSError as error:
        raise UsageError(f"cannot make the folder {home}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o022:
        raise UsageError(f"others may write to {home}; run: chmod 700 {shlex.quote(str(home))}")
    clear_parts(home)
    return home


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; what a crash left beside it is removed.

    Raises:
        UsageError: when it cannot be written.
    """
    try:
        clear_parts(path.parent)
        with whole_file(path, durable=True) as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def read_private(path: Path) -> bytes | None:
    """Read a file of a key or secret; None when there is none.

    Raises:
        UsageError: it cannot be read, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"others may read the key {path}; run: chmod 600 {shlex.quote(str(path))}")
    return data


def make_private(path: Path, data: bytes) -> bytes:
    """Read a file of a key; where there is none, make it of `data`. What is there is returned, whoever made it.

    Raises:
        UsageError: when it cannot be read or made, or others may read it.
    """
    found = read_private(path)
    if found is not None:
        return found
    make_home(path.parent)
    try:
        made = make_once(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    # Another process may have been first.
    return data if made else read_private(path) or b""


def load_identity(home: Path, name: Literal["node", "user", "registry"]) -> Identity:
    """Return the key `<home>/<name>.key` (32 bytes, hexadecimal); make it on first use.

    Raises:
        UsageError: when it cannot be read or made, is damaged, or others may read it.
    """
    path = home / f"{name}.key"
    data = make_private(path, secrets.token_hex(32).encode() + b"\n")
    try:
        return Identity.from_seed(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError as error:
        raise UsageError(f"{path} is not a key (64 hexadecimal digits)") from error


def load_certificate(home: Path) -> Certificate:
    """Return the DTLS certificate `<home>/node.crt`; make it on first use.

    Raises:
        UsageError: as `load_identity`.
    """
    from kodo.p2p.net.certificate import Certificate  # X.509 and TLS: users of nodes have keys alone

    path = home / "node.crt"
    data = read_private(path)
    if data is None:
        data = make_private(path, Certificate.generate().to_pem())
    try:
        return Certificate.from_pem(data)
    except UsageError as error:
        raise UsageError(
            f"{path}: {error}; put it back from a backup, or remove it: the node's addresses change with it"
        ) from error
