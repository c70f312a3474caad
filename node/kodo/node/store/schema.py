"""The node's database: its tables, and how they came from those of earlier versions.

One SQLite file, whose commits survive the loss of power, and where what is deleted is overwritten. `rid` stands for
a run inside the file: 4 bytes where a fid takes 26, and rising with time.
"""

from __future__ import annotations

from kodo.access import tables
from kodo.access.audit import AUDIT_DDL
from kodo.sqlite.file import DatabaseFile

__all__ = ["NODE_FILE", "SCHEMA_VERSION"]

SCHEMA_VERSION = 10

_SHARES = """CREATE TABLE shares (
    sid TEXT PRIMARY KEY,
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    digest BLOB UNIQUE,
    level INTEGER NOT NULL,
    mode TEXT NOT NULL,
    downloads INTEGER,
    counted INTEGER NOT NULL DEFAULT 0,
    spilled INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER
) STRICT;
CREATE INDEX shares_of ON shares (rid);
CREATE INDEX shares_expire ON shares (expires);

CREATE TABLE share_to (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    PRIMARY KEY (kind, name, sid)
) STRICT, WITHOUT ROWID;
CREATE INDEX share_to_of ON share_to (sid);

CREATE TABLE downloads (
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    peer TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    covered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sid, peer)
) STRICT, WITHOUT ROWID;

CREATE TABLE downloaded (
    sid TEXT NOT NULL,
    peer TEXT NOT NULL,
    name TEXT NOT NULL,
    spans BLOB NOT NULL,
    PRIMARY KEY (sid, peer, name),
    FOREIGN KEY (sid, peer) REFERENCES downloads (sid, peer) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_links (
    digest BLOB PRIMARY KEY,
    reason TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_DEBTS = """CREATE TABLE debts (
    fid TEXT NOT NULL,
    peer_id TEXT NOT NULL,
    reach TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (fid, peer_id)
) STRICT, WITHOUT ROWID;
"""

_SCHEDULES = """CREATE TABLE schedules (
    sid TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    payer TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    inputs BLOB NOT NULL,
    tags BLOB NOT NULL,
    cron TEXT,
    tz TEXT NOT NULL,
    at INTEGER,
    every_s INTEGER,
    missed TEXT NOT NULL,
    overlap TEXT NOT NULL,
    created INTEGER NOT NULL,
    due INTEGER,
    paused INTEGER,
    waits INTEGER NOT NULL,
    last_due INTEGER,
    last_fid TEXT,
    last_reason TEXT,
    launches INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules (due) WHERE due IS NOT NULL;
CREATE INDEX schedules_of ON schedules (principal);
"""

_INVITATIONS = """CREATE TABLE invitations (
    sid TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    payer TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    inputs BLOB NOT NULL,
    note TEXT NOT NULL,
    level INTEGER NOT NULL,
    launches INTEGER NOT NULL,
    see INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER,
    launched INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitations_of ON invitations (principal, sid);
CREATE INDEX invitations_expire ON invitations (expires);
"""

_NOTICES = """CREATE TABLE notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL,
    at INTEGER NOT NULL,
    due INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX notices_due ON notices (target, due, id);
CREATE INDEX notices_of ON notices (target, id);
"""

_SCHEMA = (
    """
CREATE TABLE runs (
    rid INTEGER PRIMARY KEY AUTOINCREMENT,
    fid TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    entry TEXT NOT NULL,
    resources BLOB NOT NULL,
    tags BLOB NOT NULL,
    state TEXT NOT NULL,
    locks BLOB NOT NULL,
    progress BLOB,
    runtime_s REAL,
    handed INTEGER NOT NULL DEFAULT 0,
    killed INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_rseq INTEGER NOT NULL,
    acknowledged INTEGER,
    payer TEXT NOT NULL DEFAULT '',
    max_events INTEGER,
    max_event_bytes INTEGER
) STRICT;
CREATE INDEX runs_of ON runs (principal, rid);
CREATE INDEX runs_of_state ON runs (principal, state, rid);
CREATE INDEX runs_of_path ON runs (principal, path, rid);
CREATE INDEX runs_unfinished ON runs (rid) WHERE state IN ('pending', 'locked');
CREATE INDEX runs_acknowledged ON runs (acknowledged) WHERE acknowledged IS NOT NULL;

CREATE TABLE events (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    rseq INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (rid, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX events_rseq ON events (rid, rseq) WHERE rseq IS NOT NULL;

CREATE TABLE outputs (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    media_type TEXT NOT NULL,
    chunks BLOB NOT NULL,
    PRIMARY KEY (rid, name)
) STRICT;

CREATE TABLE keys (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_at ON keys (at);

CREATE TABLE published (
    path TEXT NOT NULL,
    release TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (path, release)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
    + tables.SCHEMA
    + _SHARES
    + _DEBTS
    + AUDIT_DDL
    + _SCHEDULES
    + _INVITATIONS
    + _NOTICES
)


_UPGRADES = {
    1: """
ALTER TABLE runs ADD COLUMN acknowledged INTEGER;
CREATE INDEX runs_acknowledged ON runs (acknowledged) WHERE acknowledged IS NOT NULL;
""",
    2: tables.SCHEMA,
    3: _SHARES,
    4: _DEBTS,
    5: """
ALTER TABLE runs ADD COLUMN payer TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN max_events INTEGER;
ALTER TABLE runs ADD COLUMN max_event_bytes INTEGER;
""",
    6: AUDIT_DDL,
    7: _SCHEDULES,
    8: _INVITATIONS,
    9: _NOTICES,
}
"""From each earlier schema version to the next."""


NODE_FILE = DatabaseFile(
    name="a database of kodo",
    version=SCHEMA_VERSION,
    schema=_SCHEMA,
    steps=_UPGRADES,
    mark=0x6B6F646F,  # `kodo` in ASCII
    erases=True,
    shrinks=True,
    elsewhere="move it away, or use another KODO_HOME",
)
