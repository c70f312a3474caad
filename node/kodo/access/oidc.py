"""The provider `oidc`: users of an OpenID Connect issuer, who show its signed tokens.

Issuer, audience and client id are enough; the rest is discovered. Keys are fetched when they are needed, again when a
token names one that is not known (rarely: who makes up key ids must not make us ask), and from time to time. While
the issuer is away, tokens that were taken already are good until they end, and new ones are refused with 503.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kodo.access import http
from kodo.access.jose import (
    BadTokenError,
    Header,
    Key,
    check_claims,
    peer_thumbprint,
    read_header,
    read_keys,
    read_signed,
)
from kodo.access.oidc_config import OidcConfig, Rule, read_rules
from kodo.access.roles import ROLE_GRANTS, is_peer_id, without_login
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.access import Principal, Role, split_roles

__all__ = ["Issuer", "OidcConfig", "OidcProvider"]

logger = logging.getLogger(__name__)

SKEW_S = 60.0
"""How far clocks may be apart."""
KEYS_LIVE_S = 600.0
"""How long fetched keys are believed without asking again."""
KEYS_PAUSE_S = 30.0
"""How long there is between two fetches for keys that are not known, or that failed."""

_MAX_TAKEN = 8192
_MAX_CLAIM = 256


@dataclass(slots=True)
class Issuer:
    """The keys of one issuer, fetched when needed.

    Attributes:
        url: the issuer.
        now: seconds; any clock that does not go back.
        get: `discover` and `get_json`.
    """

    url: str
    now: Callable[[], float]
    discover: Callable[[str], Awaitable[Mapping[str, Any]]] = http.discover
    get: Callable[[str], Awaitable[Mapping[str, Any]]] = http.get_json
    _keys: dict[str | None, list[Key]] | None = None
    _fetched: float = 0.0
    _tried: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keys(self, *, known: bool) -> Mapping[str | None, list[Key]]:
        """Return the keys.

        Args:
            known: old ones will do when the issuer is away: they are for a token that was taken before.

        Raises:
            CallError: 503 `provider-away`.
        """
        if self._keys is None or self.now() - self._fetched > KEYS_LIVE_S:
            await self._fetch()
        old = self.now() - self._fetched > KEYS_LIVE_S
        if self._keys is None or (old and not known):
            raise CallError(
                503, "provider-away", "your token cannot be checked now: its issuer does not answer",
                {"retry_after_ms": int(KEYS_PAUSE_S * 1000)},
            )  # fmt: skip
        return self._keys

    async def more_keys(self) -> bool:
        """Fetch again, if that was not done just now; say whether it was done."""
        before = self._fetched
        await self._fetch()
        return self._fetched > before

    async def _fetch(self) -> None:
        asked = self.now()
        async with self._lock:
            if self._tried is not None and (self._tried >= asked or self.now() - self._tried < KEYS_PAUSE_S):
                return
            self._tried = self.now()
            try:
                said = await self.discover(self.url)
                place = said.get("jwks_uri")
                if not isinstance(place, str):
                    raise UsageError(f"{self.url} does not publish the address of its keys (jwks_uri)")
                keys = read_keys(await self.get(place))
            except (KodoError, TimeoutError) as error:
                logger.warning("the keys of %s cannot be fetched: %s", self.url, error)
                return
            self._keys, self._fetched = keys, self.now()


@dataclass(slots=True)
class _Taken:
    """A token that was taken: what it says, and when it was last held against the keys."""

    header: Header
    claims: dict[str, Any]
    expires: float
    looked: float


class OidcProvider:
    """Knows whoever an issuer knows. The user key of the node's own home is operator, logged in or not.

    Args:
        operator: the peer id of that user key.
        now: ms UTC, for the times in tokens.
        clock: seconds, any clock that does not go back.
        cache_s: how long a signature is believed without a look at the keys.
    """

    name = "oidc"

    def __init__(
        self,
        operator: str,
        config: OidcConfig,
        now: Callable[[], int],
        clock: Callable[[], float],
        *,
        cache_s: float = 30.0,
        issuer: Issuer | None = None,
    ):
        self.operator = operator
        self.config = config.check()
        self.issuer = issuer or Issuer(config.issuer, clock)
        self._rules = read_rules(config.roles)
        self._now = now
        self._clock = clock
        self._cache_s = cache_s
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self._taken: OrderedDict[bytes, _Taken] = OrderedDict()

    def admits(self, address: str | None) -> bool:
        """Everybody may knock; without a token nothing is answered but where to get one."""
        return True

    def info(self) -> dict[str, Any]:
        """Return the answer of `auth.info`."""
        return {
            "provider": self.name,
            "login": [self.name],
            "issuer": self.config.issuer,
            "audience": self.config.audience,
            "client_id": self.config.client_id,
            "scope": self.config.scope,
            **({"bound": True} if self.config.bound else {}),
            "message": f"log in at {self.config.issuer}: koco login",
        }

    async def identify(self, peer_id: str, token: str | None = None) -> Principal:
        """Return who the holder of `peer_id` is.

        Raises:
            CallError: 401 `bad-token`; 503 `provider-away`.
        """
        if token is None:
            return without_login(peer_id, self.operator)
        try:
            claims = await self._take(token)
            self._check_bound(claims, peer_id)
        except BadTokenError as error:
            raise CallError(401, "bad-token", f"this token is not accepted: {error}") from None
        principal = self._principal(claims, peer_id)
        self._known[principal.id] = principal
        self._known.move_to_end(principal.id)
        if len(self._known) > _MAX_TAKEN:
            self._known.popitem(last=False)
        return principal

    async def recall(self, principal: str) -> Principal:
        """Return what a user could do when last here; one that was not since the node's start has no grants."""
        return self._known.get(principal) or without_login(principal, self.operator)

    async def present(self, principal: str) -> Principal | None:
        """Return what a user could do when it was here last; None: it was not since the node's start."""
        if principal.startswith("oidc:"):
            return self._known.get(principal)
        return without_login(principal, self.operator)

    async def knows(self, kind: Literal["user", "role"], name: str) -> bool:
        """Return whether it could be a user of the issuer, a device, or a role that some claim gives."""
        if kind == "user":
            return name.startswith("oidc:") or is_peer_id(name)
        return (
            name == Role.OPERATOR
            or name in split_roles(role for rule in self._rules.values() for role in rule.roles)[0]
        )

    async def logout(self, token: str) -> None:
        """The token is the issuer's; it is forgotten here."""
        self._taken.pop(hashlib.sha256(token.encode()).digest(), None)

    def describe(self) -> str:
        """Return the line for the operator at start."""
        return f"whoever shows a token of {self.config.issuer} for {self.config.audience} (auth oidc)"

    async def _take(self, token: str) -> dict[str, Any]:
        name = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        taken = self._taken.get(name)
        if taken is None:
            header = read_header(token)
            claims = await self._verified(token, header, known=False)
            expires = self._judge(claims)
            taken = self._taken[name] = _Taken(header, claims, expires, self._clock())
            if len(self._taken) > _MAX_TAKEN:
                self._taken.popitem(last=False)
            return claims
        self._taken.move_to_end(name)
        try:
            if taken.expires <= self._now() / 1000 - SKEW_S:
                raise BadTokenError("it has ended")
            if self._clock() - taken.looked >= self._cache_s:
                await self._verified(token, taken.header, known=True)
                taken.looked = self._clock()
        except BadTokenError:
            self._taken.pop(name, None)
            raise
        return taken.claims

    async def _verified(self, token: str, header: Header, *, known: bool) -> dict[str, Any]:
        claims = read_signed(token, header, await self.issuer.keys(known=known))
        if claims is None and await self.issuer.more_keys():
            claims = read_signed(token, header, await self.issuer.keys(known=known))
        if claims is None:
            raise BadTokenError("its key is not one of its issuer's")
        return claims

    def _judge(self, claims: Mapping[str, Any]) -> float:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_CLAIM or not subject.isprintable():
            raise BadTokenError("it names no user")
        return check_claims(
            claims,
            issuer=self.config.issuer,
            audience=self.config.audience,
            now=self._now() / 1000,
            skew=SKEW_S,
        )

    def _check_bound(self, claims: Mapping[str, Any], peer_id: str) -> None:
        """Accept a token that is bound to the key that the session proved (RFC 7800, 9449), or maybe to none."""
        if "cnf" not in claims:
            if self.config.bound:
                raise BadTokenError("it is not bound to a key, and only bound tokens (DPoP) are accepted here")
            return
        bound = claims["cnf"]
        try:
            own = peer_thumbprint(PeerId.parse(peer_id).public_key)
        except ValueError:
            own = None
        if own is None or not isinstance(bound, Mapping) or bound.keys() != {"jkt"} or bound["jkt"] != own:
            raise BadTokenError("it is bound to another key")

    def _principal(self, claims: Mapping[str, Any], peer_id: str) -> Principal:
        user = f"oidc:{claims['sub']}"
        rules = [self._rules[value] for value in ("*", *self._values(claims)) if value in self._rules]
        roles, develops = split_roles(role for rule in rules for role in rule.roles)
        if peer_id == self.operator:
            roles, rules = roles | {Role.OPERATOR}, [*rules, Rule((), ROLE_GRANTS[Role.OPERATOR])]
        grants = tuple(dict.fromkeys(grant for rule in rules for grant in rule.grants))
        return Principal(user, peer_id, user, roles=roles, grants=grants, develops=develops)

    def _values(self, claims: Mapping[str, Any]) -> list[str]:
        name = self.config.roles_claim
        found: Any = claims.get(name)
        if found is None:
            found = claims
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        return [word for word in words[:_MAX_CLAIM] if isinstance(word, str) and word != "*"]
