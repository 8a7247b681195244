-- What a later attempt goes on from, sealed; both are NULL again once the record is completed.
ALTER TABLE {schema}.records ADD COLUMN request bytea, ADD COLUMN journal bytea;

-- Those that somebody may have to run again: none but records in progress whose request is kept.
CREATE INDEX records_by_lease ON {schema}.records (lease_until_ms, record_id)
    WHERE request IS NOT NULL AND settled_at_ms IS NULL;

-- What was done with a record and by whom; it outlives the record.
CREATE TABLE {schema}.history (
    record_id bytea NOT NULL,
    place integer NOT NULL,  -- in the history of this id
    added_at_ms bigint NOT NULL,
    forget_at_ms bigint NOT NULL,
    entry bytea NOT NULL,
    PRIMARY KEY (record_id, place)
);
CREATE INDEX history_by_due ON {schema}.history (forget_at_ms);
