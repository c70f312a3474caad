"""What the registry's HTTP API is, for machines: OpenAPI 3.1, made from the models. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kodo.registry.client.client import BroughtAnswer, Page, RegistryState, StateAnswer, TurnAnswer, UpAnswer
from kodo.registry.federation import LONGEST_WAIT_S
from kodo.registry.http.access import ACCESS_OPS
from kodo.registry.http.admin import (
    AddToMesh,
    AnnotateFlow,
    AnnotateNode,
    DismissOperator,
    Nothing,
    RegisterName,
    RemoveFromMesh,
    UnregisterName,
)
from kodo.registry.problems import PROBLEM_TYPE
from kodo.registry.reads.pages import MAX_PAGE, MAX_PAGE_NUMBER
from kodo.registry.records.claims import TOKEN_HEADER

__all__ = ["OPERATIONS", "Operation", "document"]

_MSGPACK = "application/msgpack"
_JSON = "application/json"

_PEER_ID = {"type": "string", "description": "a libp2p peer id", "examples": ["12D3KooW…"]}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457; `reason` is the word to compare",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string"},
    },
}
_PAGES: Mapping[str, dict[str, Any]] = {
    "search": {"type": "string", "maxLength": 512, "description": "a glob"},
    "query": {"type": "string", "maxLength": 4096, "description": "a filter in pandas' syntax"},
    "by": {"type": "string", "description": "`key asc|desc`, comma separated"},
    "p": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_NUMBER},
    "pp": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
}
_P: Mapping[str, dict[str, Any]] = {"p": {"type": "integer", "minimum": 1, "maximum": 10**6}}


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Attributes:
        body: the model of a JSON body, or a sentence about the msgpack one; None without.
        answer: the model of the JSON answer, or a sentence about the msgpack one; None: any JSON object.
        query: the schema of each parameter.
        refusals: the statuses of its problems.
        operator: whether it takes a signed claim.
        reads: whether it takes one, or a token, where it takes a grant.
        success: the status of its answer; None: it refuses whoever calls it, and is deprecated.
    """

    method: str
    path: str
    summary: str
    body: type[BaseModel] | str | None = None
    answer: type[BaseModel] | str | None = None
    query: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    operator: bool = False
    reads: bool = False
    success: int | None = 200


_WRITES = (400, 408, 409, 413, 415, 429, 503, 507)
_UP = Operation("put", "/up", "Announce a node", "a signed record", UpAnswer, refusals=(*_WRITES, 403))
_DOWN = Operation("put", "/down", "Say goodbye", "a signed goodbye", refusals=(*_WRITES, 404))
_BEAT = Operation("post", "/state", "Report that a node is alive", "a signed heartbeat", StateAnswer,
                  refusals=(*_WRITES, 404, 406))  # fmt: skip
_ADMIN = (400, 401, 403, 404, 408, 413, 415, 429, 503, 507)


def _operators(method: str, path: str, summary: str, body: type[BaseModel] | None = None, **more: Any) -> Operation:
    return Operation(method, path, summary, body, refusals=_ADMIN, operator=True, **more)


OPERATIONS: tuple[Operation, ...] = (
    _UP,
    Operation("post", "/connect", "Same as PUT /up", _UP.body, _UP.answer, refusals=_UP.refusals),
    _DOWN,
    Operation("post", "/disconnect", "Same as PUT /down", _DOWN.body, refusals=_DOWN.refusals),
    _BEAT,
    Operation("put", "/state", "Same as POST /state", _BEAT.body, _BEAT.answer, refusals=_BEAT.refusals),
    Operation("get", "/state", "State of the registry", None, RegistryState, refusals=(429, 503)),
    Operation("get", "/nodes", "A page of nodes", None, Page, _PAGES, (400, 401, 403, 422, 429, 503), reads=True),
    Operation("get", "/flows", "A page of flows", None, Page, _PAGES, (400, 401, 403, 422, 429, 503), reads=True),
    Operation("get", "/nodes/{peer_id}", "A node's record, for the reader to verify", None, "a signed record",
              refusals=(401, 403, 404, 429, 503), reads=True),
    Operation("get", "/records", "What changed, for other registries", None, "a signed batch", {
        "since": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
        "epoch": {"type": "string", "pattern": "^([0-9a-f]{32})?$"},
        "wait": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S, "multipleOf": 0.001},
    }, (400, 401, 403, 429, 503), reads=True),
    Operation("post", "/mesh", "What changed at a member", "a signed batch", BroughtAnswer, refusals=(*_WRITES, 403)),
    Operation("get", "/rendezvous", "Wait as a node, by a WebSocket", success=101, refusals=(400, 426, 429, 503)),
    Operation("get", "/relay", "Reach the relay by a WebSocket, where UDP is blocked", success=101,
              query={"to": {"type": "string", "description": "the tag of the node that is dialled"}},
              refusals=(400, 404, 426, 429)),
    Operation("get", "/turn", "Credentials for the TURN servers that pages use where UDP is blocked",
              None, TurnAnswer, refusals=(401, 403, 404, 429), reads=True),
    Operation("post", "/rendezvous/{peer_id}", "Always refused: sealed offers are not passed on",
              success=None, refusals=(403, 410)),
    _operators("post", "/register", "Register a name", RegisterName),
    _operators("delete", "/register", "Unregister a name and remove its node", UnregisterName),
    _operators("get", "/register", "A page of the list", query=_P),
    _operators("post", "/nodes", "Replace the annotations of a node", AnnotateNode),
    _operators("put", "/nodes", "Merge annotations into those of a node", AnnotateNode),
    _operators("post", "/flows", "Replace the annotations of a flow", AnnotateFlow),
    _operators("put", "/flows", "Merge annotations into those of a flow", AnnotateFlow),
    _operators("get", "/cleanup", "List nodes that have been silent for too long"),
    _operators("post", "/cleanup", "Remove nodes that have been silent for too long", Nothing),
    _operators("get", "/audit", "A page of what operators changed", query=_P),
    _operators("get", "/operators", "Who the operators are"),
    Operation("post", "/operators", "Become an operator by a code", "a signed enrolment",
              refusals=(400, 403, 408, 413, 415, 429, 503, 507)),
    _operators("delete", "/operators", "Remove an operator", DismissOperator),
    _operators("post", "/operators/code", "Create a code for one more operator", Nothing),
    _operators("get", "/mesh", "List the registries of the mesh"),
    _operators("put", "/mesh", "Add a registry to the mesh: to read, or to feed", AddToMesh),
    _operators("delete", "/mesh", "Remove a registry from the mesh", RemoveFromMesh),
    _operators("post", "/shutdown", "End in order", Nothing),
    Operation("post", "/access/{op}", "Call an op on users; args and answer are as for a node",
              "a map of args", "a map", refusals=(400, 401, 403, 404, 408, 409, 413, 415, 429, 503, 507),
              reads=True),
    Operation("get", "/openapi.json", "This document"),
)  # fmt: skip
"""Every call; a test holds them against the routes."""


@functools.cache
def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document of this release."""
    models = {model for each in OPERATIONS for model in (each.body, each.answer) if isinstance(model, type)}
    _, defined = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "kodo registry", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**defined.get("$defs", {}), "Problem": _PROBLEM},
            "securitySchemes": {
                "claim": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`Kodo <base64url of a signed claim>`",
                },
                "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER, "description": "of a login"},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a token that is bound to no key",
                },
            },
        },
    }


def _operation(each: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {"summary": each.summary, "operationId": f"{each.method} {each.path}"}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in each.query.items()
    ]
    if "{peer_id}" in each.path:
        parameters.append({"name": "peer_id", "in": "path", "required": True, "schema": _PEER_ID})
    if "{op}" in each.path:
        parameters.append({"name": "op", "in": "path", "required": True, "schema": {"enum": list(ACCESS_OPS)}})
    if parameters:
        told["parameters"] = parameters
    if each.body is not None:
        told["requestBody"] = {"required": True, "content": _content(each.body)}
    success: dict[str, Any] = {"description": "done"}
    if each.success == 200:
        success["content"] = {_JSON: {"schema": {"type": "object"}}} if each.answer is None else _content(each.answer)
    told["responses"] = {} if each.success is None else {str(each.success): success}
    if each.success is None:
        told["deprecated"] = True
    if each.method == "get" and each.path in ("/nodes", "/flows", "/nodes/{peer_id}"):
        told["responses"]["304"] = {"description": "the caller has it already, by its `ETag`"}
    # The guard before every route: Host and Origin.
    for status in sorted({*each.refusals, 403, 421, 500}):
        told["responses"][str(status)] = {
            "description": "a problem",
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    # What is no HTTP, or has a line over 8,190 bytes, reaches no route.
    told["responses"]["400"] = {
        "description": "a problem; a bare line of text for what is no HTTP, or has too long a line",
        "content": {
            PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
    if each.operator:
        told["security"] = [{"claim": []}, {"claim": [], "token": []}]
    if each.reads:
        told["security"] = [{}, {"claim": []}, {"claim": [], "token": []}, {"bearer": []}]
    return told


def _content(what: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(what, str):
        return {_MSGPACK: {"schema": {"type": "string", "format": "binary", "description": what}}}
    return {_JSON: {"schema": {"$ref": f"#/components/schemas/{what.__name__}"}}}
