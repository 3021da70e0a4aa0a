"""What a vault shows to whoever runs it: probes, numbers and lines, and nothing that it keeps."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from unittest.mock import Mock

import pytest
from placet_testing.charters import NOW
from placet_testing.vaults import open_bench

from placet.core.limits import MAX_PROBE_HEAD, MAX_PROBES, MIN_FREE
from placet.core.logentry import Draft
from placet.core.messages import StandingReport
from placet.errors import UnavailableError
from placet.storage.store import quarantined
from placet.vault import operations as room
from placet.vault.logs import start_logging
from placet.vault.meters import Histogram, Meters
from placet.vault.operations import Collateral, Operations, clock_reasons
from placet.vault.probe import Probe, probing
from placet.vault.readiness import Readiness, Reason, standing_reasons, store_reasons
from placet.vault.watch import Answered

KEY = "sha256:" + "ab" * 32
RELEASE = "/v1/keys/{key}/release"


def answered(**changes: object) -> Answered:
    """Return what is told of a good release, with changes."""
    usual: dict[str, object] = {
        "request": "0011223344556677", "method": "POST", "route": RELEASE, "status": 200,
        "problem": None, "seconds": 0.0123, "role": "workload", "key": KEY,
    }  # fmt: skip
    return Answered(**(usual | changes))  # type: ignore[arg-type]


# --- numbers -----------------------------------------------------------------------------


def parsed(text: str) -> dict[str, float]:
    """Read Prometheus' text format, strictly: every sample has its type and help before it."""
    found, typed, helped = {}, {}, set()
    sample = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"\\\n]*",?)*\})? (-?[0-9.e+-]+|NaN)')
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split(" ", 3)[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed, "a name has one type"
            typed[name] = kind
        else:
            match = sample.fullmatch(line)
            assert match, line
            name = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert {match[1], name} & typed.keys() & helped, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_numbers_count_what_was_answered() -> None:
    """By route and outcome, releases by time, refusals by type; never by key."""
    meters = Meters()
    meters.gauge("placet_keys", "Keys.", lambda: 3)
    meters.gauge("placet_absent", "Nothing to say.", lambda: None)
    meters.gauge("placet_connections", "Open.", lambda: {"attested": 2, "meeting": 1})
    for seconds in (0.002, 0.03, 20.0):
        meters.answered(answered(seconds=seconds))
    meters.answered(answered(status=403, problem="measurement-not-approved", seconds=0.001))
    meters.answered(answered(method="BREW", route="none", status=404, problem="not-found"))
    got = parsed(meters.render())
    ok = f'{{method="POST",route="{RELEASE}",role="workload",outcome="ok"}}'
    assert got["placet_requests_total" + ok] == 3
    assert got['placet_denials_total{type="measurement-not-approved"}'] == 1
    assert sum(v for k, v in got.items() if k.startswith("placet_denials")) == 1
    assert any('method="other",route="none"' in k for k in got)
    assert got['placet_release_seconds_bucket{le="0.001"}'] == 1
    assert got['placet_release_seconds_bucket{le="0.05"}'] == 3
    assert got['placet_release_seconds_bucket{le="+Inf"}'] == 4
    assert got["placet_release_seconds_count"] == 4
    assert got["placet_keys"] == 3
    assert got['placet_connections{kind="meeting"}'] == 1
    assert not any(k.startswith("placet_absent") for k in got)
    assert KEY[7:19] not in meters.render()


def test_a_histogram_counts_the_bound_itself() -> None:
    """``le`` means less than or equal."""
    one = Histogram("x_seconds", "X.", (0.5, 1))
    one.observe(0.5)
    assert 'x_seconds_bucket{le="0.5"} 1' in one.lines()


def test_turns_are_measured_where_they_logged(tmp_path) -> None:
    """What only reads waits for no disk, and would drown what does."""
    bench, operations = open_bench(tmp_path), Operations()
    bench.log.commit(Draft(kind="boot"), now=NOW)
    turned = operations.watch_turns(bench.log)
    turned(9, 0.5)
    bench.log.commit(Draft(kind="x"), now=NOW)
    turned(3, 0.004)
    turned(9, 0.5)
    got = parsed(operations.meters.render())
    assert (got["placet_turn_requests_sum"], got["placet_turn_requests_count"]) == (3, 1)
    assert got['placet_turn_requests_bucket{le="2"}'] == 0
    assert got['placet_commit_seconds_bucket{le="0.005"}'] == 1
    assert got["placet_commit_seconds_sum"] == 0.004
    bench.store.close()


@pytest.mark.req("I6")
def test_who_does_not_stand_gets_no_requests() -> None:
    """Why not, how much was witnessed, and whom it waits for; nothing once it stands."""
    standing, operations = Mock(), Operations()
    operations.readiness.add(standing_reasons(standing))

    def told(state: str, reason: str, *waiting: str) -> tuple[Reason, ...]:
        standing.report.return_value = StandingReport(
            state=state, reason=reason, waiting=waiting, size=9, witnessed=7
        )
        return operations.readiness.reasons()

    assert told("standing", "") == ()
    [starting] = told("starting", "lease", "sha256:a", "sha256:b")
    assert starting.reason == "starting"
    assert starting.detail == (
        "starting: lease, 7 entries were witnessed of 9, waits for sha256:a, sha256:b"
    )
    [quarantined] = told("quarantined", "forked")
    assert quarantined.reason == "quarantined"
    assert quarantined.detail == "quarantined: forked, 7 entries were witnessed of 9"


def test_how_long_a_vault_stands_is_told() -> None:
    """From the first look at which it does; a look at which it does not begins anew."""
    standing, operations, now = Mock(), Operations(), 1000.0
    operations.watch_standing(standing, lambda: now)

    def look(state: str, at: float) -> float | None:
        nonlocal now
        now, standing.report.return_value.state = at, state
        return parsed(operations.meters.render()).get("placet_standing_seconds")

    standing.lease.return_value = None
    assert look("starting", 1000) is None
    assert "placet_lease" not in operations.meters.render()
    assert look("standing", 1010) == 0
    assert look("standing", 1070) == 60
    assert look("starting", 1080) is None
    standing.lease.return_value = 599.5
    assert look("standing", 1090) == 0
    assert parsed(operations.meters.render())["placet_lease_seconds"] == 599.5


# --- readiness ---------------------------------------------------------------------------


def test_the_store_is_asked(tmp_path, monkeypatch) -> None:
    """It answers, it was changed, or it fails; an empty log is no reason."""
    bench = open_bench(tmp_path)
    source = store_reasons(bench.log)
    assert list(source()) == []
    bench.log.commit(Draft(kind="boot"), now=NOW)
    assert list(source()) == []
    for problem, reason in ((quarantined("x"), "quarantined"), (UnavailableError("x"), "store")):
        with monkeypatch.context() as patched:
            patched.setattr(bench.log, "entries", Mock(side_effect=problem))
            assert [r.reason for r in source()] == [reason]
    bench.store.close()


def test_reasons_come_from_all_parts(tmp_path, monkeypatch) -> None:
    """Clock, collateral, disk, draining: each says so, and all of them are told."""
    operations, collateral = Operations(), Collateral(until=5000)
    operations.watch_disk(tmp_path)
    operations.readiness.add(lambda: collateral.reasons(1000))
    operations.readiness.add(lambda: clock_reasons(1000, 900.0))
    assert operations.readiness.reasons() == ()
    operations.readiness.add(lambda: collateral.reasons(1401))
    operations.readiness.add(lambda: clock_reasons(1301, 1000.9))
    usage = type("Usage", (), {"free": MIN_FREE - 1})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    operations.readiness.drain("told to end")
    found = [r.reason for r in operations.readiness.reasons()]
    assert found == ["disk", "collateral", "clock", "draining"]


def test_part_that_cannot_say_is_a_reason() -> None:
    """Its store is away or was changed, while it is asked: that is told, once, and not "ready"."""
    readiness, away, changed = (
        Readiness(),
        Mock(side_effect=UnavailableError("x")),
        quarantined("y"),
    )
    for source in (away, away, Mock(side_effect=changed), lambda: [Reason(reason="z", detail="")]):
        readiness.add(source)
    assert [r.reason for r in readiness.reasons()] == ["store", "quarantined", "z"]


def test_numbers_are_told_while_the_store_is_away() -> None:
    """All but those that lie there."""
    meters = Meters()
    meters.gauge("a", "Lies there.", Mock(side_effect=UnavailableError("x")))
    meters.gauge("b", "Does not.", lambda: 3)
    told = parsed(meters.render())
    assert ("a" in told, "b" in told) == (False, True)


# --- the probe listener ------------------------------------------------------------------


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; (0, {}, b"") if it just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        raw = await reader.read()
    except ConnectionError:
        raw = b""
    writer.close()
    if not raw:
        return 0, {}, b""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in rest), body


def get(path: str) -> bytes:
    """Return a request."""
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def a_probe(*reasons: Reason, broken: bool = False) -> Probe:
    """Return a probe with these reasons."""
    readiness = Readiness()
    readiness.add(lambda: reasons)
    health = [Reason(reason="store", detail="disk failed")] if broken else []
    return Probe(health=lambda: health, readiness=readiness, meters=Meters())


async def test_probes_are_answered() -> None:
    """200 when all is well, 503 with every reason when it is not."""
    async with probing(a_probe(), "127.0.0.1", 0) as port:
        assert json.loads((await ask(port, get("/healthz")))[2]) == {"healthy": True, "reasons": []}
        status, headers, body = await ask(port, get("/readyz?x=1"))
        assert (status, json.loads(body)["ready"]) == (200, True)
        assert int(headers["content-length"]) == len(body)
        status, headers, body = await ask(port, get("/metrics"))
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert parsed(body.decode())
    why = Reason(reason="draining", detail="told to end")
    async with probing(a_probe(why, broken=True), "127.0.0.1", 0) as port:
        status, _, body = await ask(port, get("/readyz"))
        assert (status, json.loads(body)["reasons"][0]["reason"]) == (503, "draining")
        assert (await ask(port, get("/healthz")))[0] == 503


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/"), 404),
        (get("/v1/status"), 404),
        (get("/metrics/../healthz"), 404),
        (b"POST /readyz HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 405),
        (b"HEAD /readyz HTTP/1.1\r\n\r\n", 405),
        (b"GET /readyz\r\n\r\n", 400),
        (b"\xff\xfe\x00\r\n\r\n", 400),
        (b"GET /" + b"a" * MAX_PROBE_HEAD + b" HTTP/1.1\r\n\r\n", 0),
    ],
)
async def test_a_probe_answers_nothing_else(request_: bytes, status: int) -> None:
    """GET of three paths; what is too long is not read."""
    async with probing(a_probe(), "127.0.0.1", 0) as port:
        assert (await ask(port, request_))[0] == status
        assert (await ask(port, get("/healthz")))[0] == 200


async def test_a_probe_that_fails_inside_ends_nothing(caplog) -> None:
    """A bug in a number is a 503, told by class, and the next probe is answered."""
    probe = a_probe()

    def fails() -> float:
        raise KeyError("a secret")

    probe.meters.gauge("placet_x", "X.", fails)
    async with probing(probe, "127.0.0.1", 0) as port:
        assert (await ask(port, get("/metrics")))[0] == 503
        assert (await ask(port, get("/healthz")))[0] == 200
    assert "KeyError" in caplog.text
    assert "a secret" not in caplog.text


async def test_probes_are_bounded() -> None:
    """Idle connections beyond the limit are dropped, and make room when they go."""
    async with probing(a_probe(), "127.0.0.1", 0) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_PROBES)]
        assert (await ask(port, get("/healthz")))[0] == 0
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(5):
            status = 0
            while status != 200:
                status, _, _ = await ask(port, get("/healthz"))


# --- lines -------------------------------------------------------------------------------


def test_lines_of_json(root_logger) -> None:
    """One object a line, with what was asked and how it ended."""
    stream = io.StringIO()
    start_logging("json", stream)
    Operations().watch(answered(status=403, problem="policy-denied", method="BREW"))
    failure = ValueError("the share is 00ff")
    logging.getLogger("placet.vault").error("it failed\nbadly", exc_info=failure)
    try:
        raise failure
    except ValueError:
        logging.getLogger("asyncio").exception("future: <Task exception='the share is 00ff'>")
    logging.getLogger("asyncio").warning("slow: %s", "00ff")
    first, second, third, fourth = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info", "logger": "placet.vault.request", "message": "answered",
        "request": "0011223344556677", "method": "other", "route": RELEASE, "status": 403,
        "problem": "policy-denied", "ms": 12.3, "role": "workload", "key": "ab" * 6,
    }  # fmt: skip
    assert (second["message"], second["exception"]) == ("it failed\nbadly", "ValueError")
    assert (third["message"], third["exception"]) == ("failed inside", "ValueError")
    assert third["at"].startswith("test_operations.py:")
    assert fourth["message"] == "slow: %s"
    assert "00ff" not in stream.getvalue()


def test_lines_of_text(root_logger) -> None:
    """One line each, whatever a message holds."""
    stream = io.StringIO()
    start_logging("text", stream)
    Operations().watch(answered(key=""))
    logging.getLogger("x").warning("two\nlines")
    one, two = stream.getvalue().splitlines()
    assert one.startswith("placet.vault.request: answered request=0011223344556677 method=POST")
    assert "key=" not in one
    assert two == "x: two\\nlines"
