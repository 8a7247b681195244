"""Whose key it is."""

from types import SimpleNamespace

import pytest

from retrysafe import ConfigurationError
from retrysafe.server.scope import resolver


def connection(*headers, **more):
    return {"type": "http", "headers": list(headers), **more}


@pytest.mark.parametrize(
    ("headers", "account"),
    [
        ([(b"x-account-id", b"acme")], "acme"),
        ([(b"x-account-id", b" acme ")], "acme"),
        ([], None),
        ([(b"x-account-id", b"acme"), (b"x-account-id", b"evil")], None),
    ],
)
def test_a_header_names_the_account(headers, account):
    """Once, or not at all: two claims of who is asking are none."""
    assert resolver("header:X-Account-Id")(connection(*headers)) == account


def test_the_credential_can_be_the_account():
    """For APIs whose credentials do not rotate."""
    assert resolver("authorization")(connection((b"authorization", b"Bearer x"))) == "Bearer x"


def user(**attributes):
    return SimpleNamespace(is_authenticated=True, **attributes)


class WithoutIdentity:
    """As Starlette's SimpleUser."""

    is_authenticated = True
    display_name = "ada"

    @property
    def identity(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("more", "account"),
    [
        ({}, None),
        ({"user": SimpleNamespace(is_authenticated=False, identity="x")}, None),
        ({"user": user(identity="42", display_name="ada")}, "42"),
        ({"user": WithoutIdentity()}, "ada"),
        ({"user": user()}, None),
    ],
)
def test_the_user_of_authentication_middleware(more, account):
    """By identity, else by name; nobody who is not authenticated."""
    assert resolver("user")(connection(**more)) == account


@pytest.mark.parametrize("scope", ["", "header:", "header", "account", "header: ", None, 3])
def test_another_setting_is_refused(scope):
    """And the error says what can be written."""
    with pytest.raises(ConfigurationError, match="header:NAME"):
        resolver(scope)
