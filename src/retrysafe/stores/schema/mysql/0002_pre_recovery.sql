-- As before, all statements may be repeated. These servers share no way to add a column only if it is not there, so
-- it is looked for; all that is added comes with the one statement, or not at all.

-- What a later attempt goes on from, sealed; both are NULL again once the record is completed. And those that
-- somebody may have to run again: none but records in progress whose request is kept.
SET @retrysafe_step = IF(
    EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'retrysafe_records' AND column_name = 'request'
    ),
    'DO 0',
    'ALTER TABLE retrysafe_records
        ADD COLUMN request LONGBLOB,
        ADD COLUMN journal LONGBLOB,
        ADD COLUMN abandoned_from_ms BIGINT
            GENERATED ALWAYS AS (IF(request IS NULL OR settled_at_ms IS NOT NULL, NULL, lease_until_ms)) STORED,
        ADD KEY retrysafe_records_by_lease (abandoned_from_ms, record_id)'
);
PREPARE retrysafe_step FROM @retrysafe_step;
EXECUTE retrysafe_step;
DEALLOCATE PREPARE retrysafe_step;

-- What was done with a record and by whom; it outlives the record.
CREATE TABLE IF NOT EXISTS retrysafe_history (
    place BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    record_id BINARY(32) NOT NULL,
    added_at_ms BIGINT NOT NULL,
    forget_at_ms BIGINT NOT NULL,
    entry BLOB NOT NULL,
    KEY retrysafe_history_by_record (record_id),
    KEY retrysafe_history_by_due (forget_at_ms)
) ENGINE = InnoDB;
