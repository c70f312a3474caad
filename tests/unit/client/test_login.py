"""Tokens of an issuer: which place gets which, and what is asked before."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kodo.access import http
from kodo.access.jose import peer_thumbprint
from kodo.client import device_flow
from kodo.client.login import Approval, LoginKeeper
from kodo.client.logins import Logins, Place
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import UsageError

ME = Identity.from_seed(b"m" * 32)
GOOD, EVIL = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
ISSUER = "https://issuer.example"
TERMS = {"issuer": ISSUER, "client_id": "kodo", "audience": "https://nodes.example", "scope": "openid"}


class Node:
    """A node that asks for tokens on these terms, and keeps those that it is shown."""

    def __init__(self, peer_id: PeerId, **terms: Any):
        self.place: Place = peer_id
        self.peer_id = str(peer_id)
        self.terms = {**TERMS, **terms}
        self.shown: list[str] = []

    async def ask(self, op: str, args: Mapping[str, Any] | None = None) -> Any:
        if op == "auth.info":
            return {"provider": "oidc", "login": ["oidc"], **self.terms}
        self.shown.append((args or {})["token"])
        return {"user": "oidc:ana"}

    def holds_until(self, until: int) -> None:
        pass


class FakeIssuer:
    """An issuer that gives a new token each time, bound to the user's key where it can."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.binds = True

    async def discover(self, url: str) -> dict[str, Any]:
        algs = {"dpop_signing_alg_values_supported": ["ES256", "EdDSA"]} if self.binds else {}
        return {"issuer": url, "token_endpoint": "/t", "device_authorization_endpoint": "/d", **algs}

    async def post_form(self, place: str, form: Mapping[str, str], headers: Any = None) -> http.Answer:
        if place == "/d":
            return http.Answer(200, {"device_code": "d", "user_code": "u", "verification_uri": "v", "interval": 1})
        claims: dict[str, Any] = {"aud": form["audience"], "jti": len(self.given)}
        if self.binds:
            claims["cnf"] = {"jkt": peer_thumbprint(ME.peer_id.public_key)}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        self.given.append(f"h.{body}.s")
        return http.Answer(200, {"access_token": self.given[-1], "refresh_token": "r", "expires_in": 3600})


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> FakeIssuer:
    made = FakeIssuer()
    monkeypatch.setattr(http, "discover", made.discover)
    monkeypatch.setattr(http, "post_form", made.post_form)
    monkeypatch.setattr(device_flow, "_MIN_PAUSE_S", 0)
    return made


@pytest.fixture
def logins(tmp_path: Path) -> Logins:
    return Logins(tmp_path / "logins.json", keyring=False)


def nothing(prompt: device_flow.Prompt) -> None:
    """Show nothing: the user approved at once."""


def asked(questions: list[Approval], *, agree: bool = True) -> Any:
    def approve(approval: Approval) -> bool:
        questions.append(approval)
        return agree

    return approve


async def test_a_user_approves_issuer_audience_client_and_scope_and_they_are_kept(
    issuer: FakeIssuer, logins: Logins
) -> None:
    questions: list[Approval] = []
    await LoginKeeper(logins, ME).issuer(Node(GOOD), None, nothing, asked(questions))
    assert questions == [Approval(str(GOOD), ISSUER, "kodo", "https://nodes.example", "openid", None, ())]
    kept = logins.get(GOOD)
    assert kept is not None
    assert kept.terms == (ISSUER, "kodo", "https://nodes.example", "openid")


async def test_a_kept_token_is_not_given_to_another_node_that_names_the_same_terms(
    issuer: FakeIssuer, logins: Logins
) -> None:
    keeper, good, evil = LoginKeeper(logins, ME), Node(GOOD), Node(EVIL)
    await keeper.issuer(good, ISSUER, nothing)
    await keeper.issuer(evil, ISSUER, nothing)
    assert len(issuer.given) == 2
    assert set(good.shown).isdisjoint(evil.shown)


async def test_whether_another_node_gets_a_kept_token_is_asked_naming_the_nodes_that_take_it(
    issuer: FakeIssuer, logins: Logins
) -> None:
    keeper, good, other = LoginKeeper(logins, ME), Node(GOOD), Node(EVIL)
    await keeper.issuer(good, ISSUER, nothing)
    questions: list[Approval] = []
    with pytest.raises(UsageError, match="not approved"):
        await keeper.issuer(other, ISSUER, nothing, asked(questions, agree=False))
    assert other.shown == []
    await keeper.issuer(other, ISSUER, nothing, asked(questions))
    assert [(each.place, each.others) for each in questions] == [(str(EVIL), (str(GOOD),))] * 2
    assert other.shown == good.shown
    assert len(issuer.given) == 1


async def test_a_node_is_not_asked_about_again_while_its_terms_stay(issuer: FakeIssuer, logins: Logins) -> None:
    keeper, good = LoginKeeper(logins, ME), Node(GOOD)
    for _ in range(2):
        await keeper.issuer(good, ISSUER, nothing, asked([], agree=False))
    assert good.shown == issuer.given * 2


@pytest.mark.parametrize("term", ["audience", "client_id", "scope"])
async def test_terms_that_changed_are_approved_anew(issuer: FakeIssuer, logins: Logins, term: str) -> None:
    keeper = LoginKeeper(logins, ME)
    await keeper.issuer(Node(GOOD), ISSUER, nothing)
    moved, questions = Node(GOOD, **{term: "another"}), []
    with pytest.raises(UsageError, match=f"other tokens than you approved: {term} another, not [^;]+\\. If"):
        await keeper.issuer(moved, ISSUER, nothing)
    assert moved.shown == []
    await keeper.issuer(moved, ISSUER, nothing, asked(questions))
    assert questions[0].before is not None
    assert questions[0].before.terms == tuple(TERMS[name] for name in ("issuer", "client_id", "audience", "scope"))
    assert moved.shown == issuer.given[1:]


async def test_an_issuer_that_cannot_bind_gets_nobody_in_who_demands_it(issuer: FakeIssuer, logins: Logins) -> None:
    issuer.binds = False
    node = Node(GOOD)
    with pytest.raises(UsageError, match="bind"):
        await LoginKeeper(logins, ME, bound=True).issuer(node, ISSUER, nothing)
    assert node.shown == issuer.given == []


async def test_a_node_that_demands_bound_tokens_is_shown_no_other(issuer: FakeIssuer, logins: Logins) -> None:
    issuer.binds = False
    keeper = LoginKeeper(logins, ME)
    await keeper.issuer(Node(GOOD), ISSUER, nothing)
    with pytest.raises(UsageError, match="bind"):
        await keeper.issuer(Node(GOOD, bound=True), ISSUER, nothing)
    issuer.binds = True
    node = Node(GOOD, bound=True)
    await keeper.issuer(node, ISSUER, nothing)
    assert device_flow.is_bound(node.shown[0], ME)


async def test_a_kept_token_that_is_not_bound_is_not_shown_where_that_is_demanded(
    issuer: FakeIssuer, logins: Logins
) -> None:
    issuer.binds = False
    await LoginKeeper(logins, ME).issuer(Node(GOOD), ISSUER, nothing)
    login = logins.get(GOOD)
    assert login is not None
    assert await LoginKeeper(logins, ME)._current(login, None) is not None
    assert await LoginKeeper(logins, ME, bound=True)._current(login, None) is None


@pytest.mark.parametrize("token", ["", "a.b.c", "a.e30.c", "a.eyJjbmYiOnt9fQ.c", "a.eyJjbmYiOnsiamt0IjoieCJ9fQ.c"])
def test_a_token_of_another_key_or_none_is_not_bound(token: str) -> None:
    assert not device_flow.is_bound(token, ME)
