"""Flows as registries are told of them: whatever an author says, cut to what a record takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kodo.node.catalog.catalog import Flow
from kodo.node.store.rows import digest_of
from kodo.protocol.flow_info import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
)
from kodo.registry.records.record import MAX_FLOWS, MAX_RECORD_BYTES, FlowRecord, packed_bytes

__all__ = ["Listing", "listed"]

_FLOWS_BYTES = MAX_RECORD_BYTES - (64 << 10)
"""For all flows; the rest of a record is the node's name and its addresses."""

_SHORTER = (MAX_DESCRIPTION_CHARACTERS, 1024, 256, 64, 0)
"""How long descriptions may be, tried in this order until all flows fit into one record."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What registries are told.

    Attributes:
        records: at most 10,000, and no more than one signed record takes.
        cuts: what they are not told, for the node's operator; a line for each.
    """

    records: tuple[FlowRecord, ...]
    cuts: tuple[str, ...]


def listed(flows: Sequence[Flow]) -> Listing:
    """Return the records of the flows that can be run, in their order."""
    cuts: list[str] = []
    records: list[FlowRecord] = []
    for flow in flows:
        if flow.error is not None:
            continue
        if len(flow.path) > MAX_PATH_CHARACTERS:
            cuts.append(f"{flow.path[:64]}… is not listed: its path has over {MAX_PATH_CHARACTERS} characters")
            continue
        records.append(_record(flow, cuts))
    longest = _SHORTER[0]
    for longest in _SHORTER:
        shorter = [_with_description(record, longest) for record in records]
        if sum(map(packed_bytes, shorter)) <= _FLOWS_BYTES:
            break
    if longest < _SHORTER[0]:
        cuts.append(f"descriptions are cut to {longest} characters, so that those of all flows fit")
    kept: list[FlowRecord] = []
    room = _FLOWS_BYTES
    for record in shorter[:MAX_FLOWS]:
        room -= packed_bytes(record)
        if room < 0:
            break
        kept.append(record)
    if len(kept) < len(records):
        cuts.append(f"{len(kept)} of {len(records)} flows are listed: a record has no room for more")
    return Listing(tuple(kept), tuple(cuts))


def _record(flow: Flow, cuts: list[str]) -> FlowRecord:
    cut = flow.cut()
    said = sum(map(bool, flow.tags))
    if len(cut.tags) < said:
        bounds = f"{MAX_TAGS} of up to {MAX_TAG_CHARACTERS} characters are the limit"
        cuts.append(f"{len(cut.tags)} of the {said} tags of {flow.path} are listed: {bounds}")
    said_of_it = {name: getattr(cut, name) for name in FlowRecord.SAID}
    return FlowRecord(**said_of_it, inputs_schema_sha256=digest_of(flow.schema))


def _with_description(record: FlowRecord, longest: int) -> FlowRecord:
    if len(record.description) <= longest:
        return record
    return record.model_copy(update={"description": record.description[:longest]})
