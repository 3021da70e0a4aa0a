"""Requests that are ready together become durable together, or none of them is answered (R7.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placet_testing.charters import NOW, birth_body, composer, identity, profile, signed, vault_name
from placet_testing.constellations import NONCE, Story, begin, run_of
from placet_testing.vaults import Bench, peer
from placet_testing.wires import watch

from placet.core.dsse import Signed, open_signed
from placet.core.encoding import decode, encode
from placet.core.limits import MAX_TURN
from placet.core.messages import ReleaseAnswer, Released, ReleaseRequest
from placet.errors import UnavailableError
from placet.vault import turn as turns
from placet.vault.http import VaultApp
from placet.vault.turn import Turn

V1, V2 = profile(1), profile(2)
RELEASE = encode(ReleaseRequest(nonce=NONCE, head=None))


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Five vaults, one key, version 1 approved and the key created."""
    begun = begin(tmp_path)
    yield begun
    begun.close()


class Faulty:
    """A backend whose next commits fail as told: before, or after they are durable."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.faults, self.commits = backend, [], 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def commit(self, changes: Any) -> None:
        """Commit, or fail on the way there or back."""
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            self.backend._db.execute("BEGIN")
            self.backend._db.execute("ROLLBACK")
            raise self.backend_error()
        self.backend.commit(changes)
        self.commits += 1
        if fault == "after":
            raise self.backend_error()

    @staticmethod
    def backend_error() -> Exception:
        """Return what a backend raises."""
        from placet.errors import UnavailableError

        return UnavailableError("the store does not answer: disk I/O error")


def faulty(bench: Bench) -> Faulty:
    """Put faults between a vault and its disk."""
    bench.store._backend = Faulty(bench.store._backend)
    return bench.store._backend


class Served:
    """One application, asked many things at once."""

    def __init__(self, story: Story, at: int = 0) -> None:
        self.story, self.bench = story, story.benches[at]
        self.app = VaultApp(self.bench.vault)

    async def ask(self, method: str, path: str, body: bytes = b"", what: Any = None) -> Any:
        """Return status and body of one request, by a workload or a visitor."""
        keys = (self.story.key,)
        who = identity(what, keys) if what else None
        end = peer(who, keys, at=self.story.clock.ticks)
        route, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": route, "query_string": query.encode()}
        scope |= {"headers": [], "extensions": {"placet": end}}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    def release(self, what: Any = V1) -> Any:
        """Ask for a release."""
        return self.ask("POST", f"/v1/keys/{self.story.key}/release", RELEASE, what)


def indices(answers: list[Any]) -> list[int]:
    """Return the log indices of the receipts that left the vault."""
    found = []
    for status, body in answers:
        if status == 200 and b'"receipt"' in body:
            receipt: Signed = decode(body, ReleaseAnswer).receipt
            found.append(open_signed(receipt, Released, vault=vault_name(1)).index)
    return found


def check(served: Served, receipts: list[int]) -> None:
    """Check that what was signed is in the log, once, after a restart too."""
    assert len(set(receipts)) == len(receipts)
    for again in (False, True):
        if again:
            served.bench.store.close()
            served.story.restart(0)
        log = served.story.benches[0].log
        log.verify()
        kinds = {one.entry.index: one.entry.kind for one in log.entries(0, log.head()[0])}
        assert all(kinds[index] == "release" for index in receipts)


@pytest.mark.req("I11")
async def test_a_turn_is_one_transaction(story: Story) -> None:
    """Sixty-four releases that are ready together wait for the disk once, in their order."""
    served, disk = Served(story), faulty(story.benches[0])
    answers = await asyncio.gather(*(served.release() for _ in range(64)))
    assert [status for status, _ in answers] == [200] * 64
    assert disk.commits == 1
    receipts = indices(answers)
    assert receipts == list(range(receipts[0], receipts[0] + 64))
    check(served, receipts)


async def test_a_turn_is_bounded(story: Story) -> None:
    """Whoever comes after the most waits for the next, and that is all."""
    served, disk = Served(story), faulty(story.benches[0])
    answers = await asyncio.gather(*(served.release() for _ in range(2 * MAX_TURN + 1)))
    assert {status for status, _ in answers} == {200}
    assert disk.commits == 3


@pytest.mark.req("I9")
async def test_refused_request_takes_back_only_itself(story: Story) -> None:
    """Its denial is logged in the same turn; its neighbours get what they asked for."""
    served, disk = Served(story), faulty(story.benches[0])
    nothing = served.ask("GET", f"/v1/keys/sha256:{'00' * 32}/charter")
    before = served.bench.log.head()[0]
    answers = await asyncio.gather(
        served.release(), served.release(V2), nothing, served.ask("POST", "/v1/statements", b"{"),
        served.release(),
    )  # fmt: skip
    assert [status for status, _ in answers] == [200, 403, 404, 400, 200]
    assert disk.commits == 1
    log = served.bench.log
    assert [one.entry.kind for one in log.entries(before, log.head()[0])] == [
        "release", "denied", "release",
    ]  # fmt: skip
    check(served, indices(answers))


async def test_what_is_read_in_a_turn_is_what_was_written_before_it(story: Story) -> None:
    """A trail, and a head that is signed, hold the entries of the same turn: they leave with it."""
    served = Served(story)
    size = served.bench.log.head()[0]
    path = f"/v1/keys/{story.key}"
    _, (_, trail), (_, status) = await asyncio.gather(
        served.release(),
        served.ask("GET", f"{path}/log?since=0"),
        served.ask("GET", f"/v1/status?nonce={NONCE}"),
    )
    assert json.loads(trail)["entries"][-1]["index"] == size
    assert str(size + 1) in json.dumps(decode_note(status))


def decode_note(status: bytes) -> list[str]:
    """Return the lines of the checkpoint in a status."""
    from placet.core.messages import Status, StatusBody

    body = open_signed(decode(status, Status).status, StatusBody, vault=vault_name(1))
    return body.checkpoint.split("\n")


@pytest.mark.req("R7.2", "R7.3", "I11")
@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.usefixtures("backend")
async def test_nothing_leaves_when_the_turn_is_not_known_to_be_durable(
    story: Story, fault: str
) -> None:
    """Every answer is `unavailable`; what is true is read again, and the same is asked again."""
    served, disk = Served(story), faulty(story.benches[0])
    vault, size = served.bench.vault, served.bench.log.head()[0]
    birth = signed(composer(NOW).birth(birth_body(label="notes/users/ann")))
    body = encode(run_of(birth))
    disk.faults = [fault]
    asks = lambda: (  # noqa: E731 - the same twice
        served.release(), served.ask("POST", "/v1/statements", body), served.release(V2),
        served.ask("GET", f"/v1/status?nonce={NONCE}"), served.release(),
    )  # fmt: skip
    answers = await asyncio.gather(*asks())
    assert [json.loads(body)["type"].rsplit("/", 1)[-1] for _, body in answers] == [
        "unavailable"
    ] * 5
    assert {status for status, _ in answers} == {503}
    lost = fault == "before"
    assert served.bench.log.head()[0] == size + (0 if lost else 4)
    assert vault.born == (1 if lost else 2)
    assert (vault._find(birth.digest) is None) == lost
    again = await asyncio.gather(*asks())
    assert [status for status, _ in again] == [200, 200, 403, 200, 200]
    assert vault.born == 2
    check(served, indices(answers + again))


@pytest.mark.req("R7.5")
@pytest.mark.usefixtures("backend")
async def test_denials_of_a_lost_turn_are_not_counted_and_others_are(story: Story) -> None:
    """What was answered is counted exactly; what was not answered, was not decided."""
    served, disk = Served(story), faulty(story.benches[0])
    size = served.bench.log.head()[0]
    for _ in range(2):
        await asyncio.gather(*(served.release(V2) for _ in range(8)))
    disk.faults = ["before"]
    await asyncio.gather(served.release(), *(served.release(V2) for _ in range(20)))
    served.bench.log.settle(now=NOW + 60)
    log = served.bench.log
    told = [one.entry for one in log.entries(size, log.head()[0]) if one.entry.kind == "denied"]
    assert sum((entry.detail or {}).get("suppressed", 1) for entry in told) == 16


@pytest.mark.req("R7.2")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["", "before", "after"])), max_size=8))
def test_no_two_receipts_have_one_index(tmp_path: Path, turns: list[tuple[int, str]]) -> None:
    """Over any turns that fail or do not."""
    import tempfile

    story = begin(Path(tempfile.mkdtemp(dir=tmp_path)))
    served, disk = Served(story), faulty(story.benches[0])

    async def live() -> list[Any]:
        answers = []
        for count, fault in turns:
            disk.faults = [fault]
            answers += await asyncio.gather(*(served.release() for _ in range(count)))
        return answers

    try:
        receipts = indices(asyncio.run(live()))
        assert len(receipts) == sum(count for count, fault in turns if not fault)
        check(served, receipts)
    finally:
        story.close()


@pytest.mark.usefixtures("backend")
async def test_a_disk_or_database_that_fails_at_commit_loses_nothing(
    story: Story, backend: Any
) -> None:
    """The connection fails in its COMMIT: refused, and nothing is lost.

    A disk is not asked again; a database is, by another connection.
    """
    served, store = Served(story), story.benches[0].store

    def fail(sql: str) -> None:
        if sql == "COMMIT":
            if backend.name == "postgresql":
                raise psycopg.OperationalError("the connection is lost")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error

    watch(store, fail)
    first = await asyncio.gather(*(served.release() for _ in range(3)))
    store._backend._db = getattr(store._backend._db, "_db", None)  # what it fails with is gone
    second = await asyncio.gather(*(served.release() for _ in range(3)))
    assert {status for status, _ in first} == {503}
    assert {status for status, _ in second} == {200 if backend.name == "postgresql" else 503}
    check(served, indices(second))


async def test_peer_that_went_away_asks_nothing_any_more() -> None:
    """Its place in the queue is passed over; the others are served."""
    ran = []
    turn = Turn(contextlib.nullcontext)
    first, second = (asyncio.ensure_future(turn.run(lambda n=n: ran.append(n))) for n in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert ran == [2]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_whoever_runs_a_vault_hears_of_turns_that_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How many requests, and how long the end of the group took; nothing of one that failed."""
    heard = list[tuple[int, float]]()
    # Each turn looks when it begins, when all is decided, and when that is durable.
    clock = Mock(monotonic=Mock(side_effect=[10.0, 15.0, 15.25, 20.0, 25.0]))
    monkeypatch.setattr(turns, "time", clock)
    failing = False

    @contextlib.contextmanager
    def group() -> Iterator[None]:
        yield
        if failing:
            raise UnavailableError("the disk is full")

    turn = Turn(group, lambda *said: heard.append(said))
    await asyncio.gather(*(turn.run(lambda: None) for _ in range(3)))
    failing = True
    with pytest.raises(UnavailableError):
        await turn.run(lambda: None)
    assert heard == [(3, 0.25)]
