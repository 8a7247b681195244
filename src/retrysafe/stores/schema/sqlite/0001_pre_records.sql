-- How a file is recognised as ours: "rtry" as a number.
PRAGMA application_id = 1920234105;

-- What belongs to the whole store: one row.
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    clock_ms INTEGER NOT NULL,  -- the store's clock: no transition was ever dated later
    secret BLOB,                -- of the key digests; NULL if the operator keeps it
    secret_check BLOB           -- by which the secret is recognised; NULL until one is agreed on
) STRICT;
INSERT INTO meta (only_row, clock_ms) VALUES (1, 0);

-- One row a record. The columns are the attributes of retrysafe.model.Record.
-- A rowid table with an index beside it: new rows go to the end, and it is smaller and faster to
-- load than one ordered by random ids.
CREATE TABLE records (
    record_id BLOB NOT NULL CHECK (length(record_id) = 32),
    state TEXT NOT NULL,
    token BLOB NOT NULL CHECK (length(token) = 16),
    attempt INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    claimed_at_ms INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    settled_at_ms INTEGER,
    expires_at_ms INTEGER,
    forget_at_ms INTEGER NOT NULL,
    response BLOB,
    -- When purging has something to do: at the end of the lifetime while a response is kept.
    due_at_ms INTEGER NOT NULL AS (iif(response IS NULL, forget_at_ms, expires_at_ms)) VIRTUAL
) STRICT;
CREATE UNIQUE INDEX records_by_id ON records (record_id);
CREATE INDEX records_by_due ON records (due_at_ms);
