"""From one version of the file's tables to the next; each step is done in a transaction of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from kodo.access.tables import SCHEMA as ACCESS_DDL
from kodo.registry.records.record import FlowRecord
from kodo.registry.store.last_seqs import LAST_SEQS_DDL
from kodo.registry.store.listing import add_flows, flow_row
from kodo.registry.store.mesh_changes import HEARD_DDL, MESH_DDL
from kodo.registry.store.operators import ADMIN_DDL, MESH_URLS_DDL
from kodo.registry.store.probes import PROBES_DDL
from kodo.registry.store.schema import TABLES
from kodo.sqlite.file import Step
from kodo.sqlite.script import run_script

__all__ = ["STEPS"]


def _from_2(connection: sqlite3.Connection) -> None:
    """Signed bytes apart from what readers touch; flows in columns; states kept; an index without the texts."""
    for statement in (
        "DROP TRIGGER flows_inserted",
        "DROP TRIGGER flows_deleted",
        "DROP TABLE flow_text",
        "ALTER TABLE flows RENAME TO old_flows",
        "ALTER TABLE nodes RENAME TO old_nodes",
        *(f"DROP INDEX flows_{name}" for name in ("path", "published", "node", "name", "author", "organization")),
        "DROP INDEX nodes_name",
    ):
        connection.execute(statement)
    run_script(connection, TABLES)
    same = (
        "id, peer_id, name, k_name, addrs, seq, issued_at, expires_at, flows, seen_at, beat_at, beat_seen_at, ping, "
        "left_at, left_seq"
    )
    # Online until the next look at the clock, which judges all that is due.
    connection.execute(
        f"INSERT INTO nodes ({same}, online, changes_at) SELECT {same}, iif(left_at IS NULL, 1, NULL), "
        "iif(left_at IS NULL, 0, NULL) FROM old_nodes"
    )
    connection.execute("INSERT INTO records SELECT id, signed, goodbye FROM old_nodes")
    rows = connection.execute(
        "SELECT f.node_id, f.data, n.k_name FROM old_flows f JOIN old_nodes n ON n.id = f.node_id"
    )
    for node_id, data, node_key in rows:
        fields = json.loads(data)
        fields["tags"] = tuple(fields["tags"])
        fields["inputs_schema_sha256"] = bytes.fromhex(fields["inputs_schema_sha256"])
        add_flows(connection, node_key, [flow_row(node_id, FlowRecord(**fields), {}, hidden=False)])
    connection.execute("UPDATE totals SET nodes = (SELECT count(*) FROM nodes), flows = (SELECT count(*) FROM flows)")
    connection.execute("DROP TABLE old_flows")
    connection.execute("DROP TABLE old_nodes")


def _from_4(connection: sqlite3.Connection) -> None:
    """What users need."""
    run_script(connection, ACCESS_DDL)
    if not any(row["name"] == "owner" for row in connection.execute("PRAGMA table_info(admitted)")):
        connection.execute("ALTER TABLE admitted ADD COLUMN owner TEXT")


STEPS: Mapping[int, Step] = {
    1: MESH_DDL,
    2: _from_2,
    3: ADMIN_DDL + PROBES_DDL,
    4: _from_4,
    5: MESH_URLS_DDL,
    6: HEARD_DDL + LAST_SEQS_DDL,
}
"""From each version to the next."""
