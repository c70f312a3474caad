"""The keys of one home folder: who this node and this user are. Made on first use, readable by their owner only."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Literal

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.files import whole_file

__all__ = ["load_certificate", "load_identity", "make_home", "write_private"]


def make_home(home: Path) -> Path:
    """Make the folder (mode 0700) if it is not there; give it back.

    Raises:
        UsageError: when it cannot be made or others may enter it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = home.stat().st_mode
    except OSError as error:
        raise UsageError(f"cannot make the folder {home}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o022:
        raise UsageError(f"others may write to {home}; do: chmod 700 {home}")
    return home


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        UsageError: when it cannot be written.
    """
    try:
        with whole_file(path, durable=True) as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _read_private(path: Path) -> bytes | None:
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"others may read the key {path}; do: chmod 600 {path}")
    return data


def _make_once(path: Path, data: bytes) -> bytes:
    """Write `data` unless another process was first; give what stands there."""
    make_home(path.parent)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_private(path) or data
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return data


def load_identity(home: Path, name: Literal["node", "user", "registry"]) -> Identity:
    """Give the key `<home>/<name>.key` (32 bytes, hexadecimal); make it on first use.

    Raises:
        UsageError: when it cannot be read or made, is damaged, or others may read it.
    """
    path = home / f"{name}.key"
    data = _read_private(path)
    if data is None:
        data = _make_once(path, secrets.token_hex(32).encode() + b"\n")
    try:
        return Identity.from_seed(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError as error:
        raise UsageError(f"{path} is not a key (64 hexadecimal digits)") from error


def load_certificate(home: Path) -> Certificate:
    """Give the DTLS certificate `<home>/node.crt`; make it on first use.

    Raises:
        UsageError: as `load_identity`.
    """
    path = home / "node.crt"
    data = _read_private(path)
    if data is None:
        data = _make_once(path, Certificate.generate().to_pem())
    return Certificate.from_pem(data)
