PRAGMA application_id=1802462319;
PRAGMA user_version=6;
BEGIN TRANSACTION;
CREATE TABLE access_codes (
    peer_id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    proof BLOB NOT NULL,
    tries INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE access_role_grants (
    holder TEXT NOT NULL REFERENCES access_roles (name) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (holder, permission)
) STRICT, WITHOUT ROWID;
INSERT INTO "access_role_grants" VALUES('developer','node://*');
INSERT INTO "access_role_grants" VALUES('developer','registry://*/r');
INSERT INTO "access_role_grants" VALUES('operator','flow://*/2/x');
INSERT INTO "access_role_grants" VALUES('operator','node://*');
INSERT INTO "access_role_grants" VALUES('operator','registry://*/w');
INSERT INTO "access_role_grants" VALUES('user','flow://*/2/x');
INSERT INTO "access_role_grants" VALUES('user','node://*');
INSERT INTO "access_role_grants" VALUES('user','registry://*/r');
CREATE TABLE access_roles (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO "access_roles" VALUES('developer');
INSERT INTO "access_roles" VALUES('operator');
INSERT INTO "access_roles" VALUES('user');
CREATE TABLE access_tokens (
    hash BLOB PRIMARY KEY,
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    peer_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE access_user_grants (
    holder TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (holder, permission)
) STRICT, WITHOUT ROWID;
CREATE TABLE access_user_roles (
    user TEXT NOT NULL REFERENCES access_users (name) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (user, role)
) STRICT, WITHOUT ROWID;
INSERT INTO "access_user_roles" VALUES('ana','operator');
INSERT INTO "access_user_roles" VALUES('ana','user');
CREATE TABLE access_users (
    name TEXT PRIMARY KEY,
    password TEXT,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "access_users" VALUES('ana',NULL,1700000000000);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE dead_links (
    digest BLOB PRIMARY KEY,
    reason TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE debts (
    fid TEXT NOT NULL,
    peer_id TEXT NOT NULL,
    reach TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (fid, peer_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE downloaded (
    sid TEXT NOT NULL,
    peer TEXT NOT NULL,
    name TEXT NOT NULL,
    spans BLOB NOT NULL,
    PRIMARY KEY (sid, peer, name),
    FOREIGN KEY (sid, peer) REFERENCES downloads (sid, peer) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE downloads (
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    peer TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    covered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sid, peer)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    rseq INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (rid, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES(1,1,1700000000000,'version',NULL,X'81A46B6F646FA5302E312E30');
INSERT INTO "events" VALUES(1,2,1700000000000,'flow',NULL,X'81A470617468B7666C6F77732E6D61726B65742E436F6D70657469746F72');
INSERT INTO "events" VALUES(1,3,1700000000000,'inputs',NULL,X'81A5746F706963A562696B6573');
INSERT INTO "events" VALUES(1,4,1700000000000,'output',1,X'84A46E616D65A97265706F72742E6D64A473697A6505A6736861323536D94030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030AA6D656469615F74797065AD746578742F6D61726B646F776E');
INSERT INTO "events" VALUES(1,5,1700000000000,'final',2,X'83A6726573756C74A62320446F6E65A772756E74696D65A3322073A972756E74696D655F73CB4000000000000000');
INSERT INTO "events" VALUES(2,1,1700000000000,'version',NULL,X'81A46B6F646FA5302E312E30');
INSERT INTO "events" VALUES(2,2,1700000000000,'flow',NULL,X'81A470617468B7666C6F77732E6D61726B65742E436F6D70657469746F72');
INSERT INTO "events" VALUES(2,3,1700000000000,'inputs',NULL,X'81A5746F706963A562696B6573');
INSERT INTO "events" VALUES(2,4,1700000000000,'log',1,X'81A474657874A5626567756E');
CREATE TABLE keys (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE outputs (
    rid INTEGER NOT NULL REFERENCES runs (rid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    media_type TEXT NOT NULL,
    chunks BLOB NOT NULL,
    PRIMARY KEY (rid, name)
) STRICT;
INSERT INTO "outputs" VALUES(1,'report.md',5,X'2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824','text/markdown',X'2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824');
CREATE TABLE published (
    path TEXT NOT NULL,
    release TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (path, release)
) STRICT, WITHOUT ROWID;
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
INSERT INTO "runs" VALUES(1,'00000000000000000000000001','ana','flows.market.Competitor','Competitor','flows.market:competitor',X'80',X'91A66D61726B6574','done',X'90',NULL,2.0,0,0,1700000000000,1700000000000,5,2,NULL,'',NULL,NULL);
INSERT INTO "runs" VALUES(2,'00000000000000000000000002','ben','flows.market.Competitor','Competitor','flows.market:competitor',X'80',X'91A66D61726B6574','pending',X'90',NULL,NULL,0,0,1700000000000,1700000000000,4,1,NULL,'',NULL,NULL);
CREATE TABLE share_to (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    sid TEXT NOT NULL REFERENCES shares (sid) ON DELETE CASCADE,
    PRIMARY KEY (kind, name, sid)
) STRICT, WITHOUT ROWID;
CREATE TABLE shares (
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
CREATE INDEX runs_of ON runs (principal, rid);
CREATE INDEX runs_of_state ON runs (principal, state, rid);
CREATE INDEX runs_of_path ON runs (principal, path, rid);
CREATE INDEX runs_unfinished ON runs (rid) WHERE state IN ('pending', 'locked');
CREATE INDEX runs_acknowledged ON runs (acknowledged) WHERE acknowledged IS NOT NULL;
CREATE UNIQUE INDEX events_rseq ON events (rid, rseq) WHERE rseq IS NOT NULL;
CREATE INDEX keys_at ON keys (at);
CREATE INDEX access_tokens_of ON access_tokens (user, created);
CREATE INDEX shares_of ON shares (rid);
CREATE INDEX shares_expire ON shares (expires);
CREATE INDEX share_to_of ON share_to (sid);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',2);
COMMIT;
