"""What an operator says of an OpenID Connect issuer, read and checked without what its tokens need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kodo.access import http
from kodo.access.roles import ROLE_GRANTS
from kodo.p2p.errors import UsageError
from kodo.protocol.access import Grant, check_role, parse_grant, split_roles

__all__ = ["OidcConfig", "Rule", "read_rules"]


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """What an operator says of an issuer.

    Attributes:
        issuer: its URL, as its tokens say it.
        audience: what a token's `aud` has to hold; one of this operator's, since every node that takes the same
            audience could show the token to another.
        client_id: with which `koco login` asks for tokens.
        scope: what it asks for.
        roles_claim: the claim with a user's roles; dots lead into maps.
        roles: `VALUE=WHAT,WHAT…`: what a value of that claim gives, roles (`developer:GLOB` too) and grants; `*` is
            everybody whom the issuer knows.
        bound: take only tokens that are bound to their holder's key (DPoP): no other node can use them here.
    """

    issuer: str
    audience: str
    client_id: str
    scope: str = "openid offline_access"
    roles_claim: str = "roles"
    roles: tuple[str, ...] = ("*=user", "operator=operator")
    bound: bool = False

    def check(self) -> OidcConfig:
        """Return it back when it can be used.

        Raises:
            UsageError: saying what is wrong.
        """
        if not (self.issuer and self.audience and self.client_id):
            raise UsageError("the provider oidc needs an issuer (--issuer), an audience and a client id")
        http.check_issuer_url(self.issuer)
        read_rules(self.roles)
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value of the roles claim gives."""

    roles: tuple[str, ...]
    grants: tuple[Grant, ...]


def read_rules(texts: Sequence[str]) -> dict[str, Rule]:
    """Read `VALUE=WHAT,WHAT…`.

    Raises:
        UsageError: naming what is wrong.
    """
    rules: dict[str, Rule] = {}
    for text in texts:
        value, equals, rest = text.partition("=")
        if not value or not equals:
            raise UsageError(f"{text[:80]!r} is not a rule for roles: write VALUE=ROLE_OR_GRANT,…")
        words = [word for word in rest.split(",") if word]
        roles = tuple(check_role(word) for word in words if "://" not in word)
        own = tuple(parse_grant(word) for word in words if "://" in word)
        names, _ = split_roles(roles)
        built_in = tuple(grant for name in sorted(names) for grant in ROLE_GRANTS.get(name, ()))
        rules[value] = Rule(roles, (*built_in, *own))
    return rules
