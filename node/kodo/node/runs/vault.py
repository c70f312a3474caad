"""Secrets of runs that are not over: encrypted, one file a run, erased when it ends.

`secrets/<fid>` (0600): a nonce and ChaCha20-Poly1305 of msgpack `{name: [[path, value], …]}`, the fid being
authenticated with it. `name` is `inputs`, or the id of a candidate. The key is `$KODO_HOME/secrets.key` (0600).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from kodo.p2p.errors import CapacityError, IntegrityError, UsageError
from kodo.p2p.net.files import open_plain, plain_descriptor, whole_file
from kodo.p2p.net.keystore import make_private
from kodo.protocol.ids import is_id
from kodo.protocol.secrets import MAX_SECRET_BYTES, Secrets

__all__ = ["INPUTS", "Vault"]

T = TypeVar("T")

INPUTS = "inputs"
"""The name under which a run's secret inputs are kept."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 64 << 20


class Vault:
    """The folder of secrets; any thread may use it.

    Args:
        root: `$KODO_HOME/secrets`; mode 0700.
        key: the file of the key; made on first use.
    """

    def __init__(self, root: Path, key: Path):
        self.root = root
        self._key_path = key
        self._key = b""
        self._guard = threading.Lock()

    def open(self) -> None:
        """Make the folder and the key, or read it.

        Raises:
            UsageError: the key cannot be read or made, is damaged, or others may read it.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.root, 0o700)
            self._key = self._read_key()
        except OSError as error:
            raise UsageError(f"the key {self._key_path} cannot be read or made: {error.strerror}") from error

    def digest(self, value: Any) -> bytes:
        """Return a digest (`bytes[32]`) of something that may hold secrets: it says nothing to who lacks the key."""
        return hmac.digest(self._key, b"digest:" + bytes(msgpack.packb(value)), "sha256")

    async def put(self, fid: str, name: str, found: Secrets) -> None:
        """Keep secrets; when this returns they are on the disk.

        Raises:
            CapacityError: they are too large together, or the disk takes nothing.
        """
        if len(msgpack.packb(found)) > MAX_SECRET_BYTES:
            raise CapacityError(f"secrets may have at most {MAX_SECRET_BYTES} bytes in all")
        await self._do(lambda: self._store(fid, {**self._load(fid), name: found}))

    async def get(self, fid: str, name: str) -> Secrets:
        """Return what `put` kept; nothing when there was nothing.

        Raises:
            IntegrityError: the file is damaged, or another key encrypted it.
        """
        found: Secrets = await self._do(lambda: self._load(fid).get(name, []))
        return found

    async def drop(self, fid: str, name: str) -> None:
        """Erase one of a run's secrets, the others stay."""

        def drop() -> None:
            kept = self._load(fid)
            if kept.pop(name, None) is not None:
                self._store(fid, kept) if kept else self._erase(fid)

        await self._do(drop)

    def has(self, fid: str) -> bool:
        """Return whether there are secrets of a run."""
        return (self.root / fid).exists()

    async def erase(self, fid: str) -> None:
        """Erase all secrets of a run; there may be none."""
        await self._do(lambda: self._erase(fid))

    async def keep(self, live: Collection[str]) -> None:
        """Erase the secrets of all runs but these."""

        def sweep() -> None:
            for path in list(self.root.iterdir()):
                if path.name not in live:
                    self._erase(path.name)

        await self._do(sweep)

    # --- inside ---

    def _read_key(self) -> bytes:
        path = self._key_path
        data = make_private(path, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
        try:
            key = bytes.fromhex(data.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise UsageError(
                f"{path} is not a key (64 hexadecimal digits); restore it from a backup, or remove it and lose the "
                "secrets of unfinished runs"
            )
        return key

    async def _do(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with self._guard:
                return work()

        try:
            return await asyncio.shield(asyncio.to_thread(guarded))
        except OSError as error:
            raise CapacityError(f"a secret could not be stored or read: {error.strerror}; free disk space") from error

    def _load(self, fid: str) -> dict[str, Secrets]:
        try:
            with open_plain(self._path(fid)) as file:
                sealed = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError:
            return {}
        try:
            data = ChaCha20Poly1305(self._key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], fid.encode())
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("the secrets of this run cannot be decrypted: start it again") from error
        kept: dict[str, Secrets] = msgpack.unpackb(data)
        return kept

    def _store(self, fid: str, kept: dict[str, Secrets]) -> None:
        path, nonce = self._path(fid), os.urandom(_NONCE_BYTES)
        sealed = nonce + ChaCha20Poly1305(self._key).encrypt(nonce, bytes(msgpack.packb(kept)), fid.encode())
        with whole_file(path, durable=True) as file:
            file.write(sealed)

    def _erase(self, name: str) -> None:
        path = self.root / name
        with contextlib.suppress(FileNotFoundError):
            size = path.stat(follow_symlinks=False).st_size
            with contextlib.suppress(OSError), open(plain_descriptor(path, os.O_RDWR), "r+b") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()

    def _path(self, fid: str) -> Path:
        if not is_id(fid):
            raise UsageError("that is not the id of a run")
        return self.root / fid
