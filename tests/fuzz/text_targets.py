"""Texts that people and flows write, and tokens that they carry."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from kodo.access.jose import BadTokenError, read_header, read_keys
from kodo.cli.values import parse_assignments
from kodo.client.inputs import read_word
from kodo.client.resolve import parse_flow, parse_run, parse_share
from kodo.flow._runtime.event_socket import parse_line
from kodo.node.executors.crash import read_crash
from kodo.p2p.errors import CallError, KodoError, UsageError
from kodo.protocol.access import parse_grant
from kodo.protocol.ids import id_time_ms, is_id
from kodo.protocol.link import decode_token, encode_token, parse_link
from kodo.protocol.manifest import check_output_name
from kodo.protocol.memory import check_key, check_shared
from kodo.registry.query.glob import parse_glob
from kodo.registry.query.query import parse_query
from kodo.registry.query.sql import compile_query
from kodo.registry.query.tree import FLOW_FIELDS, NODE_FIELDS
from kodo.registry.reads.pages import parse_page
from kodo.settings.units import parse_bytes, parse_seconds
from tests.fuzz.mutations import mutated_text, mutated_value
from tests.fuzz.targets import Difference, Target, vectors

__all__ = ["targets"]

QUERIES = (
    "name == 'a' and tags.str.contains('x') or not online",
    "availability > 0.5 & ping.cpu < 3",
    "1 < runs_total <= 3 * 2 - -1",
    "name.str.lower().str.startswith('k')",
    "peer_id in ['a', 'b'] and state != 'x' | name.isnull()",
    '`name` == "it\'s" and (online or not (online)) == True',
)
LINES = (
    '{"event": "progress", "data": {"percent": 10, "note": "é"}}',
    '{"event": "log", "data": {"level": "info", "text": "a", "n": [1, 2.5, null, true]}}',
    '{"event": "result", "data": {"a": {"b": {"c": [[[]]]}}}}',
)
REFERENCES = (
    "node/flows.market.Competitor",
    "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/flow",
    "/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEiAYHyYtNDtCSVBXXmVsc3qBiI-WnaSrsrnAx87V3OPq8Q/p2p/12D3KooW/flow",
    "node/01jabcdefghjkmnpqrstvwxyz0",
    "./dir/x.py:flow",
)
TOKEN = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2EifQ.c2lnbmF0dXJl"
KEYS = {
    "keys": [
        {"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "x": "f" * 43, "y": "g" * 43},
        {"kty": "RSA", "n": "sXch", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "x": "a" * 43},
    ]
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "topic": {"type": "string"},
        "depth": {"type": "integer"},
        "rate": {"type": ["number", "null"]},
        "on": {"type": "boolean"},
        "kind": {"enum": ["a", "b", 3, None]},
        "list": {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Tree"}]}},
        "tree": {"$ref": "#/$defs/Tree"},
    },
    "$defs": {
        "Tree": {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Tree"}}}
    },
}
ASSIGNMENTS = (
    "topic=a", "depth=3", "rate=1.5", "on=yes", "kind=b", "list=[1, 2]", 'tree={"name": "x"}', "tree.next.next.name=y"
)  # fmt: skip


def _texts(*seeds: str) -> Callable[[Random], str]:
    return lambda rng: mutated_text(rng, seeds)


def _each(*readers: Callable[[str], object], refuses: tuple[type[Exception], ...]) -> Callable[[str], None]:
    def read(text: str) -> None:
        for reader in readers:
            with contextlib.suppress(*refuses):
                reader(text)

    return read


def _query(text: str) -> None:
    for fields in (NODE_FIELDS, FLOW_FIELDS):
        with contextlib.suppress(UsageError):
            compile_query(parse_query(text, fields), {name: name for name in fields}, {})


def _link(text: str) -> None:
    link = parse_link(text)
    if decode_token(encode_token(link)) != link:
        raise Difference("a link is not written as it was read")


def _page(rng: Random) -> dict[str, str]:
    values = ("a*b?", QUERIES[0], "name asc,online desc", "1", "100", "", "-1", "9" * 30)
    names = ("search", "query", "by", "p", "pp", "q", "")
    return {
        names[int(rng.random() * len(names))]: mutated_text(rng, values) for _ in range(1 + int(rng.random() * 4))
    }


def _assignments(rng: Random) -> list[str]:
    words = [mutated_text(rng, ASSIGNMENTS).replace("@", "") for _ in range(1 + int(rng.random() * 3))]
    return [word for word in words if not word.startswith("~")]


def _ids(text: str) -> None:
    if is_id(text):
        id_time_ms(text)
    else:
        id_time_ms(text)
        raise Difference("what is no id has a time")


def _keys(rng: Random) -> object:
    return mutated_value(rng, KEYS)


def _read_keys(value: object) -> None:
    if isinstance(value, dict):
        read_keys(value)


def _of_schemas(text: str) -> None:
    for schema in SCHEMA["properties"].values():
        with contextlib.suppress(ValueError):
            read_word(text, schema, SCHEMA)


def targets() -> list[Target]:
    """Give the targets of this module."""
    links: Sequence[str] = [
        each[key] for each in vectors("link")["valid"] for key in ("token", "link", "page") if each[key]
    ]
    return [
        Target("link", _texts(*links), lambda: _link),
        Target(
            "event line",
            _texts(*LINES),
            lambda: lambda text: parse_line(text.encode("utf-8", "surrogatepass")),
            (ValueError, UsageError),
        ),
        Target("query", _texts(*QUERIES), lambda: _query, (), 20_000),
        Target("glob", _texts("a*b?c", "[x]*", "é**"), lambda: parse_glob, (UsageError,), 2000),
        Target("page", _page, lambda: lambda value: parse_page(value, NODE_FIELDS), (CallError,), grows=False),
        Target(
            "reference",
            _texts(*REFERENCES),
            lambda: _each(parse_flow, parse_run, parse_share, refuses=(KodoError,)),
            (),
        ),
        Target(
            "assignments",
            _assignments,
            lambda: lambda words: parse_assignments(words, SCHEMA),
            (UsageError,),
            grows=False,
        ),
        Target(
            "typed value",
            _texts("3", "1.5", "yes", '{"name": "x", "next": {}}', "[1, [2]]", "null"),
            lambda: _of_schemas,
            (),
            3000,
        ),
        Target(
            "grant",
            _texts("node://a", "flow://a.*/2/x", "registry://r/w", "memory://m*/r"),
            lambda: parse_grant,
            (UsageError,),
        ),
        Target("output name", _texts("a/b/c.md", "報告.pdf", "x" * 250), lambda: check_output_name),
        Target(
            "memory key",
            _texts("a/b", "k" * 100),
            lambda: _each(check_key, check_shared, refuses=(KodoError, ValueError)),
            (),
        ),
        Target("id", _texts("01jabcdefghjkmnpqrstvwxyz0"), lambda: _ids),
        Target("token", _texts(TOKEN), lambda: read_header, (BadTokenError,)),
        Target("key set", _keys, lambda: _read_keys, (), grows=False),
        Target(
            "setting",
            _texts("5m", "60s", "1.5h", "10GB", "3 MiB"),
            lambda: _each(parse_bytes, parse_seconds, refuses=(ValueError,)),
            (),
        ),
        Target(
            "crash",
            _texts("Fatal Python error: Aborted\n\nThread 0x0\n  File x\n"),
            lambda: read_crash,
            (),
        ),
    ]
