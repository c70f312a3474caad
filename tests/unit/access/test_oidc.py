"""The provider `oidc`: which tokens are taken, which are not, and what happens while the issuer is away."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwk, jws, jwt

from kodo.access.jose import MAX_TOKEN_BYTES, make_proof_of_key, peer_thumbprint
from kodo.access.oidc import KEYS_LIVE_S, KEYS_PAUSE_S, Issuer, OidcConfig, OidcProvider
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, PeerError, UnreachableError, UsageError
from kodo.protocol.access import Role

ISSUER, AUDIENCE = "https://issuer.example/realm", "https://nodes.example"
DEVICE = Identity.from_seed(b"d" * 32)
PEER = str(DEVICE.peer_id)
THIEF = str(Identity.from_seed(b"t" * 32).peer_id)
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}, private=True)
EC = jwk.ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
OKP = jwk.OKPKey.generate_key("Ed25519", {"kid": "okp"}, private=True)
STRANGE = jwk.RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)


class World:
    """An issuer that can go away, and a node's provider; both in a time that is told."""

    def __init__(self, **more: Any) -> None:
        self.ms = 1_700_000_000_000
        self.seconds = 1000.0
        self.published: list[Any] = [key.as_dict(private=False) for key in (RSA, EC, OKP)]
        self.away = False
        self.fetches = 0
        self.issuer = Issuer(ISSUER, lambda: self.seconds, self.discover, self.get)
        config = OidcConfig(ISSUER, AUDIENCE, "kodo", **more)
        self.provider = OidcProvider("home", config, lambda: self.ms, lambda: self.seconds, issuer=self.issuer)

    async def discover(self, issuer: str) -> Mapping[str, Any]:
        self.fetches += 1
        if self.away:
            raise UnreachableError("away")
        return {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}

    async def get(self, url: str) -> Mapping[str, Any]:
        assert url == f"{ISSUER}/keys"
        return {"keys": self.published}

    def pass_(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.seconds += seconds

    def claims(self, **more: Any) -> dict[str, Any]:
        now = self.ms // 1000
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": now + 3600, "iat": now, "nbf": now, **more}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, key: Any = RSA, alg: str = "RS256", head: Mapping[str, Any] = {}, **more: Any) -> str:
        header = {"alg": alg, "kid": key.kid, **head}
        return signed({name: value for name, value in header.items() if value is not None}, self.claims(**more), key)

    async def refused(self, token: str, peer: str = PEER) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.provider.identify(peer, token)
        return caught.value


def signed(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
    """Sign whatever the header says: an attacker's library does not object."""
    message = f"{part(header)}.{part(claims)}".encode()
    if isinstance(key, bytes):
        signature = hmac.digest(key, message, {"HS256": "sha256", "HS512": "sha512"}[header["alg"]])
    else:
        signature = jws.JWSRegistry.algorithms[header["alg"]].sign(message, key)
    return f"{message.decode()}.{part(signature)}"


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA, "RS256"), (RSA, "PS256"), (RSA, "RS512"), (EC, "ES256"), (OKP, "EdDSA"), (OKP, "Ed25519")],
)
async def test_a_token_of_the_issuer_is_taken(key: Any, alg: str) -> None:
    principal = await World().provider.identify(PEER, World().token(key, alg))
    assert (principal.id, principal.user, principal.peer_id) == ("oidc:ana", "oidc:ana", PEER)
    assert principal.roles == {Role.USER}
    assert principal.enters("any")


@pytest.mark.parametrize(
    "more",
    [
        {"aud": ["elsewhere", AUDIENCE]},
        {"nbf": None, "iat": None},
        {"exp": 1_700_000_000 - 59},
        {"nbf": 1_700_000_000 + 59},
        {"head": {"typ": "at+jwt"}},
        {"head": {"typ": "JWT"}},
    ],
)
async def test_what_is_right_or_nearly_so_is_taken(more: dict[str, Any]) -> None:
    world = World()
    assert (await world.provider.identify(PEER, world.token(**more))).user == "oidc:ana"


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://issuer.example/realm/"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "https://elsewhere.example"},
    "no audience": {"aud": None},
    "audience in a map": {"aud": {AUDIENCE: 1}},
    "part of the audience": {"aud": AUDIENCE + ".evil.example"},
    "expired": {"exp": 1_700_000_000 - 61},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "9999999999"},
    "an end that is true": {"exp": True},
    "an endless end": {"exp": 1e300},
    "not yet": {"nbf": 1_700_000_000 + 61},
    "made in the future": {"iat": 1_700_000_000 + 61},
    "about nobody": {"sub": None},
    "about the empty name": {"sub": ""},
    "about a list": {"sub": ["ana"]},
    "about a long name": {"sub": "x" * 257},
    "about a name with a control character": {"sub": "ana\n"},
    "another purpose": {"head": {"typ": "logout+jwt"}},
    "a proof": {"head": {"typ": "dpop+jwt"}},
    "demands": {"head": {"crit": ["exp"]}},
    "jku": {"head": {"jku": "https://evil.example/keys"}},
    "x5u": {"head": {"x5u": "https://evil.example/cert"}},
    "x5c": {"head": {"x5c": ["AAAA"]}},
    "own key": {"head": {"jwk": RSA.as_dict(private=False)}},
    "a foreign key id": {"head": {"kid": "../../dev/null"}},
    "another's key id": {"head": {"kid": "ec"}},
    "a key id that is no text": {"head": {"kid": 7}},
    "a foreign key under a known id": {"key": STRANGE},
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
async def test_a_token_that_is_not_right_is_refused(name: str) -> None:
    world = World()
    error = await world.refused(world.token(**WRONG_CLAIMS[name]))
    assert (error.code, error.reason) == (401, "bad-token")


def unsigned(world: World, alg: str) -> str:
    return f"{part({'alg': alg, 'kid': 'rsa'})}.{part(world.claims())}."


def confused(world: World, alg: str) -> str:
    """Give a token signed with the public key as if it were a shared secret."""
    return signed({"alg": alg, "kid": "rsa"}, world.claims(), RSA.as_pem(private=False))


def tampered(world: World) -> str:
    head, _, signature = world.token().split(".")
    return f"{head}.{part(world.claims(sub='root'))}.{signature}"


@pytest.mark.parametrize(
    "make",
    [
        lambda world: unsigned(world, "none"),
        lambda world: unsigned(world, "None"),
        lambda world: unsigned(world, "RS256"),
        lambda world: confused(world, "HS256"),
        lambda world: confused(world, "HS512"),
        tampered,
        lambda world: world.token() + "AA",
        lambda world: world.token()[:-3],
        lambda world: world.token() + ".x.y",  # five parts: an encrypted one
        lambda world: "x" * (1 << 20),
        lambda world: world.token(padding="x" * MAX_TOKEN_BYTES),
        lambda world: f"{part(b'[]')}.{part(b'{}')}.AA",
        lambda world: f"{part(b'{' * 5000)}.{part(b'{}')}.AA",
        lambda world: f"{part(b'[' * 9000)}.{part(b'{}')}.AA",
        lambda world: "é.é.é",
        lambda world: "..",
        lambda world: "\x00.\x00.\x00",
        lambda world: "",
    ],
)
async def test_what_is_no_signed_token_is_refused(make: Any) -> None:
    world = World()
    world.published.append({"kty": "oct", "k": part(b"shared"), "kid": "shared"})
    assert (await world.refused(make(world))).code == 401


async def test_a_shared_secret_in_the_key_set_is_no_key() -> None:
    world = World()
    world.published.append({"kty": "oct", "k": part(b"s" * 32), "kid": "shared"})
    assert (await world.refused(signed({"alg": "HS256", "kid": "shared"}, world.claims(), b"s" * 32))).code == 401


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "RSA"},
        {"kty": "what"},
        {},
        7,
        {**RSA.as_dict(private=False), "use": "enc"},
        {**RSA.as_dict(private=False), "alg": "PS256"},
        RSA.as_dict(private=True),
    ],
)
async def test_what_is_no_key_for_signatures_is_passed_over(entry: Any) -> None:
    world = World()
    world.published = [entry, EC.as_dict(private=False)]
    assert (await world.refused(world.token())).code == 401
    world.pass_(KEYS_PAUSE_S)
    assert (await world.provider.identify(PEER, world.token(EC, "ES256"))).user == "oidc:ana"


async def test_a_bound_token_is_taken_from_its_own_key_only() -> None:
    world = World()
    bound = world.token(cnf={"jkt": peer_thumbprint(DEVICE.peer_id.public_key)})
    assert (await world.provider.identify(PEER, bound)).user == "oidc:ana"
    # Also once the token is known here.
    assert (await world.refused(bound, THIEF)).code == 401
    assert (await world.refused(bound, "not a peer id")).code == 401
    for cnf in ({"jkt": "x"}, {}, {"x5t#S256": "x"}, "text", {"jkt": ["x"]}):
        assert (await world.refused(world.token(cnf=cnf))).code == 401


async def test_only_bound_tokens_are_taken_where_that_is_demanded_and_it_is_said() -> None:
    world = World(bound=True)
    assert (await world.refused(world.token())).reason == "bad-token"
    bound = world.token(cnf={"jkt": peer_thumbprint(DEVICE.peer_id.public_key)})
    assert (await world.provider.identify(PEER, bound)).user == "oidc:ana"
    assert world.provider.info()["bound"] is True
    assert "bound" not in World().provider.info()


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    public = base64.urlsafe_b64decode(x + "=")
    assert peer_thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_proof_of_key_is_signed_by_the_devices_key() -> None:
    proof = make_proof_of_key(DEVICE.seed, "Ed25519", {"htm": "POST"}, DEVICE.peer_id.public_key)
    x = base64.urlsafe_b64encode(DEVICE.peer_id.public_key).rstrip(b"=").decode()
    token = jwt.decode(proof, jwk.OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x}), algorithms=["Ed25519"])
    assert (token.header["typ"], token.claims) == ("dpop+jwt", {"htm": "POST"})


async def test_a_session_ends_when_its_token_does() -> None:
    world = World()
    token = world.token()
    await world.provider.identify(PEER, token)
    world.pass_(3600 + 59)
    await world.provider.identify(PEER, token)
    world.pass_(1)
    assert (await world.refused(token)).reason == "bad-token"


async def test_while_the_issuer_is_away_who_is_in_stays_and_nobody_comes() -> None:
    world = World()
    known = world.token()
    await world.provider.identify(PEER, known)
    world.away = True
    world.pass_(KEYS_LIVE_S + 1)
    assert (await world.provider.identify(PEER, known)).user == "oidc:ana"
    error = await world.refused(world.token(sub="bob"))
    assert (error.code, error.reason) == (503, "provider-away")
    assert error.data["retry_after_ms"] == KEYS_PAUSE_S * 1000
    world.pass_(2400)
    await world.provider.identify(PEER, known)
    world.pass_(1200)
    assert (await world.refused(known)).code == 401
    world.away = False
    world.pass_(KEYS_PAUSE_S)
    assert (await world.provider.identify(PEER, world.token(sub="bob"))).user == "oidc:bob"


async def test_a_node_that_starts_while_the_issuer_is_away() -> None:
    world = World()
    world.away = True
    for _ in range(5):
        assert (await world.refused(world.token())).code == 503
    assert world.fetches == 1
    assert (await world.provider.identify("home")).operator


async def test_keys_are_rotated() -> None:
    world = World()
    token = world.token()
    await world.provider.identify(PEER, token)
    new = jwk.ECKey.generate_key("P-256", {"kid": "new"}, private=True)
    world.published = [new.as_dict(private=False)]
    world.pass_(KEYS_PAUSE_S)
    assert (await world.provider.identify(PEER, world.token(new, "ES256"))).user == "oidc:ana"
    assert world.fetches == 2
    # A key that is gone takes its tokens along, those in use too.
    world.pass_(KEYS_PAUSE_S)
    assert (await world.refused(token)).code == 401


async def test_made_up_key_ids_do_not_make_the_node_ask() -> None:
    world = World()
    await world.provider.identify(PEER, world.token())
    for number in range(50):
        world.pass_(0.1)
        assert (await world.refused(world.token(head={"kid": f"made up {number}"}))).code == 401
    assert world.fetches == 1
    world.pass_(KEYS_PAUSE_S)
    for number in range(50):
        assert (await world.refused(world.token(head={"kid": f"made up {number}"}))).code == 401
    assert world.fetches == 2


async def test_a_token_without_key_id_is_held_against_every_key() -> None:
    world = World()
    assert (await world.provider.identify(PEER, world.token(head={"kid": None}))).user == "oidc:ana"
    assert (await world.refused(world.token(STRANGE, head={"kid": None}))).code == 401


@pytest.mark.parametrize(
    ("claim", "said", "roles", "develops"),
    [
        ("roles", {"roles": ["devs", "unknown", 7]}, {"user", "developer"}, ("flows.*",)),
        ("roles", {"roles": "devs ops"}, {"user", "developer", "operator"}, ("flows.*",)),
        ("realm_access.roles", {"realm_access": {"roles": ["ops"]}}, {"user", "operator"}, ()),
        ("https://x.example/roles", {"https://x.example/roles": ["ops"]}, {"user", "operator"}, ()),
        ("roles", {"roles": {"ops": True}}, {"user"}, ()),
        ("roles", {"roles": ["*"]}, {"user"}, ()),
        ("a.b.c", {"a": {"b": 3}}, {"user"}, ()),
        ("roles", {}, {"user"}, ()),
    ],
)
async def test_roles_come_from_the_claim_that_was_named(
    claim: str, said: dict[str, Any], roles: set[str], develops: tuple[str, ...]
) -> None:
    world = World(roles_claim=claim, roles=("*=user", "devs=developer:flows.*", "ops=operator"))
    principal = await world.provider.identify(PEER, world.token(**said))
    assert (principal.roles, principal.develops) == (roles, develops)


async def test_rules_give_grants_and_who_has_none_is_not_let_in() -> None:
    world = World(roles=("readers=node://*,flow://flows.work/0/r",))
    reader = await world.provider.identify(PEER, world.token(roles=["readers"]))
    assert [str(grant) for grant in reader.grants] == ["node://*", "flow://flows.work/0/r"]
    nobody = await world.provider.identify(PEER, world.token())
    assert not nobody.enters("any")


async def test_the_user_of_the_nodes_home_is_operator() -> None:
    world = World()
    assert (await world.provider.identify("home")).operator
    assert (await world.provider.identify("home", world.token())).operator
    assert not (await world.provider.identify(PEER)).enters("any")


@pytest.mark.parametrize(
    ("issuer", "roles"),
    [
        ("http://issuer.example", ()),
        ("https://user:secret@issuer.example", ()),
        ("https://issuer.example?x=1", ()),
        ("ftp://issuer.example", ()),
        ("https://", ()),
        ("", ()),
        ("https://issuer.example", ("not a rule",)),
        ("https://issuer.example", ("x=developer",)),
        ("https://issuer.example", ("x=flow://x",)),
    ],
)
def test_a_config_that_cannot_be_is_refused(issuer: str, roles: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        OidcConfig(issuer, AUDIENCE, "kodo", roles=roles).check()


async def test_an_issuer_that_says_it_is_another_is_not_believed() -> None:
    world = World()

    async def lie(issuer: str) -> Mapping[str, Any]:
        raise PeerError("another")

    world.issuer.discover = lie
    assert (await world.refused(world.token())).code == 503


def test_the_start_line_says_who_is_let_in() -> None:
    assert World().provider.describe() == f"whoever shows a token of {ISSUER} for {AUDIENCE} (auth oidc)"


async def test_what_a_user_could_do_when_it_was_here_last_is_known() -> None:
    world = World()
    assert (await world.provider.recall("oidc:ana")).grants == ()
    here = await world.provider.identify(PEER, world.token())
    assert await world.provider.recall(here.id) == here


async def test_something_is_shared_with_users_of_the_issuer_with_peers_and_with_roles_that_a_claim_may_give() -> None:
    provider = World(roles=("*=user", "staff=market,developer:flows.*")).provider
    assert [name for name in ("oidc:ana", PEER, "ana") if await provider.knows("user", name)] == ["oidc:ana", PEER]
    known = [name for name in ("user", "market", "developer", "operator", "x") if await provider.knows("role", name)]
    assert known == ["user", "market", "developer", "operator"]
