"""R8.4: bad evidence at one vault, from several processes, and what a good release takes meanwhile.

    .venv/bin/python bench/flood.py                 1,000 attempts a second, from many addresses
    .venv/bin/python bench/flood.py --same          all of them from the good workload's address
    .venv/bin/python bench/flood.py --rate 0        for comparison: no attack

Attackers are processes of their own and open new connections at a fixed rate, whether or not the
earlier ones were answered. Most of them send a recorded ClientHello and then nothing, which costs
them little and us a handshake; `--whole` of them a second run the whole exchange and send quotes
with a broken signature, for just that connection, each another one. The vault is a process that
serves as tests/support does. Good releases are asked for all the while: warm, on a connection that
is kept, and cold, with key, certificate, connection and attestation of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import placet  # noqa: F401 - first of all: it configures OpenSSL, once for the process

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import msgspec  # noqa: E402
from machine import machine  # noqa: E402
from OpenSSL import SSL  # noqa: E402
from placet_testing.serving import client_context, trust  # noqa: E402
from placet_testing.tee import Tee  # noqa: E402
from vaults import World, vault_processes, with_key  # noqa: E402

from placet.core.attestation import Context, Evidence  # noqa: E402
from placet.core.encoding import b64, unb64  # noqa: E402
from placet.errors import PlacetError  # noqa: E402
from placet.ratls.exchange import ClientExchange, UnsafeExpectAnyVault, WorkloadProver  # noqa: E402
from placet.ratls.transport import connect  # noqa: E402

GOOD = "127.0.0.1"


@dataclass
class Liar:
    """A workload's TEE whose quotes have a signature that does not hold."""

    tee: Tee
    count: int = 0

    def describe(self) -> object:
        """Return the honest description."""
        return self.tee.describe()

    def quote(self, context: Context) -> Evidence:
        """Return a quote for just this connection, with one byte of the signature wrong."""
        self.count += 1
        good = self.tee.quote(context)
        raw = bytearray(unb64(good.quote))
        raw[48 + 584 + 4 + self.count % 64] ^= 1 + self.count // 64 % 255
        return msgspec.structs.replace(good, quote=b64(bytes(raw)))


def hello() -> bytes:
    """Return a ClientHello as our own client sends it."""
    tls = SSL.Connection(client_context())
    tls.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        tls.do_handshake()
    return tls.bio_read(1 << 16)


async def paced(rate: float, seconds: float, one: Callable[[int], Awaitable[str]]) -> Counter[str]:
    """Start ``rate`` attempts a second, whatever becomes of them; count what did."""
    became: Counter[str] = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def noted(number: int) -> None:
        became[await one(number)] += 1

    loop = asyncio.get_running_loop()
    begin, number = loop.time(), 0
    while (gone := loop.time() - begin) < seconds:
        while number < gone * rate and len(tasks) < 4000:
            task = asyncio.create_task(noted(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.005)
    became["offered"] = number
    for task in tasks:
        task.cancel()
    return became


def address(number: int, *, same: bool) -> str:
    """Return the address that an attempt comes from."""
    return GOOD if same else f"127.0.{1 + number // 250 % 4}.{1 + number % 250}"


def cheap(port: int, rate: float, seconds: float, same: bool, told: object) -> None:  # noqa: FBT001
    """Open connections, send a ClientHello, read what comes, and hang around."""
    first = hello()

    async def one(number: int) -> str:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.settimeout(0)
        try:
            sock.bind((address(number, same=same), 0))
            async with asyncio.timeout(3):
                await loop.sock_connect(sock, (GOOD, port))
                await loop.sock_sendall(sock, first)
                got = await loop.sock_recv(sock, 1 << 14)
                await loop.sock_recv(sock, 1 << 14)
        except OSError as e:
            return "timeout" if isinstance(e, TimeoutError) else "dropped"
        finally:
            sock.close()
        return "answered" if got else "dropped"

    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    told.put(asyncio.run(paced(rate, seconds, one)))  # type: ignore[attr-defined]


def whole(world: World, rate: float, seconds: float, same: bool, told: object) -> None:  # noqa: FBT001
    """Run the whole exchange, with evidence that is bad in its signature only."""
    port = int(world.vault_set.vaults[0].endpoint.rpartition(":")[2])
    context = client_context()
    prover = WorkloadProver(
        producer=Liar(world.tee), instance="w-1", purpose="release", keys=(world.key,)
    )
    exchange = ClientExchange(
        expect=UnsafeExpectAnyVault(trust=trust()), prover=prover, clock=world.clock, rng=os.urandom
    )

    async def one(number: int) -> str:
        del number
        try:
            tls, _ = await connect(GOOD, port, context, exchange, lambda _: asyncio.Protocol())
        except PlacetError as e:
            return f"{e.type}: {e.detail[:70]}"
        tls.abort()
        return "LET IN"

    del same
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    told.put(asyncio.run(paced(rate, seconds, one)))  # type: ignore[attr-defined]


class Good:
    """An honest workload that asks for releases until the time is over."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.end = world, time.monotonic() + seconds
        self.taken: dict[str, list[float]] = {"warm": [], "cold": [], "failed": []}

    async def run(self) -> dict[str, list[float]]:
        """Return what each release took."""
        kept = self.world.vault(self.world.connector())
        await kept.release(self.world.key, os.urandom(32))
        await asyncio.gather(
            self.again("warm", lambda: kept.release(self.world.key, os.urandom(32)), 0.02),
            self.again("cold", self.cold, 0.05),
        )
        kept.close()
        return self.taken

    async def again(self, kind: str, call: Callable[[], Awaitable[object]], pause: float) -> None:
        """Ask again and again."""
        while time.monotonic() < self.end:
            began = time.monotonic()
            try:
                await call()
            except PlacetError as e:
                waited = time.monotonic() - began
                print(f"  {kind} release failed after {waited:.2f} s: {e.type}: {e.detail}")
                kind_of = "failed"
            else:
                kind_of = kind
            self.taken[kind_of].append(time.monotonic() - began)
            await asyncio.sleep(pause)

    async def cold(self) -> None:
        """Ask as a workload does that just started."""
        client = self.world.vault(self.world.connector())
        try:
            await client.release(self.world.key, os.urandom(32))
        finally:
            client.close()


def rss(pid: int) -> float:
    """Return MiB that a process keeps in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu(pid: int) -> float:
    """Return seconds of CPU that a process used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Attack, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=1000, help="attempts a second, of all kinds")
    parser.add_argument("--whole", type=float, default=100, help="of them, whole exchanges")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--same", action="store_true", help="from the good workload's address")
    options = parser.parse_args()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="flood-", dir=build) as name:
        print("\n".join(machine(Path(name))), end="\n\n")
        with vault_processes(Path(name)) as bare:
            world = asyncio.run(with_key(bare))
            pid = multiprocessing.active_children()
            vault = min(p.pid or 0 for p in pid)
            before, used, told = rss(vault), cpu(vault), fork.Queue()
            port = int(world.vault_set.vaults[0].endpoint.rpartition(":")[2])
            exact = min(options.whole, options.rate)
            seconds, same = options.seconds, options.same
            rates = [(whole, world, exact), (cheap, port, options.rate - exact)]
            attackers = [
                fork.Process(target=run, args=(at, rate, seconds, same, told), daemon=True)
                for run, at, rate in rates
                if rate > 0
            ]
            for one in attackers:
                one.start()
            taken = asyncio.run(Good(world, seconds - 2 if attackers else seconds).run())
            became = [told.get(timeout=60) for _ in attackers]
            print(f"attack: {sum(b['offered'] for b in became) / seconds:.0f} attempts a second;")
            for count in became:
                print("  " + ", ".join(f"{k} {n}" for k, n in count.most_common()))
            print(f"memory of the vault: {before:.0f} MiB before, {rss(vault):.0f} MiB after")
            print(f"CPU of the vault: {(cpu(vault) - used) / seconds:.0%} of one")
            for one in attackers:
                one.join(10)
    print(f"\n{'release':<8}{'count':>7}{'median':>9}{'p99':>9}{'most':>9}  s")
    for kind in ("warm", "cold"):
        times = sorted(taken[kind])
        p99 = times[int(len(times) * 0.99)] if times else float("nan")
        middle = statistics.median(times) if times else float("nan")
        most = max(times, default=float("nan"))
        print(f"{kind:<8}{len(times):>7}{middle:>9.3f}{p99:>9.3f}{most:>9.3f}")
    print(f"failed  {len(taken['failed']):>7}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
