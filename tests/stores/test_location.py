"""A store from its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrysafe.errors import ConfigurationError
from retrysafe.stores.location import open_store


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///records.db", "records.db"),
        ("sqlite:///folder/records.db", "folder/records.db"),
        ("sqlite:////srv/shop/records.db", "/srv/shop/records.db"),
        ("sqlite:////srv/my%20shop/r%3Fs.db", "/srv/my shop/r?s.db"),
        ("sqlite:///records.db?force=true", "records.db"),
        ("sqlite:///records.db?force=false", "records.db"),
    ],
)
def test_sqlite(url, path, tmp_path, monkeypatch):
    """Three slashes before a relative path, four before an absolute one; nothing is made yet."""
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert store.name == f"sqlite {Path(tmp_path, path).resolve()}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://127.0.0.1", "redis 127.0.0.1:6379/0"),
        ("redis://user:pass@host:7000/3?prefix=shop&timeout=2s", "redis host:7000/3"),
        ("rediss://:pass@[::1]:7000", "redis [::1]:7000/0"),
        (
            "redis+sentinel://:pass@a,b:7/shop/2?wait=2&sentinel_password=pass",
            "redis shop/2 of the sentinels a:26379,b:7",
        ),
        ("rediss+cluster://a:1,b:2", "redis cluster of a:1,b:2"),
    ],
)
def test_redis(url, name):
    """Servers, sentinels and clusters; nothing is connected to yet, and no password is in the name."""
    assert open_store(url).name == name


def test_memory():
    """Each memory store is its own."""
    assert open_store("memory://").open() != open_store("memory://").open()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:pass@host/db", "postgresql"),
        ("records.db", "no store has the scheme"),
        ("sqlite://records.db", "three slashes"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///records.db?timeout=3", "unknown: timeout"),
        ("sqlite:///records.db?force=true&mode=ro", "unknown: mode"),
        ("sqlite:///records.db?force=yes", "force is true or false"),
        ("sqlite:///records.db#main", "unknown: main"),
        ("memory://name", "has no name"),
        ("memory:///name", "has no name"),
        ("memory://?size=3", "unknown: size"),
        ("redis://:pass@host:6379/shop", "not the number of a database"),
        ("redis://:pass@host/0/1", "not the number of a database"),
        ("redis://", "names no host"),
        ("redis://:pass@one:1,two:2", "several hosts"),
        ("redis://host?evict=true", "unknown: evict"),
        ("redis://host#x", "what follows #"),
        ("redis://host?client=fast", "client is lean or redis-py"),
        ("redis+cluster://host?client=lean", "client=lean is for a single server"),
        ("redis+cluster://host?wait=1", "wait= cannot be had with a cluster"),
        ("redis+cluster://host/1", "a cluster has no numbered databases"),
        ("redis+sentinel://host", "what the sentinels call the primary"),
        ("redis://host?wait=many", "wait is a number of replicas"),
        ("redis://host?wait=1&wait_timeout=9s", "shorter than timeout="),
        ("redis://host?timeout=soon", "timeout: "),
        ("redis://host?prefix=a{b}", "without spaces and braces"),
        ("redis://host?ca=ca.pem", "for rediss://"),
        ("redis://host?i_accept_double_execution=yes", "true or false"),
    ],
)
def test_what_is_no_store_is_refused(url, said):
    """The message says what is wrong and which URLs there are, and repeats no password."""
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)
    assert said in str(refused.value)
    assert ("sqlite:////absolute/path.db" in str(refused.value)) or ("redis+cluster://" in str(refused.value))
    assert "pass" not in str(refused.value)
