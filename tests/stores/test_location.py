"""A store from its URL."""

from __future__ import annotations

import sys
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
        ("postgresql://user:secret@db.example:6432/shop", "postgresql db.example:6432/shop retrysafe"),
        ("postgres://db.example/shop?schema=keys&portable=true", "postgresql db.example:5432/shop keys"),
        ("postgresql://user@/shop?host=/run/pg&sslmode=disable", "postgresql /run/pg:5432/shop retrysafe"),
    ],
)
def test_postgresql(url, name):
    """Its name is where it is, with no user and no password; nothing is connected to yet."""
    assert open_store(url).name == name


@pytest.mark.parametrize("url", ["postgresql://user:secret@host:port/db", "postgresql://host/db?schema=Shop%3B"])
def test_postgresql_that_cannot_be(url):
    """What cannot be connected to is refused at once, and what might be a password is not repeated."""
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_postgresql_names_its_extra(driver, monkeypatch):
    """Without a driver, the message says what to install."""
    for name in [name for name in sys.modules if name.startswith("retrysafe.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigurationError, match=rf"{driver}: pip install 'retrysafe\[postgres\]'"):
        open_store("postgresql://host/db")


def test_memory():
    """Each memory store is its own."""
    assert open_store("memory://").open() != open_store("memory://").open()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle://user:pass@host/db", "oracle"),
        ("postgresql://user:pass@host/db?portable=yes", "portable is true or false"),
        ("postgresql://user:pass@host/db?timeout=3", "unknown: timeout"),
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
