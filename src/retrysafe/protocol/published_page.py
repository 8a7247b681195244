"""The contract of an API as a page for its clients, in Markdown: made from the contract and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retrysafe.protocol.duration import in_words, milliseconds

_SCOPES = {
    "authorization": "the credential in `Authorization`. After it was rotated, a key is a new key",
    "user": "the user that you are signed in as",
    "anonymous": "nobody: send only keys that cannot be guessed, a UUID say; whoever has a key gets its answer",
    "function": "your account",
}


def page(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: as `Published.document` makes it.
    """
    return "\n".join((*_head(document), *_operations(document), *_details(document), *_answers(document))) + "\n"


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    header = next((promise["header"] for promise in _promises(document)), "Idempotency-Key")
    yield "# Retrying requests safely"
    yield ""
    yield "Make up a key for each operation, a UUID for example, before you send it for the first time. Send the key in"
    yield f"`{header}`, and send the same key and the same request with every further attempt. However many of them"
    yield "arrive, the operation is done once, and you get its answer."
    yield ""
    yield "```http"
    yield "POST /... HTTP/1.1"
    yield f'{header}: "3f2b8c1e-7d4a-4f0e-9b53-0c6a1d2e9f47"'
    yield "```"
    yield ""


def _promises(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = [document["default"], *document["routes"]]
    return [promise for promise in given if promise is not None and promise["supported"]]


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Operations"
    yield ""
    yield "| operation | key | replayed for | then |"
    yield "|---|---|---|---|"
    for route in document["routes"]:
        yield _row(f"`{route['method']} {route['path']}`", route)
    if document["default"] is not None:
        yield _row(f"every other {' and '.join(document['default']['methods'])}", document["default"])
    yield ""


def _row(name: str, promise: Mapping[str, Any]) -> str:
    if not promise["supported"]:
        return f"| {name} | has no meaning | | |"
    key = "required" if promise["required"] else "if you want it"
    then = promise["afterExpiry"]
    after = f"412 for {_words(then['for'])}, then a new operation" if "for" in then else "a new operation"
    return f"| {name} | {key} | {_words(promise['lifetime'])} | {after} |"


def _details(document: Mapping[str, Any]) -> Iterator[str]:
    """What is the same for all operations in one list, and for each that differs in one of its own."""
    lists: dict[tuple[str, ...], list[str]] = {}
    for promise in _promises(document):
        name = f"`{promise['method']} {promise['path']}`" if "path" in promise else "every other operation"
        lists.setdefault(tuple(_rules(promise)), []).append(name)
    for rules, names in lists.items():
        yield f"## What holds for {'every operation' if len(lists) == 1 else ', '.join(names)}"
        yield ""
        yield from rules
        yield ""


def _rules(promise: Mapping[str, Any]) -> Iterator[str]:
    key, replay = promise["key"], promise["replay"]
    scope = promise["scope"]
    whose = _SCOPES.get(scope) or f"the account in `{scope.partition(':')[2].strip()}`"
    yield f"- A key has {key['minLength']} to {key['maxLength']} characters: `{key['pattern']}`."
    yield f"- It belongs to {whose}."
    yield f"- {_same(promise['fingerprint'])}"
    if "waits" in promise["inFlight"]:
        wait = _words(promise["inFlight"]["waits"])
        yield f"- While the first attempt runs, a further one waits for its answer, {wait} at most; then it gets 409."
    else:
        yield "- While the first attempt runs, a further one gets 409 and `Retry-After`."
    released = _listed(promise["released"])
    yield f"- Recorded and replayed: {', '.join(promise['recorded'])}. After {released}, the same key runs again."
    yield f"- A replay has `{replay['marker']}: true`. Its content is {_content(replay)}."
    if "expires" in replay:
        yield f"- An answer that is recorded says in `{replay['expires']}` until when it is replayed."
    yield f"- If we lose an attempt: {_lost(promise['abandoned'])}."
    yield f"- A request may have {promise['requestBytesMax']} bytes."


def _same(fingerprint: Mapping[str, Any] | None) -> str:
    if fingerprint is None:
        return "Only the key counts: a further request with it gets the first answer, whatever it says."
    text = f"The same in every attempt, or you get 422: {', '.join(fingerprint['parts'])}"
    extras = {
        "headers": "and the fields {}",
        "queryExcept": "but not the query parameters {}",
        "jsonOnly": "of JSON content only {}",
        "jsonExcept": "of JSON content all but {}",
    }
    said = [words.format(_listed(fingerprint[name])) for name, words in extras.items() if name in fingerprint]
    return f"{'; '.join((text, *said))}. JSON may be written differently."


def _content(replay: Mapping[str, Any]) -> str:
    if replay["content"] == "not kept":
        return "not kept: you learn that it was done"
    return f"{replay['content']}; of answers over {replay['bytesMax']} bytes you get {replay['beyond']}"


def _lost(abandoned: str) -> str:
    if abandoned == "runs again":
        return "the next attempt runs it"
    return "you get 409 `outcome-unknown`, and it is not run again; ask us before you use a new key"


def _answers(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## What we answer"
    yield ""
    yield "| status | type | send the same key again? |"
    yield "|---|---|---|"
    for problem in document["problems"]:
        again = "yes" if problem["retryable"] else "no"
        yield f"| {problem['status']} | [{problem['code']}]({problem['type']}): {problem['title']} | {again} |"
    if document["status"] is not None:
        yield ""
        yield f"`GET {document['status']}` with the key in its header says what became of it."


def _listed(items: list[Any]) -> str:
    return ", ".join(f"`{item}`" if isinstance(item, str) else str(item) for item in items)


def _words(duration: str) -> str:
    return in_words(milliseconds(duration))
