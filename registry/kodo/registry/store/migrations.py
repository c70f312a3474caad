"""From one version of the file's tables to the next; each step is one transaction, so that a crash repeats it."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping

from kodo.access.tables import SCHEMA as ACCESS_DDL
from kodo.p2p.errors import UsageError
from kodo.registry.records.record import FlowRecord
from kodo.registry.store.last_seqs import LAST_SEQS_DDL
from kodo.registry.store.listing import add_flows, flow_row
from kodo.registry.store.mesh_changes import HEARD_DDL, MESH_DDL
from kodo.registry.store.operators import ADMIN_DDL, MESH_URLS_DDL
from kodo.registry.store.probes import PROBES_DDL
from kodo.registry.store.schema import SCHEMA_VERSION, TABLES, WHOLE

__all__ = ["prepare"]

logger = logging.getLogger(__name__)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file; bring those of an earlier release up to this one.

    Raises:
        UsageError: the file was written by a later release.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"the registry's file has version {version}, this release reads {SCHEMA_VERSION}; upgrade kodo"
        )
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {WHOLE} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        return
    while version < SCHEMA_VERSION:
        logger.info("the registry's file goes from version %d to %d", version, version + 1)
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("BEGIN IMMEDIATE")
        try:
            _STEPS[version](connection)
            connection.execute(f"PRAGMA user_version={version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA foreign_keys=ON")
        version += 1


def _from_1(connection: sqlite3.Connection) -> None:
    """What the mesh needs."""
    _run(connection, MESH_DDL)


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not `executescript`, which commits first.
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


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
    _run(connection, TABLES)
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


def _from_3(connection: sqlite3.Connection) -> None:
    """What operators and probes need."""
    _run(connection, ADMIN_DDL)
    _run(connection, PROBES_DDL)


def _from_4(connection: sqlite3.Connection) -> None:
    """What users need."""
    _run(connection, ACCESS_DDL)
    if not any(row["name"] == "owner" for row in connection.execute("PRAGMA table_info(admitted)")):
        connection.execute("ALTER TABLE admitted ADD COLUMN owner TEXT")


def _from_5(connection: sqlite3.Connection) -> None:
    """The registries that operators add."""
    _run(connection, MESH_URLS_DDL)


def _from_6(connection: sqlite3.Connection) -> None:
    """Who speaks to this registry, and the `seq` of nodes that are gone."""
    _run(connection, HEARD_DDL)
    _run(connection, LAST_SEQS_DDL)


_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
}
