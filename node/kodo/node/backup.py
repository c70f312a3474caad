"""A node's home as one file, taken while the node is in use, and put back into an empty home.

The file is a tar archive that other programs read as well:

    database.db        the event log, runs, users and shares, of one moment
    files/…            outputs, uploads and memories, by their paths in the home; databases among them are copies
    keys/…             keys and secrets, if they were asked for
    manifest.json      last: what made it, and of each member its size and SHA-256

Outputs never change once the log names them, so files that are copied after the database belong to it. Those of runs
that are deleted meanwhile are missing, and counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kodo.node.home import hold_home
from kodo.node.store.schema import NODE_FILE, SCHEMA_VERSION
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import IntegrityError, UsageError
from kodo.p2p.net.files import clear_parts, whole_file
from kodo.p2p.net.keystore import make_home
from kodo.sqlite.copy import copy_database

__all__ = ["BackedUp", "back_up", "restore"]

FORMAT = 1
"""Of the archive; a higher one is a newer kodo's."""
_DATABASE = "node.db"
_FOLDERS = ("outputs", "uploads", "memory", "delegated")
_KEYS = (
    "node.key", "node.crt", "node.port", "user.key", "secrets.key", "secrets", "webhooks.key",
    "logins.json", "outgoing",
)  # fmt: skip
_PLAIN = ("kodo.toml", "known_nodes", "known_addresses")
_PIECE = 1 << 20
_MAX_MANIFEST = 256 << 20
_BESIDE = ("-wal", "-shm", "-journal", ".part")
"""Ends of files that are not copied: those beside databases, and half-made ones."""


@dataclass(slots=True)
class BackedUp:
    """What a backup holds, or was restored: `gone` counts files that were deleted while it was taken."""

    files: int = 0
    bytes: int = 0
    gone: int = 0
    keys: bool = False
    peer_id: str | None = None
    members: dict[str, dict[str, Any]] = field(default_factory=dict)


def back_up(home: Path, target: Path, *, keys: bool, outputs: bool = True) -> BackedUp:
    """Write a node's home to the file `target`, replacing what is there. Blocks; the node may be in use.

    Args:
        keys: whether keys and secrets are in it: with them, whoever has the file can be the node.
        outputs: whether outputs and uploads are.

    Raises:
        UsageError: there is no node's home, it is damaged, or the file cannot be written.
    """
    if not (home / _DATABASE).is_file():
        raise UsageError(f"there is no database of a node in {home}")
    if target.absolute().is_relative_to(home.absolute()):
        raise UsageError(f"{target} lies in the home that is to be backed up; name a file elsewhere")
    told = BackedUp(keys=keys, peer_id=_peer_id(home))
    try:
        clear_parts(target.absolute().parent)
        with (
            tempfile.TemporaryDirectory(prefix=".kodo-backup-", dir=target.absolute().parent) as scratch,
            whole_file(target, durable=True) as file,
            tarfile.open(fileobj=file, mode="w:gz" if target.suffix in (".gz", ".tgz") else "w") as archive,
        ):
            _add_database(archive, home / _DATABASE, "database.db", Path(scratch), told)
            for name in _PLAIN:
                _add_below(archive, home, name, "files", Path(scratch), told)
            for name in _FOLDERS:
                if outputs or name not in ("outputs", "uploads"):
                    _add_below(archive, home, name, "files", Path(scratch), told)
            for name in _KEYS if keys else ():
                _add_below(archive, home, name, "keys", Path(scratch), told)
            _add_manifest(archive, told)
    except sqlite3.Error as error:
        raise UsageError(f"the databases in {home} cannot be copied: {error}") from error
    except OSError as error:
        raise UsageError(f"the backup {target} cannot be written: {error.strerror or error}") from error
    return told


def restore(source: Path, home: Path) -> BackedUp:
    """Put a backup into a home that has no node yet. Blocks.

    The files get their places only after all have been verified.

    Raises:
        UsageError: the home has a node, or the file is none of a backup, or a newer kodo's.
        IntegrityError: it is damaged or cut short.
    """
    make_home(home)
    with hold_home(home):
        there = [name for name in (_DATABASE, *_FOLDERS) if (home / name).exists() and not _is_empty(home / name)]
        if there:
            raise UsageError(f"{home} has a node's {there[0]} already; restore into a new folder: --home DIR")
        kept = [name for name in _KEYS if (home / name).exists()]
        with tempfile.TemporaryDirectory(prefix=".restoring-", dir=home) as scratch:
            told = _extract(source, Path(scratch))
            if told.keys and kept:
                raise UsageError(f"{home} has {kept[0]} already, and the backup has keys; restore into a new folder")
            _place(Path(scratch), home)
    return told


# --- writing ---


def _add_database(archive: tarfile.TarFile, source: Path, name: str, scratch: Path, told: BackedUp) -> None:
    copy = scratch / secrets.token_hex(8)
    copy_database(source, str(copy), lambda connection: None)
    _add_file(archive, copy, name, told)
    copy.unlink()


def _add_below(archive: tarfile.TarFile, home: Path, name: str, place: str, scratch: Path, told: BackedUp) -> None:
    top = home / name
    for path in _files_of(top) if top.is_dir() else [top]:
        member = f"{place}/{path.relative_to(home).as_posix()}"
        try:
            if path.suffix == ".db" and path.is_file():
                _add_database(archive, path, member, scratch, told)
            elif path != top or path.exists():
                _add_file(archive, path, member, told)
        except FileNotFoundError:
            told.gone += 1


def _files_of(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if not name.endswith(_BESIDE) and not path.is_symlink() and path.is_file():
                yield path


def _add_file(archive: tarfile.TarFile, path: Path, name: str, told: BackedUp) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        info = _info(name, size, int(os.fstat(file.fileno()).st_mtime))
        reader = _Hashing(file, size)
        archive.addfile(info, reader)
    told.files, told.bytes = told.files + 1, told.bytes + size
    told.members[name] = {"size": size, "sha256": reader.digest.hexdigest()}


def _add_manifest(archive: tarfile.TarFile, told: BackedUp) -> None:
    manifest = {
        "format": FORMAT,
        "kodo": installed_version(),
        "schema": SCHEMA_VERSION,
        "at": int(time.time() * 1000),
        "peer_id": told.peer_id,
        "keys": told.keys,
        "gone": told.gone,
        "members": told.members,
    }
    data = json.dumps(manifest).encode()
    archive.addfile(_info("manifest.json", len(data), int(time.time())), io.BytesIO(data))


def _info(name: str, size: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o600
    return info


class _Hashing(io.RawIOBase):
    """Reads exactly `size` bytes of a file, one that shrinks filled up with zeros, and hashes them."""

    def __init__(self, file: BinaryIO, size: int):
        self._file = file
        self._left = size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted) or bytes(wanted)
        self._left -= len(data)
        self.digest.update(data)
        return data


def _peer_id(home: Path) -> str | None:
    from kodo.p2p.net.keystore import load_identity

    return str(load_identity(home, "node").peer_id) if (home / "node.key").is_file() else None


# --- reading ---


def _extract(source: Path, scratch: Path) -> BackedUp:
    found: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(source, "r:*") as archive:
            for member in archive:
                if member.name == "manifest.json":
                    manifest = _manifest_of(archive, member, source)
                    continue
                _check_name(member, source)
                found[member.name] = _write_member(archive, member, scratch / member.name)
    except FileNotFoundError:
        raise UsageError(f"there is no file {source}") from None
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"{source} is not a whole backup: {error}") from error
    except OSError as error:
        raise UsageError(f"{source} cannot be restored: {error.strerror or error}") from error
    if manifest is None:
        raise IntegrityError(f"{source} is not a whole backup: it has no manifest")
    if found != manifest.get("members"):
        raise IntegrityError(f"{source} is damaged: it does not hold what its manifest says")
    NODE_FILE.open_writer(scratch / "database.db").close()
    told = BackedUp(len(found), sum(each["size"] for each in found.values()), keys=bool(manifest.get("keys")))
    told.gone, told.peer_id = int(manifest.get("gone", 0)), manifest.get("peer_id")
    return told


def _manifest_of(archive: tarfile.TarFile, member: tarfile.TarInfo, source: Path) -> dict[str, Any]:
    file = archive.extractfile(member) if member.size <= _MAX_MANIFEST else None
    try:
        manifest = json.loads(file.read()) if file is not None else None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise IntegrityError(f"{source} is not a whole backup: its manifest cannot be read")
    if manifest["format"] > FORMAT or int(manifest.get("schema", 0)) > SCHEMA_VERSION:
        raise UsageError(
            f"{source} was made by kodo {manifest.get('kodo')}, which is newer than this one; install that"
        )
    return manifest


def _check_name(member: tarfile.TarInfo, source: Path) -> None:
    parts = member.name.split("/")
    known = {"files": (*_FOLDERS, *_PLAIN), "keys": _KEYS}
    placed = member.name == "database.db" or (len(parts) > 1 and parts[1] in known.get(parts[0], ()))
    if not member.isreg() or not placed or any(part in ("", ".", "..") for part in parts):
        raise IntegrityError(f"{source} is not a backup of a node: it holds {member.name[:128]!r}")


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> dict[str, Any]:
    file, digest = archive.extractfile(member), hashlib.sha256()
    assert file is not None, "it is a regular file"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        while piece := file.read(_PIECE):
            digest.update(piece)
            out.write(piece)
        size = out.tell()
        out.flush()
        os.fsync(out.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _place(scratch: Path, home: Path) -> None:
    for place in ("files", "keys"):
        for path in sorted((scratch / place).iterdir()) if (scratch / place).is_dir() else []:
            target = home / path.name
            if target.is_dir():
                target.rmdir()  # it is empty
            if not target.exists():
                shutil.move(path, target)
    # Last: a home without a database can be restored into again.
    with contextlib.suppress(FileNotFoundError):
        (home / _DATABASE).unlink()
    shutil.move(scratch / "database.db", home / _DATABASE)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
