"""A store from its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrysafe.errors import ConfigurationError
from retrysafe.stores.location import open_store, without_password
from retrysafe.stores.mysql import MysqlStore
from retrysafe.stores.mysql_server import Address

_FORM_WITH_PASSWORD = "mysql://user:password@host:port/database"


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
    ("url", "address"),
    [
        ("mysql://shop:pass@db.example/shop", Address("db.example", 3306, "shop", "pass", "shop")),
        ("mysql://shop@db.example:3307/shop", Address("db.example", 3307, "shop", "", "shop")),
        ("mysql://s%40p:p%2F%3Ass@[::1]/my%20shop", Address("::1", 3306, "s@p", "p/:ss", "my shop")),
        ("mysql://shop@db/shop?tls=true", Address("db", 3306, "shop", "", "shop", tls=True)),
        ("mysql://shop@db/shop?tls=true&tls_ca=/ca.pem", Address("db", 3306, "shop", "", "shop", True, "/ca.pem")),
    ],
)
def test_mysql(url, address):
    """User and database are needed, the rest has its default; nothing is connected, and nobody sees the password."""
    store = open_store(url)
    assert store.name == f"mysql {address.host}:{address.port}/{address.database}"
    assert isinstance(store, MysqlStore)
    assert store._dial.args[0] == address
    assert "pass" not in repr(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://shop:pass@db.example", "names no database"),
        ("mysql://shop:pass@db.example/", "names no database"),
        ("mysql://shop:pass@db.example/a/b", "names no database"),
        ("mysql://shop:pass@/shop", "no host"),
        ("mysql://:pass@db.example/shop", "no user"),
        ("mysql://shop:pass@db.example:pass/shop", "its port is no number"),
        ("mysql://shop:pass@db.example:99999/shop", "its port is no number"),
        ("mysql://shop:pass@db.example/shop?tls=yes", "tls is true or false"),
        ("mysql://shop:pass@db.example/shop?tls_ca=ca.pem", "with tls=true"),
        ("mysql://shop:pass@db.example/shop?charset=latin1", "unknown: charset"),
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
    assert "pass" not in str(refused.value).replace(_FORM_WITH_PASSWORD, "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://shop:pass@host/db", "mysql://shop:(hidden)@host/db"),
        ("mysql://shop:p@s:s/w@host:3306/db?tls=true", "mysql://shop:(hidden)@host:3306/db?tls=true"),
        ("redis://:pass@host", "redis://:(hidden)@host"),
        ("postgresql://host/db?user=shop&password=pass&x=1", "postgresql://host/db?user=shop&password=(hidden)&x=1"),
        ("mysql://shop@host:3306/db", "mysql://shop@host:3306/db"),
        ("sqlite:////srv/a:b@c.db", "sqlite:////srv/a:b@c.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    """What a URL has besides a password stays as it is."""
    assert without_password(url) == shown
