"""A request as a line for a shell. Credentials stand in it as variables that the reader sets."""

from __future__ import annotations

import re
import shlex

from retrysafe.verify.message import Sent

_BODY_BYTES_MAX = 2_000


def shown(name: str, value: str, sent: Sent) -> str:
    """The value of a field as it may be shown."""
    return f"${variable(name)}" if name.lower() in sent.secret else value


def variable(name: str) -> str:
    """The variable of the shell that stands for a credential."""
    return re.sub(r"\W", "_", name).upper()


def curl(sent: Sent) -> str:
    """The request as a command line of curl."""
    parts = ["curl -i"]
    parts += [f"-X {sent.method}"] if sent.method != "POST" or not sent.body else []
    for name, value in sent.headers:
        if name.lower() in sent.secret:
            parts.append(f'-H "{name}: ${variable(name)}"')
        else:
            parts.append("-H " + shlex.quote(f"{name}: {_visible(value)}" if value else f"{name};"))
    if sent.body:
        body = _text(sent.body)
        parts.append("--data-binary " + (f"@{len(sent.body)}-BYTES" if body is None else shlex.quote(body)))
    return " ".join([*parts, shlex.quote(sent.url)])


def body_text(body: bytes) -> str:
    """Content as text, cut where it is long; of what is no text, how much it is."""
    text = _text(body[:_BODY_BYTES_MAX])
    if text is None:
        return f"({len(body)} bytes)"
    return text + (f"... ({len(body)} bytes)" if len(body) > _BODY_BYTES_MAX else "")


def _text(body: bytes) -> str | None:
    """Content that a terminal can show; None if it cannot."""
    text = body.decode("utf-8", errors="replace")
    return text if all(character.isprintable() or character in "\r\n\t" for character in text) else None


def _visible(value: str) -> str:
    text = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in value)
    return text if len(text) <= 300 else f"{text[:60]}... ({len(text)} characters)"
