"""Ids, names, manifests, events and args, for all values."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError
from kodo.protocol.calls import OPS, parse_args
from kodo.protocol.events import EVENTS, Event, RunView, visible
from kodo.protocol.ids import id_time_ms, is_id, make_id
from kodo.protocol.link import Link, decode_token, encode_token, parse_link, write_link
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder, check_output_name

TIMES = st.integers(0, 2**48 - 1)
RANDOM = st.binary(min_size=10, max_size=10)


@given(TIMES, RANDOM)
def test_an_id_is_well_formed_and_tells_its_time(now: int, random: bytes) -> None:
    made = make_id(now, random)
    assert is_id(made)
    assert len(made) == 26
    assert id_time_ms(made) == now


@given(st.tuples(TIMES, RANDOM), st.tuples(TIMES, RANDOM))
def test_ids_sort_as_what_they_are_made_of(one: tuple[int, bytes], other: tuple[int, bytes]) -> None:
    assert (make_id(*one) < make_id(*other)) == (one < other)


@given(st.text())
def test_any_text_is_an_id_or_not(text: str) -> None:
    assert is_id(text) == (
        len(text) == 26 and text[0] in "01234567" and set(text) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    )


@given(st.text(max_size=40))
def test_a_name_that_passes_stays_in_its_folder(name: str) -> None:
    try:
        checked = check_output_name(name)
    except ValueError:
        return
    parts = checked.split("/")
    assert checked == name
    assert not any(part in ("", ".", "..") for part in parts)
    assert "\0" not in name


@given(st.lists(st.binary(max_size=3000), max_size=20), st.integers(0, 3))
def test_a_manifest_does_not_depend_on_how_a_file_arrives(pieces: list[bytes], more: int) -> None:
    whole = b"".join(pieces) + b"x" * (more * CHUNK_BYTES // 2)
    one, many = ManifestBuilder(), ManifestBuilder()
    one.update(whole)
    for piece in pieces:
        many.update(piece)
    for _ in range(more):
        many.update(memoryview(b"x" * (CHUNK_BYTES // 2)))
    manifest = one.finish()
    assert manifest == many.finish()
    assert manifest.sha256 == hashlib.sha256(whole).digest()
    chunks = [whole[start : start + CHUNK_BYTES] for start in range(0, len(whole), CHUNK_BYTES)]
    assert list(manifest.chunks) == [hashlib.sha256(chunk).digest() for chunk in chunks]


EVENT = st.builds(
    lambda name, lid, cid: (name, {"lid": lid, "cid": cid, "title": "", "schema": {}, "expires_s": 5.0, "name": cid}),
    st.sampled_from(sorted(EVENTS)),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["x", "y"]),
)


def log_of(said: list[tuple[str, dict[str, Any]]]) -> list[Event]:
    return [Event(seq, seq * 10, EVENTS[name].kind.value, name, data) for seq, (name, data) in enumerate(said, 1)]


@given(st.lists(EVENT, max_size=30))
def test_the_state_is_what_the_rule_says(said: list[tuple[str, dict[str, Any]]]) -> None:
    view = RunView()
    view.extend(log_of(said))
    names = [name for name, _ in said]
    open_locks: set[str] = set()
    for name, data in said:
        if name == "lock":
            open_locks.add(data["lid"])
        elif name in ("unlock", "lock-timeout"):
            open_locks.discard(data["lid"])
    expected = "error" if "fatal" in names else "done" if "final" in names else "locked" if open_locks else "pending"
    assert view.state.value == expected


@given(st.lists(EVENT, max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_events_that_come_again_change_nothing(said: list[tuple[str, dict[str, Any]]], cut: int, back: int) -> None:
    log = log_of(said)
    once, again = RunView(), RunView()
    once.extend(log)
    again.extend(log[:cut])
    again.extend(log[max(cut - back, 0) :])
    assert once == again


@given(st.lists(EVENT, max_size=10), st.integers(0, 2))
def test_a_level_hides_what_is_above_it_and_changes_nothing_else(
    said: list[tuple[str, dict[str, Any]]], level: int
) -> None:
    for event in log_of(said):
        seen = visible(event, level)
        assert (seen is None) == (EVENTS[event.event].level > level)
        assert seen in (None, event)


@given(st.lists(EVENT, max_size=10))
def test_events_survive_the_wire(said: list[tuple[str, dict[str, Any]]]) -> None:
    for event in log_of(said):
        assert Event.from_wire(event.to_wire()) == event


@given(
    st.sampled_from(sorted(OPS)),
    st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8)),
)
def test_any_args_are_taken_or_refused_with_a_name(op: str, args: dict[str, Any]) -> None:
    refusal: CallError | None = None
    try:
        parse_args(op, args)
    except CallError as error:
        refusal = error
    if refusal is not None:
        assert (refusal.code, refusal.reason) == (400, "bad-args")
        assert refusal.data["arg"]


@given(st.text(max_size=20))
def test_an_op_that_is_not_there_is_refused(op: str) -> None:
    if op not in OPS:
        with pytest.raises(CallError) as caught:
            parse_args(op, {})
        assert (caught.value.code, caught.value.reason) == (404, "no-such-op")


NODE = Identity.from_seed(bytes(32)).peer_id
ADDRESSES = st.builds(
    lambda ip, port, digest: Multiaddr.webrtc_direct(str(ip), port, digest, NODE),
    st.ip_addresses(),
    st.integers(1, 65535),
    st.binary(min_size=32, max_size=32),
)
LINKS = st.builds(
    lambda now, random, secret, addresses, registry: Link(
        NODE, make_id(now, random), secret, tuple(addresses), registry
    ),
    TIMES,
    RANDOM,
    st.binary(min_size=16, max_size=16),
    st.lists(ADDRESSES, max_size=8),
    st.none() | st.from_regex(r"\Ahttps?://[a-z]{1,20}(:[1-9][0-9]{0,3})?(/[a-z]{0,9})?\Z"),
)


@given(LINKS, st.sampled_from([None, "https://example.com", "http://127.0.0.1:8080/"]))
def test_a_link_is_what_its_token_says(link: Link, page: str | None) -> None:
    assert decode_token(encode_token(link)) == link
    assert parse_link(write_link(encode_token(link), page)) == link


@given(LINKS, st.integers(0), st.integers(0, 3), st.text("ABCabc019-_=", max_size=3))
def test_a_changed_token_is_refused_or_another_link(link: Link, at: int, cut: int, put: str) -> None:
    token = encode_token(link)
    at %= len(token)
    changed = token[:at] + put + token[at + cut :]
    try:
        found = decode_token(changed)
    except ValueError:
        return
    assert encode_token(found) == changed
    assert (found == link) == (changed == token)


@given(st.text(max_size=80) | st.text("kodo:htps/#get=ABCab0-_", max_size=80) | st.binary().map(lambda b: b.hex()))
def test_any_text_is_a_link_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert text.strip().endswith(encode_token(parse_link(text)))
