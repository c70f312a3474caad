"""Values inside of msgpack and JSON: signed records, args of calls, values held against a schema, events."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

from kodo.node.schemas.forms import is_schema, missing, places
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, PeerError
from kodo.protocol.calls import OPS, parse_args
from kodo.protocol.events import EVENTS, Event, RunView
from kodo.protocol.secrets import asks_secrets, hide, masked, reveal, secret_names
from kodo.protocol.uploads import find_uploads
from kodo.registry.records.claims import read_authorization
from kodo.registry.records.record import verify_goodbye, verify_heartbeat, verify_record
from kodo.registry.records.signed import pack, unpack
from kodo.registry.rendezvous import check_presence
from tests.fuzz.mutations import mutated_bytes, mutated_value
from tests.fuzz.targets import Target, hexes, vectors

__all__ = ["targets"]

SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "object",
        "required": ["name", "n"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z]+( [a-z]+)*$"},
            "n": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 2},
            "rate": {"type": "number", "default": 0.5},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 4},
            "kind": {"enum": ["a", "b", 3]},
            "key": {"type": "string", "format": "password", "writeOnly": True},
        },
    },
    {
        "$defs": {
            "Leaf": {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"]},
            "Branch": {
                "type": "object",
                "required": ["items"],
                "properties": {
                    "items": {
                        "type": "array",
                        "items": {"anyOf": [{"$ref": "#/$defs/Leaf"}, {"$ref": "#/$defs/Branch"}]},
                    }
                },
            },
        },
        "$ref": "#/$defs/Branch",
    },
    {
        "oneOf": [{"type": "boolean"}, {"type": "string", "enum": ["yes", "no"]}, {"type": "null"}],
        "title": "Approve?",
    },
)
VALUES: tuple[Any, ...] = (
    {"name": "a b", "n": 4, "rate": 1.5, "tags": ["x", "y"], "kind": "b", "key": "s3cret"},
    {"items": [{"v": 1}, {"items": [{"v": 2}, {"items": []}]}]},
    True,
)
ARGS: tuple[dict[str, Any], ...] = (
    {"fid": "01jabcdefghjkmnpqrstvwxyz0", "offset": 0, "level": 2, "length": 100, "name": "a.md", "limit": 10},
    {"path": "flows.a", "inputs": {"name": "x"}, "tags": ["a"], "key": "k", "at": 1},
    {
        "sid": "01jabcdefghjkmnpqrstvwxyz0",
        "secret": b"s" * 16,
        "expires": 1,
        "downloads": 3,
        "level": 1,
        "users": ["a"],
    },
    {"method": "password", "name": "eva", "password": "p" * 12, "token": "t", "answer": {"a": 1}, "lid": "0" * 26},
)
EVENT_DATA: dict[str, dict[str, Any]] = {
    "progress": {"percent": 10, "text": "a", "id": "x", "parent": "y"},
    "lock": {
        "lid": "01jabcdefghjkmnpqrstvwxyz0",
        "title": "Approve?",
        "schema": {},
        "expires_in": 10,
        "roles": ["a"],
    },
    "output": {"name": "a.md", "size": 3, "sha256": "ab" * 32},
    "agents": {"agents": [{"name": "a", "role": "b"}]},
    "final": {"result": {"a": 1}},
    "fatal": {"type": "ValueError", "message": "x", "cause": {"type": "a"}},
}
_KEY = Identity.from_seed(bytes(31) + b"\x07")


def _bytes(seeds: Sequence[bytes]) -> Callable[[Random], bytes]:
    return lambda rng: mutated_bytes(rng, seeds)


def _packed(value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value, use_bin_type=True))
    except (ValueError, TypeError, OverflowError):
        return b"\x80"


def _signed(cases: Sequence[dict[str, Any]]) -> Callable[[Random], bytes]:
    """Change the fields of a record and sign it: what is read after the signature."""

    def make(rng: Random) -> bytes:
        case = cases[int(rng.random() * len(cases))]
        value = mutated_value(rng, unpack(bytes.fromhex(case["payload"]), lists=True))
        try:
            payload = pack(value) if rng.random() < 0.8 else _packed(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            payload = _packed(value)
        signature = _KEY.sign(case["domain"].encode() + payload)
        return pack({"payload": payload, "signature": signature})

    return make


def _records(data: bytes) -> None:
    for read in (verify_record, verify_heartbeat, verify_goodbye):
        with contextlib.suppress(PeerError):
            read(data)
    unpack(data)


def _rendezvous(data: bytes) -> None:
    check_presence(data, "a:1", bytes(32))


def _authorization(data: bytes) -> None:
    text = "Kodo " + base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    read_authorization(text, "a:1", "GET", "/nodes", b"")


def _form(rng: Random) -> tuple[dict[str, Any], Any]:
    which = int(rng.random() * len(SCHEMAS))
    schema = SCHEMAS[which]
    return schema, mutated_value(rng, VALUES[which], _FINITE)


def _odd_form(rng: Random) -> tuple[dict[str, Any], Any]:
    schema, value = _form(rng)
    changed = mutated_value(rng, schema, _FINITE)
    return (changed if isinstance(changed, dict) else schema), value


_FINITE: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -1,
    2**53,
    1.5,
    "",
    "a",
    "x" * 300,
    "\0",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    {"": ""},
    "#",
    "(a+)+$",
)


class _NoSchemaError(Exception):
    """The form is no JSON Schema: a node refuses it before it holds any value against it."""


def _hold_any(pair: tuple[dict[str, Any], Any]) -> None:
    if not is_schema(pair[0]):
        raise _NoSchemaError
    _hold(pair)


def _hold(pair: tuple[dict[str, Any], Any]) -> None:
    schema, value = pair
    places(schema, value)
    if isinstance(value, dict):
        missing(schema, value)


def _secrets(pair: tuple[dict[str, Any], Any]) -> None:
    schema, value = pair
    asks_secrets(schema)
    masked(value)
    shown, secrets = hide(schema, value)
    if reveal(shown, secrets) != value:
        raise AssertionError("what was hidden is not revealed as it was")
    if isinstance(value, dict):
        secret_names(schema, value)
    list(find_uploads(value))


def _args(rng: Random) -> tuple[str, Any]:
    names = list(OPS)
    value = mutated_value(rng, ARGS[int(rng.random() * len(ARGS))])
    wanted = list(OPS[name := names[int(rng.random() * len(names))]].model_fields)
    if isinstance(value, dict) and rng.random() < 0.7:
        filled = [ARGS[int(rng.random() * len(ARGS))].get(each, "a") for each in wanted]
        value = mutated_value(rng, dict(zip(wanted, filled, strict=True)))
    return name, value


def _read_args(pair: tuple[str, Any]) -> None:
    name, value = pair
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        parse_args(name, value)


def _event(rng: Random) -> Any:
    names = list(EVENTS)
    name = names[int(rng.random() * len(names))]
    usual = list(EVENT_DATA.values())
    data = mutated_value(rng, EVENT_DATA.get(name) or usual[int(rng.random() * len(usual))])
    event = {"seq": 1, "at": int(rng.random() * 1000), "kind": str(EVENTS[name].kind), "event": name, "data": data}
    return event if rng.random() < 0.9 else mutated_value(rng, event)


def _view() -> Callable[[Any], None]:
    view = RunView()

    def read(value: Any) -> None:
        if isinstance(value, dict):
            view.last_seq = 0
            view.apply(Event.from_wire(value))
            str(view.state)

    return read


def targets() -> list[Target]:
    """Give the targets of this module."""
    cases = vectors("record")["cases"]
    signed = [bytes.fromhex(case["signed"]) for case in cases]
    return [
        Target("record", _bytes([*signed, *hexes(cases)]), lambda: _records, (PeerError,), 2000),
        Target("record, signed", _signed(cases), lambda: _records, (PeerError,), 2000, grows=False),
        Target("rendezvous", _bytes(signed), lambda: _rendezvous, (PeerError,), 2000),
        Target("authorization", _bytes(signed), lambda: _authorization, (PeerError,), 2000),
        Target("form", _form, lambda: _hold, (), grows=False),
        Target("form of any schema", _odd_form, lambda: _hold_any, (_NoSchemaError,), free=1_000_000, grows=False),
        Target("secrets", _form, lambda: _secrets, (), grows=False),
        Target("args", _args, lambda: _read_args, (CallError,), grows=False),
        Target("event", _event, _view, grows=False),
    ]
