"""Launches under way, so that a call that was cut and made again starts nothing twice.

A call of a tool has no name of its own. While one is being answered, its launch's idempotency key is kept with a
keyed hash of what was launched. When the call is cut (by its host, or because the bridge dies), the same call made
again within ten minutes gets the same key, and by it the node gives the same run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from kodo.client.filelock import locked
from kodo.p2p.net.keystore import write_private

__all__ = ["Launches"]

CUT_SECONDS = 600.0
MAX_KEPT = 256
MAX_FILE_BYTES = 1 << 20


class Launches:
    """The launches under way of all bridges of one home; a file that they share.

    Args:
        secret: bytes[32] that only this home knows: the file does not tell what was launched.
    """

    def __init__(self, path: Path, secret: bytes):
        self._path = path
        self._secret = secret
        self._owner = f"{os.getpid()}:{psutil.Process().create_time()}:{secrets.token_hex(8)}"
        self._cut: set[str] = set()

    def begin(self, flow: str, inputs: Mapping[str, Any]) -> str:
        """Return the key of a launch: a new one, or that of the same launch when its call was cut."""
        text = json.dumps([flow, inputs], sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        digest = hmac.new(self._secret, text, hashlib.sha256).hexdigest()
        with locked(self._path):
            rows = self._read()
            for row in rows:
                if row["digest"] == digest and (row["key"] in self._cut or not _lives(row["owner"])):
                    self._cut.discard(row["key"])
                    row["owner"] = self._owner
                    self._write(rows)
                    return str(row["key"])
            key = secrets.token_hex(16)
            rows.append({"digest": digest, "key": key, "at": time.time(), "owner": self._owner})
            self._write(rows)
        return key

    def cut(self, key: str) -> None:
        """Note that a call was cut: the same call made again is about the same launch."""
        self._cut.add(key)

    def end(self, key: str) -> None:
        """Note that a call was answered: the same call made again is another launch."""
        self._cut.discard(key)
        with locked(self._path):
            rows = self._read()
            left = [row for row in rows if row["key"] != key]
            if len(left) < len(rows):
                self._write(left)

    def _read(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                rows = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return []
        words = ("digest", "key", "owner")
        return [
            row
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, dict)
            and all(isinstance(row.get(word), str) for word in words)
            and isinstance(row.get("at"), (int, float))
            and 0 <= time.time() - row["at"] <= CUT_SECONDS
        ]

    def _write(self, rows: list[dict[str, Any]]) -> None:
        write_private(self._path, json.dumps(rows[-MAX_KEPT:]).encode())


def _lives(owner: str) -> bool:
    """Return whether the process that wrote a row still runs."""
    pid, _, rest = owner.partition(":")
    try:
        return psutil.Process(int(pid)).create_time() == float(rest.partition(":")[0])
    except (psutil.Error, ValueError):
        return False
