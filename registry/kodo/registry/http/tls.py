"""The registry's certificate: read at the start, and again when its files have changed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from kodo.p2p.errors import UsageError

__all__ = ["Certificate", "certificate_of"]

LOOK_S = 30.0
"""Seconds between two looks at the files."""

logger = logging.getLogger(__name__)


def certificate_of(cert: Path | None, key: Path | None) -> Certificate | None:
    """Return the certificate of two PEM files; None where none is named.

    Raises:
        UsageError: one of the two is missing, or they cannot be used.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("a TLS certificate and its key go together: --tls-cert and --tls-key")
    return Certificate(cert, key)


class Certificate:
    """A chain and its key.

    Attributes:
        context: what connections are made with, from TLS 1.2 on.

    Raises:
        UsageError: the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._read_state = self._state()
        self._told = ""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(self.context)

    async def watch(self) -> None:
        """Look at the files from time to time; runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> bool:
        """Take what was put in the place of the files, for connections from now on; say whether something was.

        What cannot be used is told in the log, once, and what was in use stays. It is tried again at the next look:
        not everything that was wrong with it, as rights on a folder, changes the files when it is mended.
        """
        state = self._state()
        if state == self._read_state:
            return False
        try:
            # Tried elsewhere first: files that are being replaced may not fit together yet.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except UsageError as error:
            if str(error) != self._told:
                logger.warning("%s; the certificate before it stays in use", error)
                self._told = str(error)
            return False
        self._read_state, self._told = state, ""
        logger.info("the TLS certificate %s was read again", self._cert)
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"the TLS certificate {self._cert} and key {self._key} cannot be used: {error}"
            ) from error

    def _state(self) -> tuple[object, ...]:
        """Return what tells the files from what they were."""
        found: list[object] = []
        for path in (self._cert, self._key):
            try:
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)


def _no_passphrase() -> str:
    # Without this OpenSSL asks on the terminal, and waits for ever where there is none.
    raise UsageError("the TLS key has a passphrase; give one without, readable by the registry alone")
