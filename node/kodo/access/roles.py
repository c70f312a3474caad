"""What the roles that kodo knows may do where nothing else was said, and who is operator without a login."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError
from kodo.protocol.access import Grant, Principal, Role

__all__ = ["ROLE_GRANTS", "check_operator", "is_peer_id", "without_login"]

_USE = (Grant("node", "*"), Grant("flow", "*", 2, "x"))
_READ = Grant("registry", "*", mode="r")
_ALL = (*_USE, Grant("registry", "*", mode="w"))

ROLE_GRANTS: Mapping[str, tuple[Grant, ...]] = MappingProxyType(
    {Role.OPERATOR: _ALL, Role.DEVELOPER: (Grant("node", "*"), _READ), Role.USER: (*_USE, _READ)}
)
"""By role. With `local` an operator changes them."""


def without_login(peer_id: str, operator: str) -> Principal:
    """Return who a peer is that has not logged in: the user key of the node's own home is operator, others nobody."""
    if peer_id == operator:
        return Principal(peer_id, peer_id, roles=frozenset({Role.USER, Role.OPERATOR}), grants=_ALL)
    return Principal(peer_id, peer_id, roles=frozenset())


def is_peer_id(text: str) -> bool:
    """Whether this is a peer id as it is shown."""
    try:
        return str(PeerId.parse(text)) == text
    except ValueError:
        return False


def check_operator(principal: Principal) -> None:
    """Refuse everybody but operators.

    Raises:
        CallError: 403 `operator-only`.
    """
    if not principal.operator:
        raise CallError(403, "operator-only", "only an operator may do this, such as the user of the node's own home")
