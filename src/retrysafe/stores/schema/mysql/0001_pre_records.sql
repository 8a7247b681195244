-- MySQL ends a transaction before and after each statement here, so all of them may be repeated: whoever
-- is interrupted is followed by one that begins anew.

-- What belongs to the whole store: one row.
CREATE TABLE IF NOT EXISTS retrysafe_meta (
    only_row TINYINT NOT NULL PRIMARY KEY,
    migrations INT NOT NULL,      -- how many the database has gone through
    must_know INT NOT NULL,       -- the one that a release has to know to work with it
    secret VARBINARY(255),        -- of the key digests, NULL if the operator keeps it
    secret_check VARBINARY(255)   -- by which the secret is recognised, NULL until one is agreed on
) ENGINE = InnoDB;

INSERT INTO retrysafe_meta (only_row, migrations, must_know) VALUES (1, 0, 0) ON DUPLICATE KEY UPDATE only_row = 1;

-- One row a record. The columns are the attributes of retrysafe.model.Record. Identities are bytes, because
-- a collation would find "abc" where "ABC" was asked for. They are the primary key itself: a duplicate found by a
-- secondary key is locked with the gap before it, and claims that race would meet in deadlocks.
CREATE TABLE IF NOT EXISTS retrysafe_records (
    record_id BINARY(32) NOT NULL PRIMARY KEY,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    token BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    fingerprint VARBINARY(255) NOT NULL,
    created_at_ms BIGINT NOT NULL,
    claimed_at_ms BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    settled_at_ms BIGINT,
    expires_at_ms BIGINT,
    forget_at_ms BIGINT NOT NULL,
    route VARBINARY(1020) NOT NULL,  -- in UTF-8; for people who look at many records
    response LONGBLOB,
    -- When purging has something to do: at the end of the lifetime while a response is kept.
    due_at_ms BIGINT GENERATED ALWAYS AS (IF(response IS NULL, forget_at_ms, expires_at_ms)) STORED,
    KEY retrysafe_records_by_due (due_at_ms)
) ENGINE = InnoDB;

-- Answers, counted in each process and written in batches: how many were recorded, how many replayed.
CREATE TABLE IF NOT EXISTS retrysafe_answers (
    day BIGINT NOT NULL,  -- since 1970, by the clock of the store
    route VARBINARY(1020) NOT NULL,
    recorded BIGINT NOT NULL,
    replayed BIGINT NOT NULL,
    PRIMARY KEY (day, route)
) ENGINE = InnoDB;
