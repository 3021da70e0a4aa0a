"""``placet vault serve``: start a vault inside its TEE.

Nothing that is given here decides anything (I17): address and data folder only say where
to listen and where the sealed store lies. What decides is in the measured config.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.attest.collateral_folder import CollateralFolder, completed_by
from placet.attest.produce import Description, Producer, open_producer
from placet.attest.trust import trust_from_config
from placet.attest.verify import EvidenceVerifier, verify_evidence
from placet.core.config import VaultConfig
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_QUOTES
from placet.core.logentry import Draft
from placet.errors import PlacetError, VerificationError
from placet.ratls.certificate import make_certificate
from placet.ratls.context import make_context, self_test
from placet.ratls.exchange import ServerExchange
from placet.ratls.server import serve
from placet.ratls.wrapper import own_evidence
from placet.storage.folders import make_folder
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.storage.store import Batch, Put, Store
from placet.vault.checks import Checks
from placet.vault.clock import VaultClock
from placet.vault.collateral import MarkedVerifier
from placet.vault.door import VaultDoor
from placet.vault.http import VaultApp
from placet.vault.lane import Lane
from placet.vault.logs import start_logging
from placet.vault.meters import Meters
from placet.vault.operations import Collateral, Operations, clock_reasons, end_on_signals
from placet.vault.peers import Line, Peers
from placet.vault.probe import Probe, probing
from placet.vault.readiness import standing_reasons, store_reasons
from placet.vault.records import IdentityRecord
from placet.vault.release import OwnRelease
from placet.vault.service import Vault
from placet.vault.standing import Standing
from placet.vault.standing_rule import StandingMaker
from placet.vault.state import VaultIdentity
from placet.vault.succession import IDENTITY, Adopting, measured_config

SQLITE, POSTGRESQL = "sqlite", ("postgresql://", "postgres://")
NOBODY = "none"
"""What ``--adopt`` may say where a measured command line has it and there is nobody to adopt."""
CERTIFICATE_LIFETIME = 365 * 24 * 3600
MINUTE = 60

log = logging.getLogger("placet.vault")


def main(argv: Sequence[str]) -> int:
    """Run ``placet vault serve`` and return its exit code."""
    parser = argparse.ArgumentParser(prog="placet vault serve", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:0", help="address as host:port")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sealed store")
    parser.add_argument(
        "--store",
        default=SQLITE,
        metavar="URI",
        help="where the sealed records lie: sqlite, a file in --data, or postgresql://... with its"
        " password in a file that libpq reads (default: sqlite)",
    )
    parser.add_argument(
        "--collateral",
        type=Path,
        help="folder of collateral for quotes that come without (default: collateral in --data)",
    )
    parser.add_argument(
        "--probe",
        help="host:port for /healthz, /readyz and /metrics in plain HTTP, for your machines only"
        " (default: none)",
    )
    parser.add_argument(
        "--adopt",
        default=NOBODY,
        metavar="HOST:PORT",
        help="take keys over from an older release of this vault, which runs there: each key"
        " whose owner added this release (a new --data only; default: none)",
    )
    parser.add_argument(
        "--endpoint",
        metavar="HOST:PORT",
        help="where the clients of such keys find this process (default: --listen)",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of the lines on stderr"
    )
    options = parser.parse_args(argv)
    start_logging(options.log_format)
    listen = _address(parser, "--listen", options.listen)
    if not (options.store == SQLITE or options.store.startswith(POSTGRESQL)):
        parser.error("--store is sqlite or postgresql://...")
    old = None if options.adopt == NOBODY else options.adopt
    if old and not (listen[1] or options.endpoint):
        parser.error("--adopt needs a port in --listen, or --endpoint")
    probe = None if options.probe is None else _address(parser, "--probe", options.probe)
    try:
        # Threads verify while the loop is busy: they get the interpreter after 0.5 ms, not 5.
        sys.setswitchinterval(0.0005)
        # No core dump may hold a share (I13).
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o077)
        self_test(now=int(time.time()))
        folder = CollateralFolder(options.collateral or options.data / "collateral")
        adopting = Adopting(old, options.endpoint or options.listen)
        lies = partial(open_store, options.data, options.store)
        run = _run(
            open_producer(), lies, options.data, folder, listen, probe=probe, adopting=adopting
        )
        asyncio.run(run)
    except asyncio.CancelledError:
        return 0  # told to end twice; what is durable is durable
    except PlacetError as e:
        print(f"placet vault: {e.detail}\n{e.hint}".rstrip(), file=sys.stderr)  # noqa: T201 - its output
        return 3 if isinstance(e, VerificationError) else 4
    except OSError as e:
        print(f"placet vault: {options.listen}: {e.strerror or e}", file=sys.stderr)  # noqa: T201
        return 4
    except Exception as e:  # a traceback would show its text (I13)
        log.critical("ended by a failure inside", exc_info=e)
        return 1
    return 0


def _address(parser: argparse.ArgumentParser, option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        parser.error(f"{option} is {text!r}, not host:port")
    return host.strip("[]"), int(port)


def open_vault(
    producer: Producer,
    store: Store,
    host_time: int,
    standing: StandingMaker = Standing,
    clock_of: Callable[[Callable[[], int]], VaultClock] = VaultClock,
    *,
    verify: EvidenceVerifier = verify_evidence,
) -> tuple[Vault, VaultIdentity, VaultConfig, Log, VaultClock]:
    """Return the vault that lives in a sealed store; a fresh one is made in an empty store.

    Its start is logged when it first stands: at once, if it has no key yet.

    Args:
        producer: Says what it is.
        store: Its own.
        host_time: Unix seconds that its time is never before.
        standing: Makes what says whether it may serve.
        clock_of: Makes its clock, given what its time is never before.
        verify: Verifies its own evidence, to know which release it is.

    Raises:
        VerificationError: The store holds another vault's records, or was changed.
        UnavailableError: The measured config is no vault's.
    """
    about = producer.describe()
    config = measured_config(about)
    identity = _identity(store, about)
    journal = Log(store, boot=identity.boot, rng=os.urandom)
    clock = clock_of(lambda: max(journal.time, host_time))

    def begin() -> None:
        journal.commit(Draft(kind="boot", detail={"boots": identity.boots}), now=clock.now())

    rule = standing(
        key=identity.key,
        line=identity.line,
        boot=identity.boot,
        boots=identity.boots,
        store=store,
        log=journal,
        clock=clock,
        rng=os.urandom,
        begin=begin,
    )
    vault = Vault(
        identity=identity,
        settings=config.settings,
        store=store,
        log=journal,
        clock=clock,
        standing=rule,
        release=OwnRelease(producer, trust_from_config(config.trust_roots), verify, clock.now),
    )
    vault.find_circles()
    rule.begin_alone()
    return vault, identity, config, journal, clock


async def _run(
    producer: Producer,
    lies: Callable[[Seal], Store],
    data: Path,
    folder: CollateralFolder,
    listen: tuple[str, int],
    *,
    probe: tuple[str, int] | None,
    adopting: Adopting,
) -> None:
    store = lies(Seal(producer.sealing_key(), "", os.urandom))
    completing = completed_by(folder)
    await adopting.begin(store, producer, completing)
    vault, identity, config, journal, clock = open_vault(producer, store, 0, verify=completing)
    standing = vault.standing
    if not isinstance(standing, Standing):
        raise TypeError("a vault that runs asks its witnesses")
    certificate = make_certificate(
        now=clock.now(),
        lifetime=CERTIFICATE_LIFETIME,
        evidence_of=partial(own_evidence, producer, identity.id),
    )
    marked = MarkedVerifier(store, folder)
    line = Line(
        trust=trust_from_config(config.trust_roots),
        verify=marked,
        clock=clock,
        rng=os.urandom,
    )
    exchange = ServerExchange(
        producer=producer,
        identity_key=identity.key,
        trust=line.trust,
        clock=clock,
        rng=os.urandom,
        verify=Checks(marked),
        turn=Lane(MAX_QUOTES).turn,
    )
    peers = Peers(standing, vault, line)
    operations, collateral = Operations(), Collateral()
    door = VaultDoor()
    operations.watch_door(door)
    collateral.look(producer, line.verify, line.trust, clock.now())
    health = store_reasons(journal)
    for source in (
        health,
        standing_reasons(standing),
        lambda: collateral.reasons(clock.now()),
        lambda: clock_reasons(clock.now(), time.time()),
    ):
        operations.readiness.add(source)
    operations.watch_disk(data)
    operations.watch_standing(standing, clock.monotonic)
    _show_numbers(operations.meters, vault, journal, collateral, clock)
    stop = asyncio.Event()
    end_on_signals(operations.readiness, stop)

    def announce(bound: int) -> None:
        at = f"{listen[0]}:{bound}"
        log.info("vault %s ready on %s, boot %d", identity.id, at, identity.boots)

    async def settle() -> None:
        for minute in itertools.count(1):
            await asyncio.sleep(MINUTE)
            journal.settle(now=clock.now())
            if minute % MINUTE == 0:
                collateral.look(producer, line.verify, line.trust, clock.now())

    async with contextlib.AsyncExitStack() as last:
        last.callback(store.close)
        last.callback(lambda: journal.settle(now=clock.now(), stopping=True))
        if probe is not None:
            asks = Probe(health=health, readiness=operations.readiness, meters=operations.meters)
            port = await last.enter_async_context(probing(asks, *probe))
            log.info("probes on %s:%d", probe[0], port)
        settling = asyncio.create_task(settle())
        last.callback(settling.cancel)
        await last.enter_async_context(peers.asking())
        await last.enter_async_context(adopting.going_on(vault, identity, producer, completing))
        await serve(
            VaultApp(vault, operations.watch, peers.soon, operations.watch_turns(journal)),
            make_context(*certificate, server=True),
            exchange,
            host=listen[0],
            port=listen[1],
            announce=announce,
            stop=stop,
            door=door,
        )
    log.info("ended: the log is settled and the store is closed")


def _show_numbers(
    meters: Meters, vault: Vault, journal: Log, collateral: Collateral, clock: VaultClock
) -> None:
    def collateral_left() -> float | None:
        return None if collateral.until is None else collateral.until - clock.now()

    meters.gauge("placet_log_entries", "Entries of the log.", lambda: journal.head()[0])
    meters.gauge("placet_keys", "Keys that were born here.", lambda: vault.born)
    meters.gauge("placet_collateral_seconds", "Until our own collateral ends.", collateral_left)


def open_store(data: Path, uri: str, seal: Seal) -> Store:
    """Open the sealed store: SQLite's file in a folder, or what ``uri`` names."""
    make_folder(data)
    if uri == SQLITE:
        return SqliteStore(data / "vault.db", seal)
    # Late: most vaults run without it, and are built without its driver.
    from placet.storage.postgresql import PostgresqlStore  # noqa: PLC0415

    return PostgresqlStore(uri, seal)


def _identity(store: Store, about: Description) -> VaultIdentity:
    """Read who this vault is, or make it at the very first start; count the start."""
    stored = store.get(IDENTITY)
    if stored is None:
        if store.size():
            raise VerificationError(
                "the store has a log and no identity: records are missing",
                "Replace this vault; its data folder was changed.",
            )
        key, boots, line = Ed25519PrivateKey.generate(), 0, ""
    else:
        record = decode(stored.value, IdentityRecord)
        key = Ed25519PrivateKey.from_private_bytes(unb64(record.private_key))
        boots, line = record.boots, record.line or ""
    identity = VaultIdentity(key=key, boot=about.boot, boots=boots + 1, line=line)
    # Only now the record is known to be the newest one under the vault's root.
    store.bind(identity.id, boots=boots)
    record = IdentityRecord(
        private_key=b64(key.private_bytes_raw()),
        boots=identity.boots,
        boot=identity.boot,
        line=identity.own_line,
    )
    put = Put(IDENTITY, encode(record), stored.version if stored else None)
    store.commit(Batch((put,), boots=identity.boots))
    return identity
