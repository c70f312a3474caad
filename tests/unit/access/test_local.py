"""The provider `local`: who logs in how, what ends a login, and what is of no use to whom."""

from __future__ import annotations

import pytest

from kodo.access.accounts import MAX_GRANTS_HELD, MAX_ROLES_HELD
from kodo.access.devices import CODE_MS, DEVICE_MS, MAX_TOKENS, PASSWORD_MS
from kodo.access.rows import Holder
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.access import parse_grant
from kodo.protocol.enrol import make_proof
from tests.unit.access.conftest import Local

PASSWORD = "correct horse battery"


async def refused(call: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def enrolled(local: Local, user: str = "ana", peer: str = "laptop") -> str:
    code = await local.provider.devices.make_code(user, peer)
    found, token = await local.provider.enrol(peer, make_proof(code.code, "node", peer))
    assert found == user
    return token.token


async def test_a_peer_without_login_may_do_nothing(local: Local) -> None:
    stranger = await local.provider.identify("somebody")
    assert (stranger.id, stranger.user, stranger.roles, stranger.grants) == ("somebody", None, frozenset(), ())
    assert not stranger.enters("node")


async def test_the_user_of_the_nodes_home_is_operator_logged_in_or_not(local: Local) -> None:
    assert (await local.provider.identify("home")).operator
    await local.provider.add_user("ana", (), None)
    principal = await local.provider.identify("home", await enrolled(local, peer="home"))
    assert (principal.id, principal.operator) == ("ana", True)


async def test_a_user_has_its_own_grants_and_those_of_its_roles(local: Local) -> None:
    await local.provider.add_user("ana", ("user", "developer:flows.market.*"), None)
    await local.provider.accounts.add_grant(Holder("user", "ana"), parse_grant("flow://x.*/1/r"))
    principal = await local.provider.identify("laptop", await enrolled(local))
    assert (principal.id, principal.user, principal.peer_id) == ("ana", "ana", "laptop")
    assert principal.roles == {"user", "developer"}
    assert principal.develops == ("flows.market.*",)
    assert {str(grant) for grant in principal.grants} == {
        "node://*",
        "flow://*/2/x",
        "registry://*/r",
        "flow://x.*/1/r",
    }


async def test_a_change_is_seen_at_once(local: Local) -> None:
    accounts = local.provider.accounts
    await local.provider.add_user("ana", ("user",), None)
    token = await enrolled(local)
    assert (await local.provider.identify("laptop", token)).enters("any")
    await accounts.unassign("ana", "user")
    assert not (await local.provider.identify("laptop", token)).enters("any")
    await accounts.add_role("guests")
    await accounts.add_grant(Holder("role", "guests"), parse_grant("node://any"))
    await accounts.assign("ana", "guests")
    assert (await local.provider.identify("laptop", token)).enters("any")
    await accounts.remove_role("guests")
    assert not (await local.provider.identify("laptop", token)).enters("any")
    await accounts.remove_user("ana")
    assert (await refused(local.provider.identify("laptop", token))).reason == "bad-token"


async def test_passwords(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    user, token = await local.provider.password("laptop", "ana", PASSWORD)
    assert (await local.provider.identify("laptop", token.token)).user == user == "ana"
    stored = repr(local.rows("access_users") + local.rows("access_tokens"))
    assert "$argon2id$" in stored
    assert PASSWORD not in stored
    assert token.token not in stored


async def test_who_guesses_learns_nothing_of_names(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    await local.provider.add_user("keyonly", ("user",), None)
    answers = set()
    for name, guess in [("ana", "wrong password"), ("keyonly", "nobody's"), ("nobody", "nobody's")]:
        local.hasher.checks = 0
        error = await refused(local.provider.password(f"peer of {name}", name, guess))
        answers.add((error.code, error.reason, error.message, repr(error.data), local.hasher.checks))
    assert len(answers) == 1
    assert answers.pop()[:2] == (401, "bad-login")


async def test_guessing_is_slowed_by_peer_and_by_name(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    for name in ("ana", "nobody"):
        reasons = [(await refused(local.provider.password(f"one/{name}", name, "x"))).reason for _ in range(6)]
        assert reasons == ["bad-login"] * 5 + ["slow-down"]
        reasons = [(await refused(local.provider.password(f"{n}/{name}", name, "x"))).reason for n in range(6)]
        assert reasons == ["bad-login"] * 5 + ["slow-down"]
    local.hasher.checks = 0
    error = await refused(local.provider.password("fresh", "ana", PASSWORD))
    assert (error.code, local.hasher.checks) == (429, 0)
    local.ms += error.data["retry_after_ms"]
    assert (await local.provider.password("fresh", "ana", PASSWORD))[0] == "ana"


async def test_who_guesses_all_the_time_does_not_keep_the_user_out(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    await enrolled(local)
    for number in range(10):
        await refused(local.provider.password(f"evil{number}", "ana", "x"))
    slowed = await refused(local.provider.password("evil", "ana", "x"))
    assert (slowed.reason, slowed.message) == (
        "slow-down",
        f"too many tries; wait {slowed.data['retry_after_ms'] // 1000} s",
    )
    assert (await local.provider.password("laptop", "ana", PASSWORD))[0] == "ana"


async def test_there_are_bounds(local: Local) -> None:
    accounts = local.provider.accounts
    await local.provider.add_user("ana", ("user",), None)
    for number in range(MAX_ROLES_HELD - 1):
        await accounts.assign("ana", f"developer:flows.{number}")
    assert (await refused(accounts.assign("ana", "operator"))).reason == "full"
    await accounts.assign("ana", "user")
    for number in range(MAX_GRANTS_HELD):
        await accounts.add_grant(Holder("user", "ana"), parse_grant(f"node://n{number}"))
    assert (await refused(accounts.add_grant(Holder("user", "ana"), parse_grant("node://x")))).reason == "full"
    await accounts.add_grant(Holder("user", "ana"), parse_grant("node://n1"))
    with pytest.raises(UsageError):
        parse_grant("node://" + "x" * 250)


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
async def test_a_password_has_a_length(local: Local, password: str) -> None:
    with pytest.raises(UsageError):
        await local.provider.add_user("ana", ("user",), password)
    assert local.rows("access_users") == []


async def test_a_new_password_ends_every_login(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    token = await enrolled(local)
    assert (await refused(local.provider.change_password("laptop", "ana", "wrong one", "the new one"))).code == 401
    await local.provider.identify("laptop", token)
    await local.provider.change_password("laptop", "ana", PASSWORD, "the new one")
    assert (await refused(local.provider.identify("laptop", token))).code == 401
    assert (await local.provider.password("laptop", "ana", "the new one"))[0] == "ana"


async def test_an_overheard_code_or_proof_is_worthless(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    code = (await local.provider.devices.make_code("ana", "laptop")).code
    overheard = make_proof(code, "node", "laptop")
    for attempt in (overheard, make_proof(code, "node", "thief")):
        assert (await refused(local.provider.enrol("thief", attempt))).reason == "bad-code"
    # What another node was told in place of this one is of no use here either.
    assert (await refused(local.provider.enrol("laptop", make_proof(code, "elsewhere", "laptop")))).code == 401
    assert code not in repr(local.rows("access_codes"))
    assert (await local.provider.enrol("laptop", overheard))[0] == "ana"


async def test_a_code_is_good_once(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    code = (await local.provider.devices.make_code("ana", "laptop")).code
    await local.provider.enrol("laptop", make_proof(code, "node", "laptop"))
    assert (await refused(local.provider.enrol("laptop", make_proof(code, "node", "laptop")))).reason == "bad-code"


async def test_a_code_allows_five_tries(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    code = (await local.provider.devices.make_code("ana", "laptop")).code
    for _ in range(5):
        assert (await refused(local.provider.enrol("laptop", b"\x00" * 32))).reason == "bad-code"
    local.ms += 60_000
    assert (await refused(local.provider.enrol("laptop", make_proof(code, "node", "laptop")))).reason == "bad-code"


async def test_a_code_is_good_for_ten_minutes(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    code = await local.provider.devices.make_code("ana", "laptop")
    assert code.expires_at == local.ms + CODE_MS == local.ms + 600_000
    local.ms += CODE_MS
    assert (await refused(local.provider.enrol("laptop", make_proof(code.code, "node", "laptop")))).code == 401


async def test_a_new_code_voids_the_one_before(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    first = await local.provider.devices.make_code("ana", "laptop")
    second = await local.provider.devices.make_code("ana", "laptop")
    assert (await refused(local.provider.enrol("laptop", make_proof(first.code, "node", "laptop")))).code == 401
    assert (await local.provider.enrol("laptop", make_proof(second.code, "node", "laptop")))[0] == "ana"


async def test_a_token_is_bound_to_its_device_and_node(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    token = await enrolled(local)
    for provider, peer in ((local.provider, "thief"), (local.at("another node"), "laptop")):
        assert (await refused(provider.identify(peer, token))).reason == "bad-token"
    assert (await local.provider.identify("laptop", token)).user == "ana"


@pytest.mark.parametrize("way", ["logout", "user.logout", "one device", "time"])
async def test_what_ends_a_login(local: Local, way: str) -> None:
    await local.provider.add_user("ana", ("user",), None)
    token, other = await enrolled(local), await enrolled(local, peer="phone")
    await local.provider.identify("laptop", token)
    match way:
        case "logout":
            await local.provider.logout(token)
        case "user.logout":
            assert await local.provider.devices.forget_devices("ana", None) == 2
        case "one device":
            assert await local.provider.devices.forget_devices("ana", "laptop") == 1
        case "time":
            local.ms += DEVICE_MS
    assert (await refused(local.provider.identify("laptop", token))).reason == "bad-token"
    if way in ("logout", "one device"):
        await local.provider.identify("phone", other)


async def test_a_login_by_password_is_shorter_than_a_device(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    _, token = await local.provider.password("laptop", "ana", PASSWORD)
    local.ms += PASSWORD_MS - 1
    assert (await local.provider.identify("laptop", token.token)).user == "ana"
    local.ms += 1
    assert (await refused(local.provider.identify("laptop", token.token))).code == 401


async def test_a_user_has_so_many_devices_and_no_more(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    tokens = []
    for number in range(MAX_TOKENS + 2):
        local.ms += 60_000
        tokens.append(await enrolled(local, peer=f"peer{number}"))
    assert len(local.rows("access_tokens")) == MAX_TOKENS
    assert (await refused(local.provider.identify("peer1", tokens[1]))).code == 401
    assert (await local.provider.identify("peer2", tokens[2])).user == "ana"


async def test_what_cannot_be_is_refused_and_changes_nothing(local: Local) -> None:
    provider, accounts = local.provider, local.provider.accounts
    await provider.add_user("ana", ("user",), None)
    before = local.rows("access_users"), local.rows("access_user_roles"), local.rows("access_roles")
    for call, reason in [
        (provider.add_user("ana", (), None), "user-exists"),
        (provider.add_user("bob", ("user", "none"), None), "no-such-role"),
        (accounts.assign("nobody", "user"), "no-such-user"),
        (accounts.assign("ana", "none"), "no-such-role"),
        (accounts.unassign("ana", "operator"), "no-such-role"),
        (accounts.remove_user("nobody"), "no-such-user"),
        (accounts.remove_role("operator"), "built-in"),
        (accounts.remove_role("none"), "no-such-role"),
        (accounts.add_role("user"), "role-exists"),
        (accounts.add_grant(Holder("role", "none"), parse_grant("node://x")), "no-such-role"),
        (accounts.remove_grant(Holder("user", "ana"), parse_grant("node://x")), "no-such-grant"),
        (local.provider.devices.make_code("nobody", "laptop"), "no-such-user"),
        (local.provider.devices.forget_devices("nobody", None), "no-such-user"),
    ]:
        assert (await refused(call)).reason == reason
    for bad in [
        provider.add_user("Ana Large", (), None),
        provider.add_user("x" * 65, (), None),
        accounts.assign("ana", "developer"),
        accounts.assign("ana", "developer:"),
        accounts.assign("ana", "Bad Role"),
        accounts.add_role("developer:x"),
    ]:
        with pytest.raises(UsageError):
            await bad
    assert before == (local.rows("access_users"), local.rows("access_user_roles"), local.rows("access_roles"))


def test_the_start_line_says_who_is_let_in(local: Local) -> None:
    assert "users of this node only" in local.provider.describe()


async def test_what_a_user_may_do_is_known_without_it_being_there(local: Local) -> None:
    await local.provider.add_user("ana", ("user",), None)
    await local.provider.accounts.add_grant(Holder("user", "ana"), parse_grant("memory://kb/w"))
    ana = await local.provider.recall("ana")
    assert (ana.id, ana.enters("any"), ana.memory_grant("kb", "r") is not None) == ("ana", True, True)
    assert ana.memory_grant("other", "r") is None
    assert (await local.provider.recall("home")).operator
    nobody = await local.provider.recall("carl")
    assert (nobody.grants, nobody.operator) == ((), False)


async def test_a_password_that_was_replaced_while_it_was_checked_is_of_no_use(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.provider.add_user("ana", ("user",), PASSWORD)
    passwords, fits = local.provider.passwords, local.provider.passwords.fits

    async def fits_meanwhile(kept: str | None, password: str, *, source: str | None) -> bool:
        fitted = await fits(kept, password, source=source)
        await local.provider.set_password("ana", "a new password")
        return fitted

    for use in (
        local.provider.password("laptop", "ana", PASSWORD),
        local.provider.change_password("laptop", "ana", PASSWORD, "the thief's own"),
    ):
        await local.provider.set_password("ana", PASSWORD)
        with monkeypatch.context() as patch:
            patch.setattr(passwords, "fits", fits_meanwhile)
            assert (await refused(use)).reason == "bad-login"
        assert local.rows("access_tokens") == []
        assert await fits(await local.provider.accounts.password_of("ana"), "a new password")
