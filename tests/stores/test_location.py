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
    ],
)
def test_what_is_no_store_is_refused(url, said):
    """The message says what is wrong and which URLs there are, and repeats no password."""
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)
    assert said in str(refused.value)
    assert "memory://, sqlite:///relative.db, sqlite:////absolute/path.db" in str(refused.value)
    assert "pass" not in str(refused.value)
