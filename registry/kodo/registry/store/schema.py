"""The registry's tables; those that other modules of the store keep stand beside what uses them."""

from __future__ import annotations

from kodo.access.tables import SCHEMA as ACCESS_DDL
from kodo.registry.store.last_seqs import LAST_SEQS_DDL
from kodo.registry.store.mesh_changes import HEARD_DDL, MESH_DDL
from kodo.registry.store.operators import ADMIN_DDL, MESH_URLS_DDL
from kodo.registry.store.probes import PROBES_DDL

__all__ = ["TABLES", "WHOLE"]

TABLES = """
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    peer_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    k_name TEXT NOT NULL,           -- folded, to search and sort by
    addrs TEXT NOT NULL,            -- JSON array
    seq INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,     -- ms UTC, the node's clock
    expires_at INTEGER NOT NULL,
    flows INTEGER NOT NULL,         -- how many are listed
    seen_at INTEGER NOT NULL,       -- ms UTC, this clock: its last heartbeat or new record
    beat_at INTEGER,                -- `at` of the last heartbeat under this seq, the node's clock
    beat_seen_at INTEGER,           -- when that came, this clock
    ping TEXT,                      -- JSON object
    left_at INTEGER,                -- when it said goodbye
    left_seq INTEGER NOT NULL DEFAULT 0,
    online INTEGER,                 -- 1 online, 0 unknown, NULL offline
    changes_at INTEGER,             -- when silence changes `online`; NULL never
    tags TEXT NOT NULL DEFAULT '[]',
    description TEXT,
    availability REAL,
    performance REAL,
    hidden INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX nodes_name ON nodes (k_name);
CREATE INDEX nodes_seen ON nodes (seen_at);
CREATE INDEX nodes_online ON nodes (online DESC, k_name);
CREATE INDEX nodes_changes ON nodes (changes_at) WHERE changes_at IS NOT NULL;
CREATE INDEX nodes_availability ON nodes (availability);
CREATE INDEX nodes_performance ON nodes (performance);
CREATE INDEX nodes_flows ON nodes (flows);

CREATE TABLE records (
    node_id INTEGER PRIMARY KEY REFERENCES nodes (id),
    signed BLOB NOT NULL,           -- as it came
    goodbye BLOB                    -- as it came
) STRICT;

CREATE TABLE IF NOT EXISTS names (
    k_name TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_peer ON names (peer_id);

CREATE TABLE flows (
    id INTEGER PRIMARY KEY,
    node_id INTEGER NOT NULL REFERENCES nodes (id),
    path TEXT NOT NULL,
    name TEXT NOT NULL,             -- this and what follows: the node's words, an admin's in their place
    source TEXT NOT NULL,
    description TEXT NOT NULL,
    author TEXT NOT NULL,
    organization TEXT NOT NULL,
    published INTEGER NOT NULL,
    release TEXT NOT NULL,
    tags TEXT NOT NULL,             -- JSON array
    inputs_schema_sha256 TEXT NOT NULL,
    requests_per_hour REAL,
    completions_per_hour REAL,
    hidden INTEGER NOT NULL DEFAULT 0,
    k_name TEXT NOT NULL,
    k_author TEXT NOT NULL,
    k_organization TEXT NOT NULL,
    k_description TEXT,             -- NULL where SQLite's lower() gives the same
    k_tags TEXT,                    -- JSON array; NULL as above
    UNIQUE (node_id, path)
) STRICT;
CREATE INDEX flows_path ON flows (path);
CREATE INDEX flows_published ON flows (published);
CREATE INDEX flows_release ON flows (release);
CREATE INDEX flows_name ON flows (k_name);
CREATE INDEX flows_author ON flows (k_author);
CREATE INDEX flows_organization ON flows (k_organization);

-- Without a copy of the texts: what is taken out has to be named as it was put in.
CREATE VIRTUAL TABLE flow_text USING fts5(
    k_node, k_name, k_description, k_author, k_organization, k_tags,
    content='', columnsize=0, tokenize='trigram case_sensitive 1'
);
CREATE VIRTUAL TABLE flow_terms USING fts5vocab(flow_text, 'row');

CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    nodes INTEGER NOT NULL,
    flows INTEGER NOT NULL,
    hidden_nodes INTEGER NOT NULL,
    hidden_flows INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0, 0);

CREATE TABLE notes (
    peer_id TEXT NOT NULL,
    path TEXT NOT NULL,             -- of a flow; '' for the node itself
    data TEXT NOT NULL,             -- JSON object, what an admin says
    PRIMARY KEY (peer_id, path)
) STRICT, WITHOUT ROWID;
"""

WHOLE = TABLES + MESH_DDL + ADMIN_DDL + PROBES_DDL + ACCESS_DDL + MESH_URLS_DDL + HEARD_DDL + LAST_SEQS_DDL
"""All of a new file."""
