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
        ("dynamodb://", "names one table"),
        ("dynamodb://keys/more", "names one table"),
        ("dynamodb://id:pass@keys", "boto3 takes credentials from its own places"),
        ("dynamodb://keys?endpoint_url=http://id:pass@127.0.0.1:9", "endpoint_url has credentials in it"),
        ("dynamodb://keys?create=no", "create is true or false"),
        ("dynamodb://keys?regoin=eu-central-1", "unknown: regoin"),
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
