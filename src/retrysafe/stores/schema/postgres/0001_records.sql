-- oldest: 1
-- {schema} stands for the schema of the store, quoted.

-- What belongs to the whole store: one row.
CREATE TABLE {schema}.meta (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    version integer NOT NULL,  -- how many of these scripts the schema has gone through
    oldest integer NOT NULL,   -- the fewest that a release has to know to work with it
    secret bytea,              -- of the key digests; NULL if the operator keeps it
    secret_check bytea         -- by which the secret is recognised; NULL until one is agreed on
);
INSERT INTO {schema}.meta (only_row, version, oldest) VALUES (1, 0, 0);

-- One row a record. The columns are the attributes of retrysafe.model.Record; those of fixed size come first,
-- so that nothing is lost to alignment.
CREATE TABLE {schema}.records (
    created_at_ms bigint NOT NULL,
    claimed_at_ms bigint NOT NULL,
    lease_until_ms bigint NOT NULL,
    settled_at_ms bigint,
    expires_at_ms bigint,
    forget_at_ms bigint NOT NULL,
    attempt integer NOT NULL,
    record_id bytea NOT NULL CHECK (length(record_id) = 32),
    token bytea NOT NULL CHECK (length(token) = 16),
    state text NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea,
    PRIMARY KEY (record_id)
);

-- When purging has something to do: at the end of the lifetime while a response is kept.
CREATE INDEX records_by_due ON {schema}.records
    ((CASE WHEN response IS NULL THEN forget_at_ms ELSE expires_at_ms END));
