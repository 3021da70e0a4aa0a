"""What is measured, each beside its floor."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import floors
from measure import Bench, timed
from placet_testing.amd import NOW, Amd
from placet_testing.nitro import Nitro
from placet_testing.serving import trust
from placet_testing.tee import Tee, vault_config
from vaults import K, World

from placet.attest.trust import TrustAnchor
from placet.attest.verify import chains, collateral, nitro, snp, verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64, encode
from placet.core.messages import ReleaseRequest
from placet.sharing.key import Answer, Dealing, combine, deal

KIB, MIB = 1024, 1024**2
REMEMBERED = (
    chains.load,
    chains.names,
    snp._chain,
    nitro._chain,
    collateral._check_issuer,
    collateral._next_update,
)
"""What verifiers keep of one evidence for the next."""
IN_FLIGHT, EACH = 4, 4
"""Connections made at one time, and how many each of them makes in a round."""


async def benches(world: World, folder: Path) -> list[Bench]:
    """Return all benches, in the order in which they are run and shown."""
    vault = Tee(vault_config())
    handshake = floors.Handshake(world.tee, vault, trust()[0])
    release = await _release_floor(world, folder, handshake)
    sharing = floors.Sharing(os.urandom(32), b"{}")

    def warm_floor() -> None:
        for _ in range(K):
            release()
        sharing.combine()

    def cold_floor() -> None:
        floors.certificate(server=False)
        for _ in range(K):
            handshake()
        warm_floor()

    return [
        Bench(
            name="release_cold",
            unit="ms",
            thing=_cold(world),
            floor=cold_floor,
            calls=f"{floors.CERTIFICATE}; {K} x those of handshake and of release_warm;"
            " those of combine_32b",
            rounds=150,
        ),
        Bench(
            name="release_warm",
            unit="ms",
            thing=_warm(world),
            floor=release,
            calls=floors.RELEASE,
            rounds=600,
        ),
        Bench(
            name="release_warm_3_of_5",
            unit="ms",
            thing=_warm_all(world),
            floor=warm_floor,
            calls=f"{K} x those of release_warm; those of combine_32b",
            rounds=300,
        ),
        Bench(
            name="handshake",
            unit="ms",
            thing=_handshakes(world, 1, 1),
            floor=handshake,
            calls=floors.HANDSHAKE,
            rounds=400,
        ),
        Bench(
            name="handshakes_per_second",
            unit="1/s",
            thing=_handshakes(world, IN_FLIGHT, EACH),
            floor=lambda: [handshake() for _ in range(IN_FLIGHT * EACH)],
            calls="those of handshake",
            work=IN_FLIGHT * EACH,
            rounds=100,
        ),
        *_sharing("32b", 32, unit="1/s", repeat=20, rounds=200),
        *_sharing("64kib", 64 * KIB, unit="MiB/s", repeat=1, rounds=200),
        *_evidence("sgx", vault.quoter(vault.bundle.measurement, bytes(64)), trust()),
        *_evidence("tdx", world.tee.quoter(world.tee.bundle.measurement, bytes(64)), trust()),
        *_vendors(),
    ]


# --- over sockets ---------------------------------------------------------------------------


def _cold(world: World) -> Callable[[], Awaitable[float]]:
    async def thing() -> float:
        started = time.perf_counter()
        constellation = world.constellation()
        gathered = await constellation.gather(world.key)
        took = time.perf_counter() - started
        if gathered.recovered.cheaters:
            raise RuntimeError("a vault sent a wrong share")
        await _quiet()
        constellation.close()
        return took

    return thing


def _warm(world: World) -> Callable[[], Awaitable[float]]:
    client = world.vault(world.connector())

    async def thing() -> float:
        await client.meet()  # connects again outside the time, should evidence have aged
        return await _timed(client.release(world.key, os.urandom(32)))

    return thing


def _warm_all(world: World) -> Callable[[], Awaitable[float]]:
    constellation = world.constellation()

    async def thing() -> float:
        await asyncio.gather(*(vault.meet() for vault in constellation.vaults))
        took = await _timed(constellation.gather(world.key))
        await _quiet()
        return took

    return thing


def _handshakes(world: World, in_flight: int, each: int) -> Callable[[], Awaitable[float]]:
    connector = world.connector()

    async def one_after_another() -> None:
        for _ in range(each):
            client = world.vault(connector)
            await client.meet()
            client.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))

    return lambda: _timed(all_of_them())


async def _timed(work: Coroutine[Any, Any, object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def _quiet() -> None:
    """Wait for what nobody waited for: the vaults beyond k."""
    if rest := {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}:
        await asyncio.wait(rest)


async def _release_floor(world: World, folder: Path, handshake: floors.Handshake) -> floors.Release:
    client, nonce = world.vault(world.connector()), os.urandom(32)
    answer = await client.release(world.key, nonce)
    client.close()
    return floors.Release(
        ends=handshake(),
        path=folder / "floor.db",
        request=encode(ReleaseRequest(nonce=b64(nonce), head=None)),
        answer=encode(answer),
    )


# --- in this process ------------------------------------------------------------------------


def _sharing(name: str, size: int, *, unit: str, repeat: int, rounds: int) -> list[Bench]:
    secret, vaults = os.urandom(size), [f"sha256:{n:064x}" for n in range(5)]
    key = vaults[0]

    def dealt() -> Dealing:
        return deal(
            secret, key=key, generation=1, attempt=1, k=K, vaults=vaults, prev=None, rng=os.urandom
        )

    manifest, shares = (made := dealt()).manifest, made.shares
    answers = [Answer(vault=v, manifest=manifest, share=shares[v]) for v in vaults[1:4]]
    floor = floors.Sharing(secret, encode(manifest))
    work = repeat * (size / MIB if unit == "MiB/s" else 1)

    def repeated(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(repeat)]

    def combined() -> object:
        return combine(answers, k=K, key=key, vaults=vaults)

    table = (("deal", dealt, floor.deal, floors.DEAL),
             ("combine", combined, floor.combine, floors.COMBINE))  # fmt: skip
    return [
        Bench(
            name=f"{what}_{name}",
            unit=unit,
            thing=timed(repeated(thing)),
            floor=repeated(bare),
            calls=calls,
            work=work,
            rounds=rounds,
        )
        for what, thing, bare, calls in table
    ]


def _evidence(
    family: str, evidence: Evidence, anchors: Sequence[TrustAnchor], now: int | None = None
) -> list[Bench]:
    """Measure warm, as a vault verifies all day, and cold, as the first time."""
    at = int(time.time()) if now is None else now
    bare = {
        "snp": lambda: floors.report_bare(evidence, anchors[0]),
        "nitro": lambda: floors.document_bare(evidence),
    }.get(family, lambda: floors.verify_bare(evidence, anchors[0]))()
    calls = {"snp": floors.REPORT, "nitro": floors.DOCUMENT}.get(family, floors.EVIDENCE)

    def warm() -> object:
        return verify_evidence(evidence, trust=anchors, now=at)

    def cold() -> object:
        for remembered in REMEMBERED:
            remembered.cache_clear()
        return warm()

    return [
        Bench(
            name=f"verify_{family}{name}",
            unit="ms",
            thing=timed(thing),
            floor=bare,
            calls=calls,
            rounds=400,
        )
        for name, thing in (("", warm), ("_cold", cold))
    ]


def _vendors() -> list[Bench]:
    """Return the benches of AMD's and AWS's formats, from PKIs in their shape."""
    amd, aws = Amd.create("milan"), Nitro.create()
    document = Evidence(family="nitro", quote=b64(aws.document()), collateral=None)
    return [
        *_evidence("snp", amd.evidence(), (amd.anchor(),), NOW),
        *_evidence("nitro", document, (aws.anchor(),), NOW),
    ]
