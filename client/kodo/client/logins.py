"""Logins: as whom this user is known to which node or registry, and the tokens that show it.

`logins.json` in the home (mode 0600) has an entry for each place that this user logged in to: a node by its peer id,
a registry by its URL, which TLS holds it to. A token goes to whom it was approved for, and to nobody else, whatever
name another claims. The tokens themselves lie in the system's keyring where there is one and kodo's
extra `keyring` is installed, else in that file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kodo.client.filelock import locked
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import write_private

__all__ = ["Login", "Logins", "Place"]

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 4 << 20
MAX_LOGINS = 1000

_SERVICE = "kodo"

MAX_TEXT = 4096
"""Characters of each text of a login."""

Place = PeerId | str
"""Where one is logged in: a node, or the URL of a registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How this user is logged in to one node or registry.

    Attributes:
        provider: `local` or `oidc`.
        user: whom it takes this user for.
        expires_at: ms UTC of the token's end, None when it is not known.
        secret: the name under which the tokens are kept; places that may share tokens name the same.
        issuer, client_id, audience, scope: of `oidc`: what was approved for this place.
    """

    provider: str
    user: str = ""
    expires_at: int | None = None
    secret: str
    issuer: str = ""
    client_id: str = ""
    audience: str = ""
    scope: str = ""

    @classmethod
    def read(cls, entry: object) -> Login | None:
        """Read what `to_entry` made; None where it is something else. What later releases add is left out."""
        given = {each.name: value for each in fields(cls) if (value := _map(entry).get(each.name)) is not None}
        ends = given.get("expires_at", 0)
        texts = [value for name, value in given.items() if name != "expires_at"]
        if not {"provider", "secret"} <= given.keys() or not isinstance(ends, int):
            return None
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
            return None
        return cls(**given)

    def to_entry(self) -> dict[str, Any]:
        """Return what is kept of it: the fields that are not as they are by default."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

    @property
    def terms(self) -> tuple[str, str, str, str]:
        """What was approved for this place: issuer, client id, audience, scope."""
        return self.issuer, self.client_id, self.audience, self.scope


class Logins:
    """The logins of one home. Safe to use from several processes at once."""

    def __init__(self, path: Path, *, keyring: bool = True):
        self.path = path
        self._wanted = keyring

    def all(self) -> dict[PeerId, Login]:
        """Return every login, by the node's peer id."""
        found: dict[PeerId, Login] = {}
        for peer, entry in _map(self._read().get("nodes")).items():
            with contextlib.suppress(ValueError):
                if (login := Login.read(entry)) is not None:
                    found[PeerId.parse(peer)] = login
        return found

    def get(self, place: Place) -> Login | None:
        """Return the login to this place, if there is one."""
        return Login.read(_map(self._read().get(_section(place))).get(str(place)))

    def like(self, login: Login) -> dict[str, Login]:
        """Return the logins by tokens of the same issuer, client and audience, by place: peer ids and URLs."""
        content, found = self._read(), {}
        for section in _SECTIONS:
            for place, entry in _map(content.get(section)).items():
                other = Login.read(entry)
                if other is not None and other.provider == "oidc" and other.terms[:3] == login.terms[:3]:
                    found[place] = other
        return found

    def put(self, place: Place, login: Login, tokens: Mapping[str, Any]) -> None:
        """Keep a login and its tokens.

        Raises:
            UsageError: there are too many, or the file cannot be written.
        """
        with locked(self.path):
            content = self._read()
            logins = _map(content.get(_section(place)))
            logins[str(place)] = login.to_entry()
            if len(logins) > MAX_LOGINS:
                raise UsageError(f"there are {MAX_LOGINS} logins; end one with koco logout")
            self._write(content | {_section(place): logins, "tokens": self._kept(content, login.secret, tokens)})

    def tokens(self, login: Login) -> dict[str, Any]:
        """Return the tokens of a login; an empty map when there are none."""
        text = self._from_keyring(login.secret)
        if text is None:
            return _map(_map(self._read().get("tokens")).get(login.secret))
        with contextlib.suppress(ValueError):
            return _map(json.loads(text))
        return {}

    def put_tokens(self, login: Login, tokens: Mapping[str, Any]) -> None:
        """Keep new tokens of a login."""
        with locked(self.path):
            content = self._read()
            self._write(content | {"tokens": self._kept(content, login.secret, tokens)})

    def forget(self, place: Place) -> bool:
        """Remove the login to this place, and its tokens when no other login shares them."""
        with locked(self.path):
            content = self._read()
            logins = {section: _map(content.get(section)) for section in _SECTIONS}
            entry = _map(logins[_section(place)].pop(str(place), None))
            if not entry:
                return False
            secret = str(entry.get("secret"))
            tokens = _map(content.get("tokens"))
            if not any(_map(other).get("secret") == secret for kept in logins.values() for other in kept.values()):
                tokens.pop(secret, None)
                self._drop_from_keyring(secret)
            self._write({**{section: kept for section, kept in logins.items() if kept}, "tokens": tokens})
        return True

    # --- the file ---

    def _kept(self, content: Mapping[str, Any], secret: str, tokens: Mapping[str, Any]) -> dict[str, Any]:
        kept = _map(content.get("tokens"))
        kept.pop(secret, None)
        if not self._into_keyring(secret, json.dumps(dict(tokens))):
            kept[secret] = dict(tokens)
        return kept

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    mend = f"chmod 600 {shlex.quote(str(self.path))}"
                    raise UsageError(f"other users can read the logins in {self.path}; do: {mend}")
                raw = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            return _map(json.loads(raw))
        except ValueError:
            raise UsageError(f"{self.path} is damaged; remove it and log in again") from None

    def _write(self, content: Mapping[str, Any]) -> None:
        write_private(self.path, json.dumps(content, indent=1).encode() + b"\n")

    # --- the keyring ---

    def _keyring(self) -> Any:
        """Return the system's keyring, or None where there is none that is safe."""
        if not self._wanted:
            return None
        try:
            # Optional, and slow to import: only who is logged in somewhere pays for it.
            import keyring
            from keyring.backends import fail
        except ImportError:
            return None
        try:
            ring = keyring.get_keyring()
            # A priority below 1 is what keyring gives to backends that it would not recommend.
            return None if isinstance(ring, fail.Keyring) or ring.priority < 1 else ring
        except Exception as error:
            logger.debug("no keyring: %s", error)
            return None

    def _entry(self, secret: str) -> str:
        # Homes do not share their logins.
        return f"{self.path}#{secret}"

    def _from_keyring(self, secret: str) -> str | None:
        try:
            ring = self._keyring()
            text = None if ring is None else ring.get_password(_SERVICE, self._entry(secret))
            return text if isinstance(text, str) else None
        except Exception as error:  # a keyring that is locked, or whose daemon is gone
            logger.debug("the keyring does not answer: %s", error)
            return None

    def _into_keyring(self, secret: str, text: str) -> bool:
        try:
            ring = self._keyring()
            if ring is None:
                return False
            ring.set_password(_SERVICE, self._entry(secret), text)
        except Exception as error:
            logger.debug("the keyring takes nothing: %s", error)
            return False
        return True

    def _drop_from_keyring(self, secret: str) -> None:
        with contextlib.suppress(Exception):
            ring = self._keyring()
            if ring is not None:
                ring.delete_password(_SERVICE, self._entry(secret))


_SECTIONS = ("nodes", "registries")


def _section(place: Place) -> str:
    return _SECTIONS[isinstance(place, str)]


def _map(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
