"""Does an operation move money? By its path, its name, and the members of its content."""

from __future__ import annotations

import re

from retrysafe.audit.surface import Operation

_NOUNS = frozenset({
    "payment", "pay", "charge", "order", "transfer", "refund", "payout", "invoice", "subscription", "checkout",
    "purchase", "withdrawal", "withdraw", "deposit", "booking", "reservation", "transaction", "remittance",
    "disbursement", "donation", "topup", "credit", "debit", "wire",
})  # fmt: skip
# What is done to the thing before it: POST /payments/{id}/capture moves what the payment is about.
_ACTIONS = frozenset({
    "capture", "confirm", "submit", "execute", "process", "retry", "create", "send", "approve", "complete", "place",
    "new", "batch", "bulk",
})  # fmt: skip
# Whoever calls these is told something, and sends no keys of ours.
_TOLD = frozenset({"webhook", "callback", "hook", "notification", "event"})
_FIRST = frozenset({"create", "make", "place", "submit", "send", "issue", "execute", "process", "do", "post", "new"})
_MEMBERS = frozenset({
    "amount", "currency", "amount_cents", "cents", "iban", "card_number", "account_number", "payment_method",
    "payment_method_id", "payment_token", "total_amount", "price_cents",
})  # fmt: skip
_VARIABLE = re.compile(r"\{[^}]*\}|<[^>]*>|\(\?P?[^)]*\)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def money_in(operation: Operation) -> str:
    """What says that an operation moves money, as a part of a sentence; empty if nothing does."""
    path, name = _words_of_path(operation.path), _words(operation.evidence.name)
    if any(_is_one_of(_TOLD, word) for words in (*path, name) for word in words):
        return ""
    if noun := _noun_in_path(path):
        return f'its path says "{noun}"'
    if noun := _noun_in_name(name):
        return f'its name says "{noun}"'
    members = sorted(_MEMBERS & {_snake(word) for word in operation.evidence.words})
    return f"its content has {' and '.join(f'{member!r}' for member in members)}".replace("'", '"') if members else ""


def _noun_in_path(segments: list[list[str]]) -> str:
    """In the last segment, which is what is made or done; in the one before, if the last is done to that."""
    for segment in reversed(segments):
        if noun := next((word for word in segment if _is_noun(word)), ""):
            return noun
        if not _ACTIONS & set(segment):
            break
    return ""


def _noun_in_name(words: list[str]) -> str:
    """`pay`, `refund_order`, `create_payment`, and not `list_orders` or `add_order_note`."""
    if not words:
        return ""
    if _is_noun(words[0]):
        return words[0]
    return next((word for word in words[1:2] if words[0] in _FIRST and len(words) == 2 and _is_noun(word)), "")


def _is_noun(word: str) -> bool:
    return _is_one_of(_NOUNS, word)


def _is_one_of(words: frozenset[str], word: str) -> bool:
    return word in words or word.removesuffix("s") in words


def _words_of_path(path: str) -> list[list[str]]:
    """The words of each segment, without variables."""
    segments = [_words(segment) for segment in _VARIABLE.sub("", path).split("/")]
    return [segment for segment in segments if segment]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _snake(name: str) -> str:
    return "_".join(_words(name))
