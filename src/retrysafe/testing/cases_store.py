"""Cases about the store as a whole: the secret, the object, and what outlives it."""

from __future__ import annotations

import asyncio
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrysafe.errors import StoreUnavailable, StoreUnusable
from retrysafe.model import Claim, Found, State
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import AddHistory, ClaimIfAbsent, CompleteIfHeld, Read
from retrysafe.stores.contract import Store
from retrysafe.testing.subject import (
    COLOURS,
    JOURNAL,
    KEEP_MS,
    LIFETIME_MS,
    REQUEST,
    RESPONSE,
    Cases,
    Subject,
    token,
)


class TheSecret(Cases):
    """Whose the key digests are."""

    def test_store_keeps_the_secret(self, subject: Subject) -> None:
        """A store that was given no secret makes one, and has the same ever after."""
        secret = subject.store.open()
        assert len(secret) >= 16
        assert subject.store.open() == secret
        assert subject.store.open(secret) == secret

    def test_other_secret_is_refused(self, subject: Subject) -> None:
        """With another secret every key would look new: it is refused, and the store stays as it was."""
        secret = subject.store.open()
        with pytest.raises(StoreUnusable):
            subject.store.open(secrets.token_bytes(32))
        assert subject.store.open() == secret

    def test_short_secret_is_refused(self, subject: Subject) -> None:
        """A secret that can be guessed is refused."""
        with pytest.raises(StoreUnusable):
            subject.store.open(b"fifteen bytes..")

    def test_secret_of_the_operator_is_not_kept(self, tmp_path: Path) -> None:
        """The operator's secret is wanted each time; only it will do."""
        store = self.make(lambda: 0, tmp_path)
        given = secrets.token_bytes(32)
        assert store.open(given) == given
        assert store.open(given) == given
        for wrong in (None, secrets.token_bytes(32)):
            with pytest.raises(StoreUnusable):
                store.open(wrong)
        store.close()


class TheObject(Cases):
    """Opening, closing, both colours."""

    def test_is_a_store(self, subject: Subject) -> None:
        """It has the shape of a store, and a name for people."""
        assert isinstance(subject.store, Store)
        assert subject.store.name

    def test_closed_store_refuses(self, subject: Subject) -> None:
        """A closed store says that it is unavailable; closing it twice is no mistake."""
        subject.store.close()
        subject.store.close()
        with pytest.raises(StoreUnavailable):
            subject.found()
        with pytest.raises(StoreUnavailable):
            subject.do(subject.claiming())

    def test_closed_store_opens_again(self, subject: Subject) -> None:
        """A store that is opened after it was closed has what it had."""
        subject.bring_to(State.COMPLETED)
        secret = subject.store.open()
        before = subject.found()
        subject.store.close()
        assert subject.store.open() == secret
        assert subject.found() == before

    def test_giving_up_waiting_does_not_undo(self, tmp_path: Path) -> None:
        """A transition whose waiter was cancelled is done all the same, and its waiter learns what came of it."""
        subject = Subject(self.make, tmp_path, COLOURS["blocking"]())
        claiming = subject.claiming()

        answers: list[asyncio.Future[Found]] = []

        async def wait() -> None:
            answers.append(subject.store.submit(claiming))
            await answers[0]
            await asyncio.sleep(0)  # where a waiter is told whose answer was there at once

        async def leave() -> Found | None:
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert answers[0].result().record.token == claiming.token
            return await subject.store.submit(Read(subject.record_id))

        found = asyncio.run(leave())
        assert found is not None
        assert found.record.token == claiming.token
        subject.close()

    def test_submit_needs_a_running_loop(self, subject: Subject) -> None:
        """Where no event loop runs there is nothing to wait with, and nothing is done."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)  # the current loop of the thread; and yet it does not run
        try:
            with pytest.raises(RuntimeError):
                subject.store.submit(subject.claiming())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        assert subject.record() is None

    def test_both_colours_at_once(self, tmp_path: Path) -> None:
        """Threads and two event loops share one store, and one claim wins."""
        subject = Subject(self.make, tmp_path, COLOURS["blocking"]())
        claims = [subject.claiming() for _ in range(24)]
        together = threading.Barrier(10)

        async def gather(mine: list[ClaimIfAbsent]) -> list[Found]:
            together.wait()
            return await asyncio.gather(*(subject.store.submit(claim) for claim in mine))

        def block(claim: ClaimIfAbsent) -> list[Found]:
            together.wait()
            return [subject.store.perform(claim)]

        with ThreadPoolExecutor(10) as pool:
            loops = [pool.submit(asyncio.run, gather(claims[start : start + 8])) for start in (0, 8)]
            threads = [pool.submit(block, claim) for claim in claims[16:]]
            found = [one for future in (*loops, *threads) for one in future.result()]
        assert sum(one.record.token == claim.token for one, claim in zip(found, claims, strict=True)) == 1
        subject.close()


class Durable(Cases):
    """What outlives the object."""

    @pytest.mark.parametrize("state", list(State))
    def test_records_outlive_the_store(self, subject: Subject, state: State) -> None:
        """What was answered is there after a restart, in every part."""
        subject.bring_to(state)
        before = subject.found()
        subject.reopen()
        assert subject.found() == before

    def test_everything_outlives_the_store(self, subject: Subject) -> None:
        """Request, journal and history are there after a restart."""
        claim = subject.claim(REQUEST)
        assert subject.happen(Event.JOURNAL, claim)
        assert subject.do(AddHistory(subject.record_id, b"entry", KEEP_MS))
        before = subject.details()
        assert (before.request, before.journal, before.history) == (REQUEST, JOURNAL, (b"entry",))
        subject.reopen()
        assert subject.details() == before

    def test_claim_outlives_the_store(self, subject: Subject) -> None:
        """A claim holds over a restart, and only its owner can settle it."""
        claim = subject.claim()
        subject.reopen()
        assert not subject.happen(Event.COMPLETE, Claim(subject.record_id, token(), 1))
        assert subject.happen(Event.COMPLETE, claim)

    def test_secret_outlives_the_store(self, subject: Subject) -> None:
        """The secret that the store made is there after a restart, and another is refused."""
        secret = subject.store.open()
        subject.reopen()
        assert subject.store.open() == secret
        with pytest.raises(StoreUnusable):
            subject.store.open(secrets.token_bytes(32))

    def test_clock_outlives_the_store(self, subject: Subject) -> None:
        """A host whose clock stepped back over a restart does not take the store's back with it."""
        claim = subject.claim()
        before_ms = subject.clock()
        subject.clock.advance(-3_600_000)
        subject.reopen()
        found = subject.found()
        assert found is not None
        assert found.now_ms == before_ms
        assert not subject.happen(Event.TAKE_OVER, claim)

    def test_two_stores_share_the_records(self, subject: Subject, tmp_path: Path) -> None:
        """Two store objects on the same records: what one answered, the other knows."""
        other = self.make(subject.clock, tmp_path)
        other.open()
        claim = subject.claim()
        assert other.perform(subject.claiming()).record.token == claim.token
        assert other.perform(CompleteIfHeld(claim, RESPONSE, LIFETIME_MS, KEEP_MS))
        record = subject.record()
        assert record is not None
        assert record.response == RESPONSE
        other.close()
