"""What operators do, over real HTTP: who may, and what becomes of it."""

import asyncio
import contextlib
import datetime
import os
import ssl
import tempfile
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kodo.p2p.errors import CallError, UsageError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.http.tls import Certificate
from kodo.registry.records.claims import Enrolment, authorization, enrol_proof
from kodo.registry.records.signed import sign
from kodo.registry.server import Registry, RegistryConfig
from tests.support.records import flow, identity, signed_heartbeat, signed_record

NODE = identity(1)
STRANGER = identity(66)


@pytest.fixture
async def owner(registry, config, clock):
    async with OperatorClient(registry.url, Claimant(load_identity(config.home, "user"), now=clock)) as client:
        yield client


@pytest.fixture
async def stranger(registry, clock):
    async with OperatorClient(registry.url, Claimant(STRANGER, now=clock)) as client:
        yield client


def refuses(code, reason):
    return pytest.raises(CallError, match=rf"\({code} {reason}\)")


async def test_a_stranger_is_no_operator_of_anything(stranger, client):
    await client.up(signed_record(NODE, flow()))
    calls = [
        stranger.register("a.example.com"),
        stranger.unregister("flows.example.com"),
        stranger.annotate("flows.example.com", {"hidden": True}),
        stranger.annotate("flows.example.com", {"hidden": True}, path=flow().path, replace=True),
        stranger.stale(),
        stranger.clean(),
        stranger.audit(),
        stranger.operators(),
        stranger.registered(),
        stranger.code(),
        stranger.dismiss(str(STRANGER.peer_id)),
        stranger.shutdown(),
    ]
    for call in calls:
        with refuses(403, "operator-only"):
            await call
    assert (await client.nodes()).total_records == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/register"),
        ("DELETE", "/register"),
        ("GET", "/register"),
        ("POST", "/nodes"),
        ("PUT", "/nodes"),
        ("POST", "/flows"),
        ("PUT", "/flows"),
        ("GET", "/cleanup"),
        ("POST", "/cleanup"),
        ("GET", "/audit"),
        ("GET", "/operators"),
        ("DELETE", "/operators"),
        ("POST", "/operators/code"),
        ("POST", "/shutdown"),
    ],
)
async def test_without_a_claim_nothing_is_done(http, method, path):
    data = None if method == "GET" else b"{}"
    headers = {} if data is None else {"Content-Type": "application/json"}
    async with http.request(method, path, data=data, headers=headers) as response:
        assert (response.status, (await response.json(content_type=None))["reason"]) == (401, "no-claim")


async def test_a_claim_is_good_once_in_time_and_for_one_request(http, registry, config, clock):
    user = load_identity(config.home, "user")
    host = registry.url.removeprefix("http://")

    async def ask(target, value):
        async with http.get(target, headers={"Authorization": value}) as response:
            return response.status, (await response.json(content_type=None)).get("reason")

    claim = authorization(user, host, "GET", "/audit", b"", clock.now)
    assert await ask("/audit", claim) == (200, None)
    assert await ask("/audit", claim) == (401, "stale-claim")
    assert await ask("/operators", authorization(user, host, "GET", "/audit", b"", clock.now + 1)) == (
        401,
        "bad-claim",
    )
    assert await ask("/audit", authorization(user, "evil.example", "GET", "/audit", b"", clock.now + 2)) == (
        401,
        "bad-claim",
    )
    assert await ask("/audit", authorization(user, host, "GET", "/audit", b"", clock.now - 61_000)) == (
        401,
        "stale-claim",
    )
    assert await ask("/audit", "Basic something") == (401, "bad-claim")
    assert await ask("/audit", "Bearer something") == (401, "no-login")


@pytest.fixture
async def closed(tmp_path, clock):
    config = RegistryConfig(home=tmp_path / "closed", port=0, open=False)
    async with Registry(config, clock=clock) as registry:
        user = load_identity(config.home, "user")
        async with (
            OperatorClient(registry.url, Claimant(user, now=clock)) as operator,
            RegistryClient(registry.url) as client,
        ):
            yield operator, client


async def test_a_closed_registry_takes_who_is_registered(closed):
    operator, client = closed
    with refuses(403, "not-registered"):
        await client.up(signed_record(NODE))
    await operator.register("Flows.Example.com")
    await client.up(signed_record(NODE))
    assert [row["name"] for row in (await operator.registered())["result"]] == ["Flows.Example.com"]
    with refuses(409, "name-taken"):
        await client.up(signed_record(identity(2)))


async def test_a_name_can_be_bound_to_a_peer(closed):
    operator, client = closed
    await operator.register("flows.example.com", str(identity(2).peer_id))
    with refuses(403, "other-peer"):
        await client.up(signed_record(NODE))
    await client.up(signed_record(identity(2)))


async def test_binding_takes_a_name_from_who_used_it(owner, client):
    await client.up(signed_record(NODE))
    await owner.register("flows.example.com", str(identity(2).peer_id))
    await client.up(signed_record(identity(2)))
    with refuses(403, "other-peer"):
        await client.up(signed_record(NODE, seq=2))


async def test_unregister_removes_the_node_and_frees_its_name(owner, client):
    await client.up(signed_record(NODE, flow()))
    answer = await owner.unregister("flows.example.com")
    assert answer["removed"] == [str(NODE.peer_id)]
    assert (await client.nodes()).total_records == 0
    assert (await client.flows()).total_records == 0
    with refuses(404, "no-such-node"):
        await client.state(signed_heartbeat(NODE))
    with refuses(404, "no-such-name"):
        await owner.unregister("flows.example.com")
    await client.up(signed_record(identity(2)))


async def test_words_win_in_what_readers_see_and_the_record_stays(owner, client):
    signed = signed_record(NODE, flow())
    await client.up(signed)
    await owner.annotate("flows.example.com", {"tags": ["curated"]}, path=flow().path)
    await owner.annotate(str(NODE.peer_id), {"description": "Theirs"})
    (row,) = (await client.flows()).result
    assert row["tags"] == ["curated"]
    assert (await client.record(str(NODE.peer_id))).flows[0].tags == ("market",)
    answer = await owner.annotate("flows.example.com", {"name": "Better"}, path=flow().path)
    assert answer["words"] == {"tags": ["curated"], "name": "Better"}
    answer = await owner.annotate("flows.example.com", {"name": "Best"}, path=flow().path, replace=True)
    assert answer["words"] == {"name": "Best"}
    answer = await owner.annotate("flows.example.com", {"name": None}, path=flow().path)
    assert answer["words"] == {}
    with refuses(400, "bad-args"):
        await owner.annotate("flows.example.com", {"colour": "red"})
    with refuses(404, "no-such-node"):
        await owner.annotate("nobody.example.com", {"hidden": True})


async def test_what_is_hidden_only_operators_see(owner, client, registry, config, clock, http):
    await client.up(signed_record(NODE, flow("a"), flow("b")))
    await owner.annotate("flows.example.com", {"hidden": True}, path="a")
    assert [row["path"] for row in (await client.flows()).result] == ["b"]
    host, user = registry.url.removeprefix("http://"), load_identity(config.home, "user")

    async def seen(by, at):
        headers = {"Authorization": authorization(by, host, "GET", "/flows", b"", at)}
        async with http.get("/flows", headers=headers) as response:
            body = await response.json(content_type=None)
            return response.status, sorted(row["path"] for row in body.get("result", []))

    assert await seen(user, clock.now + 5) == (200, ["a", "b"])
    assert await seen(STRANGER, clock.now + 5) == (403, [])


async def test_the_record_of_a_hidden_node_only_operators_get(owner, client, registry, config, clock, http):
    await client.up(signed_record(NODE, flow()))
    path = f"/nodes/{NODE.peer_id}"
    async with http.get(path) as response:
        assert response.status == 200
        tag = response.headers["ETag"]
    await owner.annotate("flows.example.com", {"hidden": True})
    for method, headers in (("GET", {}), ("GET", {"If-None-Match": tag}), ("HEAD", {})):
        async with http.request(method, path, headers=headers) as response:
            assert response.status == 404
    host, user = registry.url.removeprefix("http://"), load_identity(config.home, "user")
    headers = {"Authorization": authorization(user, host, "GET", path, b"", clock.now + 5)}
    async with http.get(path, headers=headers) as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")


async def test_what_is_silent_for_long_is_cleaned_up_on_demand(owner, client, clock):
    await client.up(signed_record(NODE, flow()))
    clock.advance(5 * 86400)
    await client.up(signed_record(identity(2), name="fresh.example.com", issued_at=clock.now))
    assert await owner.stale() == []
    clock.advance(3 * 86400)
    assert [row["name"] for row in await owner.stale()] == ["flows.example.com"]
    assert [row["name"] for row in await owner.clean()] == ["flows.example.com"]
    assert await owner.stale() == []
    assert (await client.flows()).total_records == 0


async def test_each_change_leaves_a_line(owner, client, config):
    await client.up(signed_record(NODE))
    await owner.register("a.example.com")
    await owner.annotate("flows.example.com", {"hidden": True})
    await owner.unregister("a.example.com")
    lines = (await owner.audit())["result"]
    assert [line["what"] for line in lines] == ["unregister", "annotate", "register"]
    assert {line["by"] for line in lines} == {str(load_identity(config.home, "user").peer_id)}
    assert lines[1]["data"]["words"] == {"hidden": True}


async def test_the_first_code_makes_an_operator_once(registry, stranger, clock):
    code = registry.first_code
    assert code
    await stranger.enrol(code)
    assert str(STRANGER.peer_id) in [row["peer_id"] for row in (await stranger.operators())["result"]]
    async with OperatorClient(registry.url, Claimant(identity(67), now=clock)) as another:
        with refuses(403, "wrong-code"):
            await another.enrol(code)
        await another.enrol(await stranger.code())
        await another.dismiss(str(STRANGER.peer_id))
    with refuses(403, "operator-only"):
        await stranger.audit()


async def test_a_code_is_told_at_the_first_start_only(registry, config, clock):
    await registry.aclose()
    async with Registry(config, clock=clock) as again:
        assert again.first_code is None


async def test_a_code_ends_after_five_tries_and_after_a_day(registry, owner, clock):
    wrong = await owner.code()
    for number in range(70, 75):
        async with OperatorClient(registry.url, Claimant(identity(number), now=clock)) as other:
            with refuses(403, "wrong-code"):
                await other.enrol("0000-0000")
    clock.advance(120)
    async with OperatorClient(registry.url, Claimant(STRANGER, now=clock)) as other:
        with refuses(403, "wrong-code"):
            await other.enrol(wrong)
        late = await owner.code()
        clock.advance(86400)
        with refuses(403, "wrong-code"):
            await other.enrol(late)


async def test_an_overheard_proof_is_of_no_use_to_others(registry, http):
    own = registry.peer_id
    overheard = enrol_proof(registry.first_code, own, str(identity(70).peer_id))
    forged = sign(Enrolment(peer_id=str(STRANGER.peer_id), proof=overheard), STRANGER)
    async with http.post("/operators", data=forged, headers={"Content-Type": "application/msgpack"}) as response:
        assert response.status == 403


async def test_an_operator_can_have_it_end(owner, registry):
    assert (await owner.shutdown())["stopping"] is True
    async with asyncio.timeout(10):
        await registry.asked_to_stop.wait()


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_it_speaks_https(tmp_path):
    cert, key = certificate(tmp_path / "tls")
    config = RegistryConfig(home=tmp_path / "home", port=0, tls_cert=cert, tls_key=key)
    trust = ssl.create_default_context(cafile=cert)
    async with Registry(config) as registry:
        assert registry.url.startswith("https://")
        port = registry.url.rpartition(":")[2]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"https://localhost:{port}/state", ssl=trust) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://localhost:{port}/state")


async def test_a_certificate_that_was_replaced_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr("kodo.registry.http.tls.LOOK_S", 0.01)
    cert, key = certificate(tmp_path / "tls")
    first, others = cert.read_bytes(), [path.read_bytes() for path in certificate(tmp_path / "other")]

    async def shown():
        return (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))).encode()

    async with Registry(RegistryConfig(home=tmp_path / "home", port=0, tls_cert=cert, tls_key=key)) as registry:
        port = int(registry.url.rpartition(":")[2])
        assert await shown() == first
        cert.write_bytes(others[0])
        key.write_bytes(others[1])
        async with asyncio.timeout(20):
            while await shown() != others[0]:  # each look is a handshake
                pass


def test_files_that_do_not_fit_together_change_nothing(tmp_path):
    cert, key = certificate(tmp_path / "tls")
    others = [path.read_bytes() for path in certificate(tmp_path / "other")]
    files = Certificate(cert, key)
    assert not files.look()
    cert.write_bytes(others[0])
    assert not files.look()
    key.unlink()
    assert not files.look()
    key.write_bytes(others[1])
    assert files.look()
    assert not files.look()


@contextlib.contextmanager
def an_ordinary_user():
    """Root reads everything; rights say something to others only."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["registry.key", "registry.pem", "."])
def test_a_certificate_is_taken_up_once_its_rights_are_mended(closed, caplog):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cert, key = certificate(Path(folder) / "tls")
        others = [path.read_bytes() for path in certificate(Path(folder) / "other")]
        closed_path = {"registry.key": key, "registry.pem": cert, ".": key.parent}[closed]
        for path in (cert, key):
            path.chmod(0o644)
        with an_ordinary_user():
            files = Certificate(cert, key)
        cert.write_bytes(others[0])
        key.write_bytes(others[1])
        closed_path.chmod(0)
        with an_ordinary_user():
            assert [files.look(), files.look()] == [False, False]
        assert len(caplog.records) == 1
        closed_path.chmod(0o755)
        with an_ordinary_user():
            assert [files.look(), files.look()] == [True, False]


async def test_a_name_that_cannot_be_is_told_in_words(owner):
    for name in ("bad name", "", "x" * 254, "a..b", "a\n"):
        with pytest.raises(CallError, match="consists of letters, digits"):
            await owner.register(name)


async def test_half_a_certificate_is_refused_at_the_start(tmp_path):
    cert, key = certificate(tmp_path / "tls")
    for given in ({"tls_cert": cert}, {"tls_key": key}, {"tls_cert": key, "tls_key": cert}):
        with pytest.raises(UsageError):
            async with Registry(RegistryConfig(home=tmp_path / "home", port=0, **given)):
                pass


async def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(tmp_path):
    cert, key = certificate(tmp_path / "tls")
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    config = RegistryConfig(home=tmp_path / "home", port=0, tls_cert=cert, tls_key=key)
    with pytest.raises(UsageError, match="passphrase"):
        async with Registry(config):
            pass


async def test_off_this_machine_operators_need_tls(registry, config, clock, monkeypatch):
    # The address that the socket reports is all that is changed: there is no second machine here.
    monkeypatch.setattr("aiohttp.web_request.BaseRequest.remote", "192.0.2.9")
    async with OperatorClient(registry.url, Claimant(load_identity(config.home, "user"), now=clock)) as owner:
        with refuses(403, "tls-only"):
            await owner.audit()
