"""Counting effects by what the operator offers. A verifier that trusts answers alone would believe a liar.

A counter is written as one line:

    GET /orders?ref={{unique}} $.total        a call, and a path into its JSON answer
    sql sqlite:///shop.db SELECT count(*) FROM orders WHERE reference = {{unique}}
    cmd ./count-orders {{unique}}             a command that prints a number
    metric http://127.0.0.1:9000/metrics orders_total
    same $.id                                 a value of the answer that names the effect

Without `{{unique}}` it is a total, of which only the growth counts.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.verify import databases
from retrysafe.verify.message import Answer, Fields, Sent
from retrysafe.verify.template import Path, fill, is_unique
from retrysafe.verify.wire import Wire

COMMAND_S_MAX = 60.0

Count = Callable[[str, Sequence[Answer]], Awaitable[int]]


class CountFailed(RetrysafeError):
    """The effects could not be counted."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts the effects of a reference.

    Attributes:
        text: as the operator wrote it, for people.
        total: it counts everything, so that only its growth means something.
        by_reference: it counts what has the reference, and nothing if no request has it.
        count: given a reference and the answers that its requests got, how many effects there are.
    """

    text: str
    total: bool
    by_reference: bool
    count: Count


def parse_counter(text: str, base_url: str, account: Fields) -> Counter:
    """The counter that a line describes.

    Args:
        text: the line.
        base_url: what a path is below.
        account: fields that a call carries.

    Raises:
        ConfigurationError: it describes none.
    """
    kind, _, rest = text.strip().partition(" ")
    makers: dict[str, Callable[[str], Count]] = {
        "GET": lambda rest: _call(rest, base_url, account),
        "sql": _sql,
        "cmd": _command,
        "metric": lambda rest: _metric(rest, base_url),
        "same": _same,
    }
    if kind not in makers or not rest.strip():
        raise ConfigurationError([f"--effects begins with one of {', '.join(makers)} and goes on: {text!r} does not"])
    by_answer, by_reference = kind == "same", is_unique(text)
    count = makers[kind](rest.strip())
    return Counter(text, not by_answer and not by_reference, not by_answer and by_reference, count)


def _call(rest: str, base_url: str, account: Fields) -> Count:
    url, _, path_text = rest.partition(" ")
    path = Path(path_text.strip() or "$")

    async def count(reference: str, _: Sequence[Answer]) -> int:
        answer = await Wire().exchange(Sent("GET", urljoin(base_url, fill(url, reference)), account))
        if answer.status == 404:
            return 0
        number = path.count(answer.json()) if answer.status == 200 else None
        if number is None:
            raise CountFailed(f"the counter's call was answered {answer}, and {path.text} is no number in it")
        return number

    return count


def _sql(rest: str) -> Count:
    url, _, query = rest.partition(" ")
    run = databases.query(url, query.strip())

    async def count(reference: str, _: Sequence[Answer]) -> int:
        return await asyncio.to_thread(run, reference)

    return count


def _command(rest: str) -> Count:
    async def count(reference: str, _: Sequence[Answer]) -> int:
        printed = await run_command(fill(rest, shlex.quote(reference)))
        if not printed.strip().isdigit():
            raise CountFailed("the counter's command must print one number and nothing else")
        return int(printed)

    return count


def _metric(rest: str, base_url: str) -> Count:
    url, _, name = rest.partition(" ")
    sample = re.compile(rf"^{re.escape(name.strip())}(?:\{{[^}}]*\}})?\s+(\S+)", re.MULTILINE)

    async def count(_reference: str, _: Sequence[Answer]) -> int:
        answer = await Wire().exchange(Sent("GET", urljoin(base_url, url)))
        if answer.status != 200:
            raise CountFailed(f"the counter's metrics were answered {answer}")
        return int(sum(float(value) for value in sample.findall(answer.body.decode(errors="replace"))))

    return count


def _same(rest: str) -> Count:
    path = Path(rest)

    async def count(_reference: str, answers: Sequence[Answer]) -> int:
        found = [path.find(answer.json()) for answer in answers if 200 <= answer.status < 300]
        if any(value is None for value in found):
            raise CountFailed(f"an answer has nothing at {path.text}, which names the effect")
        return len({repr(value) for value in found})

    return count


async def run_command(command: str) -> str:
    """Run a command of the operator's in a shell, and what it prints.

    Raises:
        CountFailed: it failed, or took too long.
    """
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(COMMAND_S_MAX):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise CountFailed(f"a command did not end within {COMMAND_S_MAX:g} s") from None
    if process.returncode:
        raise CountFailed(f"a command ended with exit code {process.returncode}")
    return printed.decode(errors="replace")
