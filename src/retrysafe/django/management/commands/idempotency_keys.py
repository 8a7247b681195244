"""`manage.py idempotency_keys`."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from retrysafe.django.desk import desk
from retrysafe.errors import RetrysafeError
from retrysafe.model import Response, State
from retrysafe.operate import keys, shown, which
from retrysafe.operate.keys import Desk
from retrysafe.protocol.transitions import ReadDetails

_DEEDS = ("completed", "not-done", "release", "forget")


class Command(BaseCommand):
    """List, look at and settle records."""

    help = "List the idempotency records; look at one, by its id, or by an account and a file with the key; settle it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Without a record, all of them are listed."""
        parser.add_argument("record", nargs="?", help="the id of a record, or its first digits")
        parser.add_argument("--state", action="append", choices=[*State, "stuck"], help="list only these")
        parser.add_argument("--limit", type=int, default=100, help="list at most so many")
        parser.add_argument("--account", help="whose key is in --key-file")
        parser.add_argument("--key-file", type=Path, help="holds the key of the record, as the client sent it")
        parser.add_argument("--settle", choices=_DEEDS, help="what became of it, or what is to become of it")
        parser.add_argument("--status", type=int, help="of the answer that retries get; with --settle completed")
        parser.add_argument("--body", type=Path, help="a file with the content of that answer")
        parser.add_argument("--header", action="append", default=[], help="of that answer: 'Name: value'")
        parser.add_argument("--actor", default=getpass.getuser(), help="who settles it")
        parser.add_argument("--note", default="", help="why, for the history of the record")

    def handle(self, **given: Any) -> None:
        """Do what was asked for."""
        try:
            for line in _lines(*desk(), given):
                self.stdout.write(line)
        except RetrysafeError as error:
            raise CommandError(str(error)) from error


def _lines(opened: Desk, namespace: str, given: dict[str, Any]) -> Iterator[str]:
    if given["record"] is None and given["key_file"] is None:
        chosen = given["state"] or list(State)
        states = tuple(State(name) for name in chosen if name != "stuck")
        listing = keys.list_records(opened.store, keys.Wanted(states, "stuck" in chosen, limit=given["limit"]))
        yield from shown.list_lines(listing)
        return
    record_id = _record_id(opened, namespace, given)
    if given["settle"] is not None:
        yield _settled(opened, record_id, given)
        return
    details = opened.store.perform(ReadDetails(record_id))
    response = shown.response_of(details, record_id, opened.secret, opened.encryption)
    steps = shown.Steps(details.journal, record_id, opened.secret, opened.encryption)
    yield from shown.lines(record_id, details, response, steps)


def _record_id(opened: Desk, namespace: str, given: dict[str, Any]) -> bytes:
    if given["record"] is not None:
        return which.by_id(opened.store, given["record"])
    spelling = given["key_file"].read_text("utf-8").strip()
    return which.by_key(opened.secret, namespace, given["account"] or "", spelling)


def _settled(opened: Desk, record_id: bytes, given: dict[str, Any]) -> str:
    by = keys.hand(given["actor"], given["note"])
    match given["settle"]:
        case "completed":
            if given["status"] is None:
                raise CommandError("--settle completed takes --status: what are retries to get?")
            fields = tuple(keys.header_of(field) for field in given["header"])
            body = given["body"].read_bytes() if given["body"] else b""
            return shown.settled(
                record_id, keys.complete(opened, record_id, Response(given["status"], fields, body), by)
            )
        case "not-done":
            return shown.settled(record_id, keys.rule_out(opened, record_id, by))
        case "release":
            return shown.settled(record_id, keys.release(opened, record_id, by))
        case _:
            keys.forget(opened, record_id, by)
            return f"record {record_id.hex()}: forgotten; a retry is a new operation"
