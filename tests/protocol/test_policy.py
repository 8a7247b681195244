from __future__ import annotations

import dataclasses

import pytest

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.policy import METHODS_NEVER, OPTIONS, Policy

DAY_MS = 86_400_000


def test_the_defaults_are_the_documented_ones():
    """A policy of which nothing is said is valid, and means this."""
    policy = Policy()
    assert (policy.required, policy.methods, policy.header, policy.key_syntax) == (
        False, ("POST", "PATCH"), "Idempotency-Key", "both",
    )  # fmt: skip
    assert (policy.key_length_min, policy.key_length_max) == (1, 255)
    assert (policy.lease_ms, policy.execution_max_ms) == (60_000, 900_000)
    assert (policy.lifetime_ms, policy.tombstone_ms, policy.unknown_retention_ms) == (DAY_MS, 30 * DAY_MS, 30 * DAY_MS)
    assert (policy.fingerprint, policy.recovery, policy.on_receipt) == ("full", "manual", "refuse")
    assert (policy.request_bytes_max, policy.response_bytes_max) == (16 << 20, 1 << 20)


FAULTS = [
    ("required", "yes"),
    ("required", 1),
    ("transactional", "yes"),
    ("methods", ()),
    ("methods", "POST"),
    ("methods", ("post",)),
    ("methods", ("PO ST",)),
    ("methods", (1,)),
    *(("methods", ("POST", method)) for method in sorted(METHODS_NEVER)),
    ("header", ""),
    ("header", "Idempotency Key"),
    ("header", "Idempotency-Key\r\n"),
    ("header", None),
    ("replay_marker", "a:b"),
    ("key_syntax", "strict"),
    ("key_syntax", None),
    ("fingerprint", "body"),
    ("recovery", "resume"),
    ("on_receipt", "replay"),
    ("store_body", "some"),
    ("in_flight", "queue"),
    ("wait", "0s"),
    ("wait", "2h"),
    ("key_length_min", 0),
    ("key_length_min", True),
    ("key_length_max", 1_025),
    ("key_length_max", "255"),
    ("request_bytes_max", -1),
    ("response_bytes_max", 1.5),
    ("lease", "10ms"),
    ("lease", "2d"),
    ("lease", 60),
    ("lease", "soon"),
    ("lease", "9" * 400 + "s"),
    ("lifetime", "0s"),
    ("lifetime", "400d"),
    ("tombstone", "-1d"),
    ("unknown_retention", "1ms"),
    ("execution_max", "30d"),
    ("fingerprint_headers", "X-Version"),
    ("fingerprint_headers", ("X Version",)),
    ("fingerprint_headers", ("",)),
    ("fingerprint_query_except", (b"sig",)),
    ("fingerprint_json_only", ("amount",)),
    ("fingerprint_json_only", ("/a~2b",)),
    ("fingerprint_json_except", ("",)),
    ("fingerprint_json_except", ("/a", "b")),
    ("problems_url", "retrysafe.dev/problems/"),
    ("problems_url", "https://retrysafe.dev/problems"),
    ("problems_url", None),
    ("classify", "record"),
]


@pytest.mark.parametrize(("name", "value"), FAULTS, ids=str)
def test_a_fault_names_the_setting(name, value):
    """One sentence, which names the setting; the policy does not come into being."""
    with pytest.raises(ConfigurationError) as raised:
        Policy(**{name: value})
    assert len(raised.value.faults) == 1
    assert raised.value.faults[0].startswith(f"policy.{name}")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"key_length_min": 100, "key_length_max": 36}, ("key_length_min", "key_length_max")),
        ({"lease": "1h"}, ("execution_max", "lease")),
        ({"store_body": "redacted"}, ("store_body", "store_body_redact")),
        ({"store_body_redact": ("/a",)}, ("store_body", "store_body_redact")),
        ({"store_body": "none", "store_body_redact": ("/a",)}, ("store_body", "store_body_redact")),
        ({"fingerprint_json_only": ("/a",), "fingerprint_json_except": ("/b",)}, ("json_only", "json_except")),
    ],
)
def test_settings_that_contradict_each_other(options, names):
    """Each is possible, both are not: the message names both."""
    with pytest.raises(ConfigurationError) as raised:
        Policy(**options)
    assert len(raised.value.faults) == 1
    assert all(name in raised.value.faults[0] for name in names)


def test_every_fault_is_told_at_once():
    """Whoever mends a configuration is not sent back for each mistake."""
    with pytest.raises(ConfigurationError) as raised:
        Policy(required="no", key_syntax="x", lease="x", key_length_max=0, header="")  # type: ignore[arg-type]  # wrong on purpose
    assert {fault.split()[0].rstrip(":") for fault in raised.value.faults} == {
        "policy.required", "policy.key_syntax", "policy.lease", "policy.key_length_max", "policy.header",
    }  # fmt: skip


def test_lists_of_a_configuration_file():
    """TOML has lists and no tuples; a policy has values that do not change."""
    assert Policy(methods=["PUT"]).methods == ("PUT",)  # type: ignore[arg-type]  # as TOML gives it
    assert Policy(fingerprint_headers=["X-A"]) == Policy(fingerprint_headers=("X-A",))  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize(
    ("options", "keep_ms"),
    [
        ({}, DAY_MS),
        ({"tombstone": "0s"}, DAY_MS + DAY_MS // 10),
        ({"tombstone": "0s", "lifetime": "1m"}, 60_000 + 300_000),
    ],
)
def test_without_tombstones_a_record_is_kept_a_little_longer(options, keep_ms):
    """A retry that was sent just inside the lifetime finds the record."""
    assert Policy(**options).keep_ms == keep_ms


def test_what_commits_with_its_record_may_run_again():
    """The owner is gone, and with it everything that it had not committed (R44)."""
    assert Policy(transactional=True).recovery == "rerun"
    assert Policy(transactional=True, recovery="manual") == Policy(transactional=True)


def test_a_policy_is_a_value():
    """It cannot be changed, equals another of the same settings, and can be varied."""
    policy = Policy(lease="30s")
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.lease = "1s"  # type: ignore[misc]  # wrong on purpose
    assert policy == Policy(lease="30s") != Policy()
    assert hash(policy) == hash(Policy(lease="30s"))
    assert dataclasses.replace(policy, lease="10s").lease_ms == 10_000


def test_options_are_what_a_user_may_set():
    """Every one can be given, none that is computed."""
    assert "lease" in OPTIONS
    assert "lease_ms" not in OPTIONS
    assert Policy(**{name: getattr(Policy(), name) for name in OPTIONS}) == Policy()
