"""What `placet doctor --probe` makes of what a vault tells its own operator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from placet.cli.doctor_probe import DAY, NEXT, ROOM, SOON, Probed, probe_findings
from placet.cli.main import cli
from placet.core.limits import LEASE, MIN_FREE
from placet.vault.operations import Operations
from placet.vault.probe import Probe, Ready, probing
from placet.vault.readiness import Reason

HOURS = 3600


def seen(*reasons: str, **numbers: float) -> Probed:
    """Return what a probe said, well but for these."""
    told = tuple(Reason(reason=r, detail=f"because of {r}") for r in reasons)
    usual = {"disk": ROOM, "lease": LEASE, "collateral": 9 * DAY, "entries": 3}
    ready = Ready(ready=not told, reasons=told)
    return Probed(where="127.0.0.1:9443", ready=ready, numbers=usual | numbers)


CASES = {
    "well": (seen(), ""),
    "disk soon": (seen(disk=ROOM - 1), "511 MiB are free where 127.0.0.1:9443"),
    "disk now": (seen("disk", disk=MIN_FREE - 1), "because of disk"),
    "lease soon": (seen(lease=SOON - 1), "serves for 299 s more"),
    "no lease": (seen("starting", lease=0), "because of starting"),
    "collateral soon": (seen(collateral=7 * HOURS + 1), "ends in 7 h"),
    "collateral now": (seen("collateral", collateral=9), "because of collateral"),
    "quarantined": (seen("quarantined", lease=0), "because of quarantined"),
    "of a later release": (seen("moon"), "because of moon"),
    "silent": (Probed(where="v:1", ready=None, numbers={}, why="refused"), "v:1 does not answer"),
    "without numbers": (Probed(where="v:1", ready=Ready(ready=True, reasons=()), numbers={}), ""),
}


@pytest.mark.parametrize("name", CASES)
def test_each_finding_of_a_probe(name: str) -> None:
    """One for each thing, told before it stops the vault, and what to do."""
    probed, detail = CASES[name]
    found = list(probe_findings(probed))
    assert [detail in one.detail for one in found] == ([True] if detail else [])
    assert all(one.next for one in found)


@contextlib.asynccontextmanager
async def probed(operations: Operations) -> AsyncIterator[str]:
    """Serve the real probe of these operations; yield where."""
    asks = Probe(health=lambda: (), readiness=operations.readiness, meters=operations.meters)
    async with probing(asks, "127.0.0.1", 0) as port:
        yield f"127.0.0.1:{port}"


async def doctor(tmp_path, *arguments: str) -> Result:
    """Run the command, where no key is known."""

    def run() -> Result:
        environment = {"PLACET_HOME": str(tmp_path), "COLUMNS": "160"}
        return CliRunner().invoke(cli, ["doctor", *arguments], env=environment)

    return await asyncio.to_thread(run)


async def test_a_disk_is_told_of_before_it_is_full(tmp_path, monkeypatch) -> None:
    """By the vault's own probe, over HTTP: well, then short, then so short that it is not ready."""
    operations, free = Operations(), ROOM
    operations.watch_disk(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    async with probed(operations) as where:
        said = await doctor(tmp_path, "--probe", where)
        assert (said.exit_code, "nothing wants doing" in said.output) == (0, True), said.output
        free = ROOM - 1
        said = await doctor(tmp_path, "--probe", where, "--json")
        [one] = json.loads(said.stdout)["probes"]
        assert (said.exit_code, one["ready"], one["disk"]) == (1, True, free)
        assert [(f["what"], f["next"]) for f in one["findings"]] == [("disk", NEXT["disk"])]
        free = MIN_FREE - 1
        said = await doctor(tmp_path, "--probe", where, "--probe", where)
        assert said.exit_code == 1
        assert said.output.count("not ready: ") == 2
        assert said.output.count("df -h") == 2


async def test_whoever_answers_and_is_no_probe_is_a_finding(tmp_path) -> None:
    """Nobody, another server, one that hangs up: none of them ends the command."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(said[0] if b"/readyz" in asked else said[-1])
        writer.close()

    head, well = b"HTTP/1.1 200 OK\r\n\r\n", b'{"ready":true,"reasons":[]}'
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    where = "{}:{}".format(*server.sockets[0].getsockname())
    async with server:
        for said in (
            (b"",),
            (b"SSH-2.0\r\n",),
            (head + b"{}",),
            (b"HTTP/1.1 500 X\r\n\r\n" + well,),
            (head + well, head + b"\xff"),
        ):
            got = await doctor(tmp_path, "--probe", where)
            assert (got.exit_code, "does not answer" in got.output) == (1, True), said
    assert (await doctor(tmp_path, "--probe", where)).exit_code == 1
    assert (await doctor(tmp_path, "--probe", "nowhere")).exit_code == 2
    assert (await doctor(tmp_path)).exit_code == 2
