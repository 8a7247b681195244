-- What a later attempt goes on from, sealed; both are NULL again once the record is completed.
ALTER TABLE records ADD COLUMN request BLOB;
ALTER TABLE records ADD COLUMN journal BLOB;

-- Those that somebody may have to run again: none but records in progress whose request is kept.
CREATE INDEX records_by_lease ON records (lease_until_ms, record_id)
    WHERE request IS NOT NULL AND settled_at_ms IS NULL;

-- What was done with a record and by whom; it outlives the record.
CREATE TABLE history (
    place INTEGER PRIMARY KEY,
    record_id BLOB NOT NULL,
    added_at_ms INTEGER NOT NULL,
    forget_at_ms INTEGER NOT NULL,
    entry BLOB NOT NULL
) STRICT;
CREATE INDEX history_by_record ON history (record_id);
CREATE INDEX history_by_due ON history (forget_at_ms);
