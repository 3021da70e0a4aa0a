"""What strangers can cost a vault is bounded, and a crowd starves nobody else (R8.4)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from placet_testing.charters import identity, profile
from placet_testing.tee import Tee, dev_pki, workload_config
from placet_testing.vaults import open_bench, peer

from placet.attest.collateral_folder import CollateralFolder
from placet.attest.trust import trust_from_config
from placet.core.buckets import Buckets, network_of
from placet.core.encoding import b64, unb64
from placet.core.limits import (
    ALL_WORK_BURST,
    HANDSHAKE_BURST,
    KIB,
    MAX_BODY,
    MAX_CHECKS,
    MAX_FAILED,
    MAX_MEETINGS,
    MAX_NETWORKS,
    MAX_QUEUE,
    MAX_READING,
    MAX_VISITORS,
    REQUEST_BURST,
    WORK_BURST,
    WORK_RATE,
)
from placet.errors import EvidenceError, PlacetError, RateLimitedError
from placet.vault import checks as room
from placet.vault import quota as quota_room
from placet.vault.checks import Checks
from placet.vault.collateral import MarkedVerifier
from placet.vault.door import RESERVED, SILENT, VaultDoor
from placet.vault.http import VaultApp
from placet.vault.lane import Lane
from placet.vault.quota import Quota

MINE, THEIRS = "192.0.2.1", "198.51.100.7"


# --- who asks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peername", "network"),
    [
        (("192.0.2.1", 1234), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1234, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::4", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (["192.0.2.1", 1], ""),
        ((), ""),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_an_address_stands_for_whoever_has_it(peername: object, network: str) -> None:
    """One IPv4 address, or the network that one subscriber gets."""
    assert network_of(peername) == network


# --- tokens ------------------------------------------------------------------------------


def test_tokens_come_back_with_time() -> None:
    """A burst is taken at once; then so many a second, to each name by itself."""
    buckets = Buckets(10, 20, "requests")
    for _ in range(20):
        buckets.take(MINE, 1, 100.0)
    with pytest.raises(RateLimitedError) as refused:
        buckets.take(MINE, 5, 100.0)
    assert refused.value.members["retry_after"] == 1
    buckets.take(THEIRS, 20, 100.0)
    buckets.take(MINE, 5, 100.5)
    with pytest.raises(RateLimitedError):
        buckets.take(MINE, 1, 100.5)
    with pytest.raises(RateLimitedError):
        buckets.take(MINE, 20, 90.0)  # a clock that goes back gives nothing
    buckets.take(MINE, 20, 200.0)
    with pytest.raises(RateLimitedError):
        buckets.take(MINE, 1, 200.0)


def test_what_costs_more_than_can_be_saved_takes_all_of_it() -> None:
    """It goes through once, and leaves nothing: nothing is refused for ever."""
    buckets = Buckets(10, 20, "requests")
    buckets.take(MINE, 1000, 0.0)
    with pytest.raises(RateLimitedError) as refused:
        buckets.take(MINE, 1000, 0.0)
    buckets.take(MINE, 1000, float(refused.value.members["retry_after"]))  # type: ignore[arg-type]


def test_memory_of_names_is_bounded() -> None:
    """Whoever has many addresses makes us forget, and not grow."""
    buckets = Buckets(1, 2, "requests")
    for i in range(MAX_NETWORKS + 50):
        buckets.take(f"n{i}", 1, float(i) / 1e6)
    assert len(buckets._levels) == MAX_NETWORKS


# --- the door ----------------------------------------------------------------------------


class Crowd:
    """Enters connections at a door, and notes who was made to leave."""

    def __init__(self, **settings: Any) -> None:
        self.door, self.gone, self.now = VaultDoor(**settings), list[str](), 0.0

    def enter(self, network: str, count: int = 1) -> list[Any]:
        """Enter so many."""
        return [
            self.door.enter(network, lambda: self.gone.append(network), self.now)
            for _ in range(count)
        ]


def test_a_crowd_leaves_room_for_everybody_else() -> None:
    """Full is full; who has been silent goes, from where most come; the busy ones stay."""
    crowd = Crowd(most=10_000)
    room_for = MAX_MEETINGS - RESERVED
    mine = crowd.enter(MINE, 3)
    for i in range(room_for - 3):
        crowd.enter(THEIRS if i % 2 else f"10.0.0.{i}")
    with pytest.raises(RateLimitedError):
        crowd.enter(MINE)
    crowd.now = SILENT + 1
    for visit in mine:
        visit.heard = crowd.now
    for _ in range(20):
        crowd.enter(MINE)
    assert len(crowd.gone) >= 20
    assert set(crowd.gone) == {THEIRS}
    assert crowd.door.refused == 1 + len(crowd.gone)


def test_places_are_kept_for_who_attested_before() -> None:
    """A flood of strangers, all of them busy, does not lock out a workload that comes back."""
    crowd = Crowd(most=10_000)
    known = crowd.enter(MINE)[0]
    crowd.door.met(known, "workload", crowd.now)
    for i in range(MAX_MEETINGS - RESERVED):
        crowd.enter(f"10.1.{i // 200}.{i % 200}")
    with pytest.raises(RateLimitedError):
        crowd.enter("10.9.9.9")
    crowd.enter(MINE, RESERVED)
    with pytest.raises(RateLimitedError):
        crowd.enter(MINE)
    assert crowd.door.count() == {"meeting": MAX_MEETINGS, "workload": 1}


def test_visitors_do_not_fill_the_vault() -> None:
    """They have a number of their own; a silent one makes room, and workloads have theirs."""
    crowd = Crowd(most=10_000)
    for i in range(MAX_VISITORS):
        visit = crowd.enter(f"10.1.{i // 100}.{i % 100}")[0]
        crowd.door.met(visit, "visitor", 0.0)
    late = crowd.enter(MINE)[0]
    with pytest.raises(RateLimitedError):
        crowd.door.met(late, "visitor", 0.0)
    crowd.door.met(crowd.enter(MINE)[0], "workload", 0.0)
    crowd.door.met(late, "visitor", SILENT + 1)
    assert MINE not in crowd.gone
    assert crowd.door.count()["visitor"] == MAX_VISITORS - len(crowd.gone) + 1


def test_connections_have_a_number_and_a_rate() -> None:
    """In all, and from one address in a while; who leaves makes room."""
    crowd = Crowd(most=2)
    first, _ = crowd.enter(MINE, 2)
    with pytest.raises(RateLimitedError):
        crowd.enter(THEIRS)
    crowd.door.left(first)
    crowd.door.left(first)  # twice is once
    crowd.enter(THEIRS)
    crowd = Crowd(most=10_000)
    for _ in range(HANDSHAKE_BURST):
        crowd.door.left(crowd.enter(MINE)[0])
    with pytest.raises(RateLimitedError):
        crowd.enter(MINE)
    crowd.enter(THEIRS)


# --- turns -------------------------------------------------------------------------------


@pytest.mark.req("R8.4")
async def test_turns_are_few_at_one_time_and_fair() -> None:
    """Many of one network wait behind each other; one of another is next but one."""
    lane, order, running, most = Lane(2), list[str](), 0, 0
    gates: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def one(network: str) -> None:
        nonlocal running, most
        async with lane.turn(network):
            running += 1
            most = max(most, running)
            order.append(network)
            gate = asyncio.Event()
            gates.put_nowait(gate)
            await gate.wait()
            running -= 1

    tasks = [asyncio.create_task(one(THEIRS)) for _ in range(MAX_QUEUE)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(one(MINE)))
    async with asyncio.timeout(10):
        for _ in tasks:
            (await gates.get()).set()
        await asyncio.gather(*tasks)
    assert most == 2
    assert order.index(MINE) <= 3
    assert lane._free == 2
    assert not lane._waiting


async def test_who_leaves_the_queue_takes_no_turn() -> None:
    """Cancelled while waiting, or in the very moment of the turn: nobody waits for ever."""
    lane = Lane(1, depth=2)
    gate = asyncio.Event()

    async def one() -> str:
        async with lane.turn(MINE):
            await gate.wait()
        return "done"

    first, second, third = (asyncio.create_task(one()) for _ in range(3))
    await asyncio.sleep(0)
    with pytest.raises(RateLimitedError):
        async with lane.turn(MINE):
            pass
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first  # passes the turn on to the third, which is cancelled before it runs
    third.cancel()
    assert (await asyncio.gather(second, third, return_exceptions=True)) != ["done", "done"]
    async with asyncio.timeout(5), lane.turn(THEIRS):
        pass
    assert lane._free == 1


async def test_a_queue_has_an_end_for_each_network() -> None:
    """Too many of one are told to come again; another one still gets in."""
    lane, gate = Lane(1), asyncio.Event()

    async def one(network: str) -> None:
        async with lane.turn(network):
            await gate.wait()

    tasks = [asyncio.create_task(one(THEIRS)) for _ in range(MAX_QUEUE + 1)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimitedError) as refused:
        await one(THEIRS)
    assert refused.value.members["retry_after"] == 1
    tasks.append(asyncio.create_task(one(MINE)))
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)


# --- verifying ---------------------------------------------------------------------------


@pytest.fixture
def checks(tmp_path):
    """Return checks over a real store, and what they need."""
    bench = open_bench(tmp_path)
    found = Checks(MarkedVerifier(bench.store, CollateralFolder(tmp_path)))
    trust = trust_from_config((dev_pki().trust_root(),))

    async def verify(evidence, network=MINE):
        return await found(evidence, network, trust=trust, now=int(dev_pki_now()))

    yield SimpleNamespace(checks=found, verify=verify)
    bench.store.close()


def dev_pki_now() -> float:
    """Return the host's time, by which the development PKI dates."""
    return time.time()


TEE = Tee(workload_config("sha256:" + "0e" * 32))


def broken(number: int):
    """Return evidence whose signature does not hold, another for each number."""
    good = TEE.app_report(b"x")
    raw = bytearray(unb64(good.quote))
    raw[430] ^= 1 + number % 255
    raw[368] = number // 255 % 256
    return msgspec.structs.replace(good, quote=b64(bytes(raw)))


@pytest.mark.req("R8.4")
@pytest.mark.usefixtures("backend")
async def test_evidence_that_was_refused_is_not_looked_at_again(checks, monkeypatch) -> None:
    """The same bytes get the same answer without a signature; good ones are verified each time."""
    calls, real = [], room.verify_evidence

    def counted(*args, **settings):
        calls.append(args)
        return real(*args, **settings)

    monkeypatch.setattr(room, "verify_evidence", counted)
    first = None
    for _ in range(5):
        with pytest.raises(EvidenceError) as refused:
            await checks.verify(broken(1))
        first = first or refused.value
        assert (refused.value.detail, refused.value.members) == (first.detail, first.members)
        assert refused.value.type == first.type
    assert len(calls) == 1
    good = TEE.app_report(b"x")
    for _ in range(2):
        assert (await checks.verify(good)).anchor
    assert len(calls) == 3


@pytest.mark.req("R8.4")
@pytest.mark.usefixtures("backend")
async def test_a_flood_of_bad_evidence_is_verified_a_few_at_one_time(checks, monkeypatch) -> None:
    """Never more than the limit at once, beside the loop; the good one's turn comes in between."""
    main, now_running, most, order = threading.current_thread(), 0, 0, list[bool]()
    lock, real = threading.Lock(), room.verify_evidence

    def watched(evidence, **settings):
        nonlocal now_running, most
        assert threading.current_thread() is not main
        with lock:
            now_running += 1
            most = max(most, now_running)
            order.append(evidence == good)
        try:
            return real(evidence, **settings)
        finally:
            with lock:
                now_running -= 1

    good = TEE.app_report(b"good")
    monkeypatch.setattr(room, "verify_evidence", watched)
    flood = [asyncio.create_task(checks.verify(broken(i), THEIRS)) for i in range(MAX_QUEUE)]
    await asyncio.sleep(0)
    shown = await checks.verify(good)
    assert shown.anchor
    assert order.index(True) <= 2 * MAX_CHECKS
    said = await asyncio.gather(*flood, return_exceptions=True)
    assert all(isinstance(one, EvidenceError) for one in said)
    assert most <= MAX_CHECKS


@pytest.mark.req("R8.4")
async def test_what_is_remembered_of_a_flood_is_bounded(checks, monkeypatch) -> None:
    """A million different bad quotes leave a thousand digests."""

    def refuses(*_args, **_settings):
        raise EvidenceError("no", check="signature")

    monkeypatch.setattr(room, "verify_evidence", refuses)
    for i in range(MAX_FAILED + 100):
        with pytest.raises(EvidenceError):
            await checks.verify(broken(i))
    assert len(checks.checks._failed._kept) == MAX_FAILED


# --- requests ----------------------------------------------------------------------------


def clocked() -> tuple[Quota, list[float]]:
    """Return a quota and its clock."""
    now = [0.0]
    return Quota(lambda: now[0]), now


def until_refused(ask: Any) -> int:
    """Return how often something was allowed."""
    for i in range(100_000):
        try:
            ask(i)
        except RateLimitedError:
            return i
    raise AssertionError("it has no end")


def test_visitors_pay_by_address_and_size() -> None:
    """A burst, then a rate; another address has its own, until all together are too many."""
    quota, now = clocked()
    visitor = peer(None)
    for _ in range(WORK_BURST // (1 + MAX_BODY // KIB)):
        quota.work(visitor, MINE, MAX_BODY)
    with pytest.raises(RateLimitedError) as refused:
        quota.work(visitor, MINE, MAX_BODY)
    assert refused.value.members["retry_after"] >= 1
    quota.work(visitor, THEIRS, MAX_BODY)
    now[0] += (1 + MAX_BODY // KIB) / WORK_RATE
    quota.work(visitor, MINE, MAX_BODY)
    spent = until_refused(lambda i: quota.work(visitor, f"10.0.{i}.1", MAX_BODY))
    assert spent * (1 + MAX_BODY // KIB) < ALL_WORK_BURST


def test_a_workload_pays_by_request_and_not_for_visitors() -> None:
    """What visitors used up is not missing to a workload from the same address."""
    quota, _ = clocked()
    workload = peer(identity(profile(1), ("sha256:" + "a" * 64,)), ("sha256:" + "a" * 64,))
    assert until_refused(lambda _: quota.work(peer(None), MINE, MAX_BODY)) > 0
    for _ in range(REQUEST_BURST):
        quota.work(workload, MINE, MAX_BODY)
        quota.request(workload)
    with pytest.raises(RateLimitedError):
        quota.request(workload)


def test_bodies_of_all_requests_together_are_bounded() -> None:
    """Half-sent megabytes on many connections do not add up beyond it, and are given back."""
    quota, _ = clocked()
    for _ in range(3):
        with quota.reading() as more, quota.reading() as another:
            another(MAX_BODY)
            assert until_refused(lambda _, take=more: take(MAX_BODY)) == MAX_READING // MAX_BODY - 1
    assert quota._reading == 0


async def serve(app: VaultApp, method: str, path: str, body: bytes = b"") -> tuple[int, Any, bytes]:
    """Have an application answer one visitor's request."""
    messages: list[Any] = []
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "headers": [],
        "client": (MINE, 4711), "extensions": {"placet": peer(None)},
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], dict(messages[0]["headers"]), messages[1]["body"]


async def test_who_asks_too_much_is_told_when_to_come_again(tmp_path, monkeypatch) -> None:
    """429 with a header and a member for programs; before the body is parsed."""
    monkeypatch.setattr(quota_room, "WORK_BURST", 3)
    bench = open_bench(tmp_path)
    app = VaultApp(bench.vault)
    assert (await serve(app, "POST", "/v1/statements", b"{}"))[0] == 400
    assert (await serve(app, "POST", "/v1/statements", b"{}"))[0] == 400
    status, headers, raw = await serve(app, "POST", "/v1/statements", b"no json at all" * 200)
    problem = json.loads(raw)
    assert (status, problem["type"].rpartition("/")[2]) == (429, "rate-limited")
    assert headers[b"retry-after"] == str(problem["retry_after"]).encode()
    assert headers[b"x-request-id"].decode() == problem["request"]
    bench.store.close()


def test_every_limit_that_refuses_is_typed() -> None:
    """A program reads when to come again, from the type and its member."""
    assert issubclass(RateLimitedError, PlacetError)
    assert RateLimitedError.status == 429
