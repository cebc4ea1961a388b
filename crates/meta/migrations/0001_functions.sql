-- Functions, versions, aliases and snapshots.
--
-- A row of `versions` holds the whole record as JSON (`record`, read as `format` says) and, beside it, only those
-- columns that queries need. Version 0 is $LATEST.

CREATE TABLE counters (
    -- Outlives its function: version numbers are never used twice, not even after delete and create.
    function     TEXT PRIMARY KEY NOT NULL,
    next_version INTEGER NOT NULL
) STRICT;

CREATE TABLE functions (
    name   TEXT PRIMARY KEY NOT NULL,
    extras TEXT NOT NULL
) STRICT;

CREATE TABLE versions (
    function    TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    revision_id TEXT NOT NULL,
    code_sha256 TEXT NOT NULL,
    code_bytes  INTEGER NOT NULL,
    unfinished  INTEGER NOT NULL,
    format      INTEGER NOT NULL,
    record      TEXT NOT NULL,
    PRIMARY KEY (function, version)
) STRICT;

CREATE INDEX versions_by_code ON versions (code_sha256);
CREATE INDEX versions_unfinished ON versions (function, version) WHERE unfinished = 1;

CREATE TABLE aliases (
    function    TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    second      INTEGER,
    revision_id TEXT NOT NULL,
    format      INTEGER NOT NULL,
    record      TEXT NOT NULL,
    PRIMARY KEY (function, name)
) STRICT;

CREATE TABLE snapshots (
    id       TEXT PRIMARY KEY NOT NULL,
    function TEXT NOT NULL,
    version  INTEGER NOT NULL,
    state    TEXT NOT NULL,
    measures TEXT,
    FOREIGN KEY (function, version) REFERENCES versions (function, version) ON DELETE CASCADE
) STRICT;

CREATE INDEX snapshots_by_version ON snapshots (function, version);
