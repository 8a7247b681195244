"""A function's call as a request, and its result as a response: data in both directions, never code."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from retrysafe.errors import CallerError, ConfigurationError, ResultUnavailable
from retrysafe.model import BytesBody, Head, Request, Response
from retrysafe.protocol.effects import Answered, Fate
from retrysafe.protocol.framing import frame
from retrysafe.server.named import module_of
from retrysafe.value import value

METHOD = "CALL"
RETURNED, RAISED = 200, 500
_RAISED_FIELD = b"raised"
_PLAIN_KEY = re.compile(r"[!#-\[\]-~]{1,255}")


class Codec(Protocol):
    """How results become bytes. A result must be data: whoever can write to the store could otherwise run code."""

    def encode(self, result: Any) -> bytes:
        """The bytes of a result.

        Raises:
            TypeError, ValueError: it is not data that this codec can keep.
        """

    def decode(self, content: bytes) -> Any:
        """The result again."""


class JsonCodec:
    """Results as JSON. What JSON has no word for is refused; a tuple comes back as a list."""

    def encode(self, result: Any) -> bytes:
        """The result as JSON."""
        return json.dumps(result, allow_nan=False, separators=(",", ":")).encode()

    def decode(self, content: bytes) -> Any:
        """The result again."""
        return json.loads(content)


@value
class Call:
    """One call.

    Attributes:
        key: as the calling code means it.
        scope: whose key it is.
        request: the call as the engine sees it.
    """

    key: str
    scope: str
    request: Request


class Calls:
    """How the calls of one function are put as requests.

    Args:
        function: it.
        name: under which its records stand; keep it when the function is renamed.
        key: of a call: a format over the names of its arguments, `"invoice-{invoice_id}"`, or a function of them.
        scope: whose key it is: a name, or a function of the arguments.
        compare: names of the arguments that must be the same in each call with a key; None is all of them.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        key: str | Callable[..., str],
        scope: str | Callable[..., str],
        compare: Sequence[str] | None,
    ) -> None:
        self._signature = inspect.signature(function)
        self._path = b"/" + name.encode()
        self._key = key
        self._scope = scope
        self._compare = None if compare is None else tuple(compare)
        unknown = set(self._compare or ()) - set(self._signature.parameters)
        if unknown:
            raise ConfigurationError([f"compare names {', '.join(sorted(unknown))}, which {name} has no argument for"])

    def put(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Call:
        """A call as a request.

        Raises:
            CallerError: the arguments give no key, no scope, or are no data.
            TypeError: they do not fit the function.
        """
        bound = self._signature.bind(*arguments, **named)
        bound.apply_defaults()
        key = self._key(*arguments, **named) if callable(self._key) else formatted(self._key, bound.arguments)
        scope = self._scope(*arguments, **named) if callable(self._scope) else self._scope
        if not isinstance(key, str) or not key:
            raise CallerError(f"key= gave {type(key).__name__} for this call; it must give a string that is not empty")
        compared = {
            name: value for name, value in bound.arguments.items() if self._compare is None or name in self._compare
        }
        try:
            content = json.dumps(compared, allow_nan=False, sort_keys=True).encode()
        except (TypeError, ValueError) as error:
            raise CallerError(
                f"an argument of this call is no data: {error}. Name those that count, and are data, with compare="
            ) from None
        field = (b"idempotency-key", b'"%s"' % _spelled(key))
        head = Head(METHOD, self._path, b"", (field, (b"content-type", b"application/json")))
        return Call(key, scope, Request(head, BytesBody(content)))


def formatted(key: str, arguments: dict[str, Any]) -> str:
    """A key that is made of the arguments of a call by a format over their names.

    Raises:
        CallerError: it cannot be.
    """
    try:
        return key.format_map(arguments)
    except (KeyError, IndexError, AttributeError) as error:
        raise CallerError(f'key="{key}" cannot be made of the arguments of this call: {error!r}') from None


def _spelled(key: str) -> bytes:
    """The key as a header could carry it: itself where it can, else the digest of it."""
    if _PLAIN_KEY.fullmatch(key):
        return key.encode()

    return b"sha256:" + hashlib.sha256(frame(key.encode())).hexdigest().encode()


# --- results --------------------------------------------------------------------------------------

E = TypeVar("E", bound=Exception)


class Results:
    """How the results of one function are kept.

    Args:
        codec: of what it returns.
        raises: exceptions that are outcomes like a result: made of data, and raised again as they were.
        bytes_max: larger results are not kept.
    """

    def __init__(self, codec: Codec, raises: Sequence[type[Exception]], bytes_max: int) -> None:
        self._codec = codec
        self._bytes_max = bytes_max
        self._kinds = {_name_of(kind): kind for kind in raises}
        self.raises = tuple(raises)

    def returned(self, result: Any, fate: Fate) -> Answered:
        """A result, for the record.

        Raises:
            CallerError: it is no data.
        """
        try:
            content = self._codec.encode(result)
        except (TypeError, ValueError) as error:
            raise CallerError(
                f"the result cannot be kept: {error}. The function has run and will not run again for this key; "
                "return data, or give a codec="
            ) from error
        return self._kept(RETURNED, (), content, fate)

    def raised(self, error: Exception, fate: Fate) -> Answered:
        """An exception that the function declares, for the record; its arguments must be JSON."""
        kind = next(kind for kind in self.raises if isinstance(error, kind))
        try:
            content = json.dumps(error.args, allow_nan=False).encode()
        except (TypeError, ValueError):
            content = json.dumps([str(error)]).encode()
        return self._kept(RAISED, ((_RAISED_FIELD, _name_of(kind).encode()),), content, fate)

    def _kept(self, status: int, headers: tuple[tuple[bytes, bytes], ...], content: bytes, fate: Fate) -> Answered:
        whole = len(content) <= self._bytes_max
        response = Response(status, headers, content if whole else b"")
        return Answered(response, whole=whole, size=len(content), digest=b"", fate=fate)

    def given(self, response: Response) -> Any:
        """The result of an earlier call, from the record.

        Raises:
            Exception: what that call raised, if the function declares it.
            ResultUnavailable: the response is none of this function's, or cannot be read any more.
        """
        try:
            result, error = self._read(response)
        except Exception:  # noqa: BLE001 - of the codec or a constructor: no caller may take it for the outcome
            raise ResultUnavailable from None
        if error is not None:
            raise error
        return result

    def _read(self, response: Response) -> tuple[Any, Exception | None]:
        if response.status == RETURNED:
            return self._codec.decode(response.body), None
        kind = self._kinds[(response.value(_RAISED_FIELD) or b"").decode()]
        error: Exception = cast(Any, kind)(*json.loads(response.body))
        return None, error


def _name_of(kind: type[Exception]) -> str:
    return f"{module_of(kind)}.{kind.__qualname__}"
