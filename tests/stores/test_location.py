"""A store from its URL."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import psycopg
import pytest

from retrysafe.errors import ConfigurationError
from retrysafe.stores.location import open_store
from retrysafe.stores.mysql import MysqlStore
from retrysafe.stores.mysql_server import Address
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.url import without_password


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
    with pytest.raises(ConfigurationError, match=rf'{driver}: pip install "retrysafe\[postgres\]"'):
        open_store("postgresql://host/db")


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://Keys_of.shop-1",
        "dynamodb://Keys_of.shop-1?region=eu-central-1&create=false",
        "dynamodb://Keys_of.shop-1?endpoint_url=http://127.0.0.1:9",
    ],
)
def test_dynamodb(url):
    """The name of a table keeps its case; nothing is asked yet, so a service that is not there is no matter."""
    assert open_store(url).name == "dynamodb Keys_of.shop-1"


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
        ("dynamodb://", "names one table"),
        ("dynamodb://keys/more", "names one table"),
        ("dynamodb://id:pass@keys", "boto3 takes credentials from its own places"),
        ("dynamodb://keys?endpoint_url=http://id:pass@127.0.0.1:9", "endpoint_url has credentials in it"),
        ("dynamodb://keys?create=no", "create is true or false"),
        ("dynamodb://keys?regoin=eu-central-1", "unknown: regoin"),
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


@pytest.mark.parametrize(
    "password", ["a/w1", "1/w1", "a?w1", "1?w1=w1", "a#w1", "1#w1", "a[w1", "a@w1", "a\u2100w1", "w1"]
)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "redis", "rediss", "redis+cluster", "redis+sentinel"])
def test_a_password_that_is_not_escaped_is_not_repeated(scheme, password):
    """Whatever is in it, and wherever a URL puts it then: neither the refusal nor the store's name has a part of it."""
    try:
        said = open_store(f"{scheme}://shop:{password}@db.example/shop").name
    except ConfigurationError as refused:
        said = "".join(traceback.format_exception(refused))
    assert "w1" not in said


def test_options_of_libpq_reach_it_as_they_were():
    """A space in the path of a certificate stays one: libpq takes no `+` for it."""
    store = open_store("postgresql://host/db?sslmode=verify-full&sslrootcert=/my%20cas/a%2Bb%26c.pem&portable=true")
    assert isinstance(store, PostgresStore)
    assert psycopg.conninfo.conninfo_to_dict(store._place.url)["sslrootcert"] == "/my cas/a+b&c.pem"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://shop:pass@host/db", "mysql://shop:(hidden)@host/db"),
        ("mysql://shop:p@s:s/w@host:3306/db?tls=true", "mysql://shop:(hidden)@host:3306/db?tls=true"),
        ("mysql://shop@corp:pass@host/db", "mysql://shop@corp:(hidden)@host/db"),
        ("mysql://shop:pass\nword@host/db", "mysql://shop:(hidden)@host/db"),
        ("redis://:pass@host", "redis://:(hidden)@host"),
        (
            "rediss+sentinel://u:pass@a,b:1/main?SENTINEL_PASSWORD=pass",
            "rediss+sentinel://u:(hidden)@a,b:1/main?SENTINEL_PASSWORD=(hidden)",
        ),
        ("postgresql://host/db?user=shop&password=pass&x=1", "postgresql://host/db?user=shop&password=(hidden)&x=1"),
        ("mysql://shop@host:3306/db", "mysql://shop@host:3306/db"),
        ("sqlite:////srv/a:b@c.db", "sqlite:////srv/a:b@c.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    """What a URL has besides a password stays as it is."""
    assert without_password(url) == shown
