-- What belongs to the whole store: one row.
CREATE TABLE {schema}.meta (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    migrations integer NOT NULL,  -- how many the schema has gone through
    must_know integer NOT NULL,   -- the one that a release has to know to work with it
    secret bytea,                 -- of the key digests; NULL if the operator keeps it
    secret_check bytea            -- by which the secret is recognised; NULL until one is agreed on
);
INSERT INTO {schema}.meta (only_row, migrations, must_know) VALUES (1, 0, 0);

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
    route text NOT NULL,  -- for people who look at many records
    response bytea,
    PRIMARY KEY (record_id)
);

-- When purging has something to do: at the end of the lifetime while a response is kept.
CREATE INDEX records_by_due ON {schema}.records
    ((CASE WHEN response IS NULL THEN forget_at_ms ELSE expires_at_ms END));

-- Answers, counted in each process and written in batches: how many were recorded, how many replayed.
CREATE TABLE {schema}.answers (
    day bigint NOT NULL,  -- since 1970, by the store's clock
    route text NOT NULL,
    recorded bigint NOT NULL,
    replayed bigint NOT NULL,
    PRIMARY KEY (day, route)
);
