"""HMAC-SHA-256 against the standard library's."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.mac import mac


@given(st.binary(max_size=200), st.binary(max_size=500))
def test_it_is_the_standard_librarys(secret, message):
    """The same code for every secret, shorter or longer than a block, and every message."""
    assert mac(secret, message) == hmac.digest(secret, message, "sha256")
