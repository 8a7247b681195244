-- How many migrations the file has gone through. PRAGMA user_version says which of them code must know: a migration
-- before a deployment only adds, and code that does not know it runs on.
ALTER TABLE meta ADD COLUMN migrations INTEGER NOT NULL DEFAULT 1;

-- For people who look at many records; empty for those of before.
ALTER TABLE records ADD COLUMN route TEXT NOT NULL DEFAULT '';

-- Answers, counted in each process and written in batches: how many were recorded, how many replayed.
CREATE TABLE answers (
    day INTEGER NOT NULL,  -- since 1970, by the store's clock
    route TEXT NOT NULL,
    recorded INTEGER NOT NULL,
    replayed INTEGER NOT NULL,
    PRIMARY KEY (day, route)
) STRICT, WITHOUT ROWID;
