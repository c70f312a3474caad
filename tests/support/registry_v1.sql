CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    peer_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    k_name TEXT NOT NULL,           -- folded, to search and sort by
    addrs TEXT NOT NULL,            -- JSON array
    seq INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,     -- ms UTC, the node's clock
    expires_at INTEGER NOT NULL,
    signed BLOB NOT NULL,           -- the record as it came
    flows INTEGER NOT NULL,         -- how many are listed
    seen_at INTEGER NOT NULL,       -- ms UTC, this clock: its last heartbeat or new record
    beat_at INTEGER,                -- `at` of the last heartbeat under this seq, the node's clock
    beat_seen_at INTEGER,           -- when that came, this clock
    ping TEXT,                      -- JSON object
    left_at INTEGER,                -- when it said goodbye
    left_seq INTEGER NOT NULL DEFAULT 0,
    goodbye BLOB                    -- as it came
) STRICT;
CREATE INDEX nodes_name ON nodes (k_name);

CREATE TABLE names (
    k_name TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX names_peer ON names (peer_id);

CREATE TABLE flows (
    id INTEGER PRIMARY KEY,
    node_id INTEGER NOT NULL REFERENCES nodes (id),
    path TEXT NOT NULL,
    published INTEGER NOT NULL,
    release TEXT NOT NULL,
    data TEXT NOT NULL,             -- JSON object, the fields of the record
    k_node TEXT NOT NULL,
    k_name TEXT NOT NULL,
    k_description TEXT NOT NULL,
    k_author TEXT NOT NULL,
    k_organization TEXT NOT NULL,
    k_tags TEXT NOT NULL,           -- JSON array
    UNIQUE (node_id, path)
) STRICT;
CREATE INDEX flows_path ON flows (path);
CREATE INDEX flows_published ON flows (published);
CREATE INDEX flows_node ON flows (k_node);
CREATE INDEX flows_name ON flows (k_name);
CREATE INDEX flows_author ON flows (k_author);
CREATE INDEX flows_organization ON flows (k_organization);

CREATE VIRTUAL TABLE flow_text USING fts5(
    k_node, k_name, k_description, k_author, k_organization, k_tags,
    content='flows', content_rowid='id', tokenize='trigram'
);
CREATE TRIGGER flows_inserted AFTER INSERT ON flows BEGIN
    INSERT INTO flow_text (rowid, k_node, k_name, k_description, k_author, k_organization, k_tags)
    VALUES (new.id, new.k_node, new.k_name, new.k_description, new.k_author, new.k_organization, new.k_tags);
END;
CREATE TRIGGER flows_deleted AFTER DELETE ON flows BEGIN
    INSERT INTO flow_text (flow_text, rowid, k_node, k_name, k_description, k_author, k_organization, k_tags)
    VALUES ('delete', old.id, old.k_node, old.k_name, old.k_description, old.k_author, old.k_organization,
            old.k_tags);
END;
