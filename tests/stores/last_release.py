"""The SQL of the release before the second step of the schema, word for word. It never changes."""

STATEMENTS = {
    "RECORD": (
        "SELECT state, token, attempt, fingerprint, created_at_ms, claimed_at_ms, lease_until_ms, "
        "settled_at_ms, expires_at_ms, forget_at_ms, response FROM records WHERE record_id = :record_id"
    ),
    "CLAIM": (
        "INSERT INTO records (record_id, state, token, attempt, fingerprint, created_at_ms, "
        "claimed_at_ms, lease_until_ms, forget_at_ms) VALUES (:record_id, 'in_progress', :token, 1, "
        ":fingerprint, :now_ms, :now_ms, :now_ms + :lease_ms, :now_ms + :lease_ms + :forget_after_ms) ON "
        "CONFLICT (record_id) DO NOTHING"
    ),
    "PURGE_FORGET": (
        "DELETE FROM records WHERE record_id IN (SELECT record_id FROM records WHERE due_at_ms <= :now_ms "
        "ORDER BY due_at_ms LIMIT :batch_max) AND forget_at_ms <= :now_ms AND state IN ('completed', "
        "'retryable', 'unknown', 'expired')"
    ),
    "PURGE_EXPIRE": (
        "UPDATE records SET state = 'expired', response = NULL WHERE record_id IN (SELECT record_id FROM "
        "records WHERE due_at_ms <= :now_ms ORDER BY due_at_ms LIMIT :batch_max) AND expires_at_ms <= "
        ":now_ms AND forget_at_ms > :now_ms AND state IN ('completed')"
    ),
    "PURGE_ABANDON": (
        "UPDATE records SET state = 'unknown', settled_at_ms = :now_ms WHERE record_id IN (SELECT "
        "record_id FROM records WHERE due_at_ms <= :now_ms ORDER BY due_at_ms LIMIT :batch_max) AND "
        "lease_until_ms <= :now_ms AND forget_at_ms <= :now_ms AND state IN ('in_progress')"
    ),
    "DUE": ("SELECT 1 FROM records WHERE due_at_ms <= :now_ms LIMIT 1"),
    "TICK": ("UPDATE meta SET clock_ms = max(clock_ms, :now_ms) RETURNING clock_ms"),
    "CLOCK": ("SELECT clock_ms FROM meta"),
    "SECRET": ("SELECT secret, secret_check FROM meta"),
    "KEEP_SECRET": ("UPDATE meta SET secret = :secret, secret_check = :secret_check"),
    "TakeOverIfLapsed": (
        "UPDATE records SET state = 'in_progress', token = :token, attempt = attempt + 1, claimed_at_ms = "
        ":now_ms, settled_at_ms = NULL, lease_until_ms = :now_ms + :lease_ms, forget_at_ms = :now_ms + "
        ":lease_ms + :forget_after_ms WHERE record_id = :record_id AND token = :seen_token AND "
        "lease_until_ms <= :now_ms AND state IN ('in_progress')"
    ),
    "ClaimIfRetryable": (
        "UPDATE records SET state = 'in_progress', token = :token, attempt = attempt + 1, claimed_at_ms = "
        ":now_ms, settled_at_ms = NULL, lease_until_ms = :now_ms + :lease_ms, forget_at_ms = :now_ms + "
        ":lease_ms + :forget_after_ms WHERE record_id = :record_id AND token = :seen_token AND state IN "
        "('retryable')"
    ),
    "RenewIfHeld": (
        "UPDATE records SET state = 'in_progress', lease_until_ms = :now_ms + :lease_ms, forget_at_ms = "
        ":now_ms + :lease_ms + :forget_after_ms WHERE record_id = :record_id AND token = :token AND state "
        "IN ('in_progress')"
    ),
    "CompleteIfHeld": (
        "UPDATE records SET state = 'completed', response = :response, settled_at_ms = :now_ms, "
        "expires_at_ms = :now_ms + :lifetime_ms, forget_at_ms = :now_ms + :lifetime_ms + :forget_after_ms "
        "WHERE record_id = :record_id AND token = :token AND state IN ('in_progress', 'unknown')"
    ),
    "ReleaseIfHeld": (
        "UPDATE records SET state = 'retryable', settled_at_ms = :now_ms, forget_at_ms = :now_ms + "
        ":forget_after_ms WHERE record_id = :record_id AND token = :token AND state IN ('in_progress', "
        "'unknown')"
    ),
    "DiscardIfHeld": (
        "DELETE FROM records WHERE record_id = :record_id AND token = :token AND state IN ('in_progress', 'unknown')"
    ),
    "MarkUnknownIfHeld": (
        "UPDATE records SET state = 'unknown', settled_at_ms = :now_ms, forget_at_ms = :now_ms + "
        ":forget_after_ms WHERE record_id = :record_id AND token = :token AND state IN ('in_progress')"
    ),
    "MarkUnknownIfLapsed": (
        "UPDATE records SET state = 'unknown', settled_at_ms = :now_ms, forget_at_ms = :now_ms + "
        ":forget_after_ms WHERE record_id = :record_id AND token = :seen_token AND lease_until_ms <= "
        ":now_ms AND state IN ('in_progress')"
    ),
    "ForgetIfOver": (
        "DELETE FROM records WHERE record_id = :record_id AND token = :seen_token AND forget_at_ms <= "
        ":now_ms AND state IN ('completed', 'retryable', 'unknown', 'expired')"
    ),
}
