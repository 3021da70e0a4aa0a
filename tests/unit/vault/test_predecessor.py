"""An old process that cheats, a folder that is somebody's, and witnesses of many processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from placet_testing.charters import vault_key, vault_name
from placet_testing.handing import Process
from placet_testing.serving import trust
from placet_testing.tee import Tee, vault_config

from placet.attest.verify import verify_evidence
from placet.client.clock import HostClock
from placet.core.continuity import Beat, WitnessRequest, checkpoint_at
from placet.core.dsse import sign_record
from placet.core.encoding import b64, digest
from placet.core.handover import HandOverAnswer, HandOverConfirmed, HandOverList
from placet.core.limits import HAND_OVER_PART, MAX_LINES, MAX_PACKAGE
from placet.errors import (
    ConflictError,
    HandedOverError,
    MalformedError,
    RateLimitedError,
    RoleDeniedError,
    UnavailableError,
    VaultStartingError,
    VerificationError,
)
from placet.ratls.exchange import VerifiedPeer
from placet.ratls.http import Answer
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.vault.predecessor import Adoption, Fetched, Predecessor, introduce
from placet.vault.release import OwnRelease
from placet.vault.succession import Adopting
from placet.vault.witnessing import Witnessing

KEY = "sha256:" + "11" * 32
LINE = "00112233445566ff"
RAW = b"a package" * 10
LONG = b"x" * (HAND_OVER_PART + 1)


def predecessor(endpoint: str = "127.0.0.1:1") -> Predecessor:
    """Return a way to an old process, over which nothing is ever sent."""
    tee = Tee(vault_config(), version=2)
    return Predecessor(
        endpoint,
        vault=None,
        producer=tee,
        release=lambda: KEY,
        trust=trust(),
        verify=verify_evidence,
        clock=HostClock(),
        rng=os.urandom,
    )


def answer(process: Process, **changes: object) -> HandOverAnswer:
    """Return an answer about `RAW`."""
    fields: dict[str, object] = {
        "identity": b64(process.vault._identity.key.private_bytes_raw()),
        "size": len(RAW),
        "digest": digest("placet-hand-over/1", RAW),
        "part": b64(RAW),
        "confirmed": False,
    }
    return HandOverAnswer(**fields | changes)  # type: ignore[arg-type]


CHEATS = {
    "parts of different packages": [{"part": b64(RAW[:10])}, {"size": 999}],
    "a digest that changes": [{"part": b64(RAW[:10])}, {"digest": KEY}],
    "an empty part": [{"part": ""}],
    "too much": [{"part": b64(RAW + b"x")}],
    "other bytes": [{"part": b64(RAW[::-1])}],
    "a part beyond the limit": [
        {"size": HAND_OVER_PART + 9, "part": b64(b"x" * (HAND_OVER_PART + 1))}
    ],
    "a package beyond the limit": [{"size": MAX_PACKAGE + 1}],
    "an identity that is none": [{"identity": b64(b"short")}],
    "somebody else's identity": [{"identity": b64(b"k" * 32)}],
}


@pytest.mark.parametrize("cheat", CHEATS)
async def test_an_old_process_that_cheats_is_not_believed(
    cheat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes first; then one package, as it was named, with the identity that both are known by."""
    process = Process(tmp_path / "old.db", 1)
    peer = VerifiedPeer(
        role="vault", spki=KEY, identity=process.as_sender(), keys=(), attested_at=0.0
    )
    said = iter(CHEATS[cheat])
    asked = predecessor()

    async def ask(*_: object) -> tuple[HandOverAnswer, VerifiedPeer]:
        return answer(process, **next(said)), peer

    monkeypatch.setattr(asked, "_ask_once", ask)
    with pytest.raises(VerificationError):
        await asked.fetch(KEY, LINE, "127.0.0.1:2")
    process.close()
    asked.close()


async def test_an_old_process_that_proves_nothing_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it sends: without evidence there is nobody to have it from."""
    process, asked = Process(tmp_path / "old.db", 1), predecessor()
    nobody = VerifiedPeer(role="vault", spki=KEY, identity=None, keys=(), attested_at=0.0)

    async def ask(*_: object) -> tuple[HandOverAnswer, VerifiedPeer]:
        return answer(process), nobody

    monkeypatch.setattr(asked, "_ask_once", ask)
    with pytest.raises(VerificationError, match="proved nothing"):
        await asked.fetch(KEY, LINE, "127.0.0.1:2")
    process.close()
    asked.close()


async def test_an_answer_that_is_no_problem_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a problem is raised as what it says."""
    asked = predecessor()
    bodies = iter([b"<html>", b"[]", b'{"type": "https://placet.invalid/problems/role-denied"}'])

    class Pool:
        """Lends a connection over which these come."""

        @contextlib.asynccontextmanager
        async def acquire(self) -> AsyncIterator[Any]:
            """Lend it."""
            connection = AsyncMock()
            connection.request.return_value = Answer(403, {}, next(bodies))
            yield connection

        def close(self) -> None:
            """Close nothing."""

    monkeypatch.setattr(asked, "_pool", Pool())
    for expect in (MalformedError, MalformedError, RoleDeniedError):
        with pytest.raises(expect):
            await asked.list(0)
    asked.close()


async def test_one_key_that_cannot_be_had_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, moved on, not there now: the identity comes with the first that can be had."""
    asked, identity = predecessor(), Ed25519PrivateKey.generate()
    away = [UnavailableError("away")]
    pages = {0: ("a", "b"), 2: ("c",), 3: ("d",)}

    async def pages_of(since: int) -> HandOverList:
        return HandOverList(
            keys=pages[since], next=since + len(pages[since]), end=since == 3, kept=4
        )

    async def fetch(key: str, *_: object) -> Fetched:
        if key == "c" and away:
            raise away.pop()
        refused = {"a": VerificationError("no"), "b": HandedOverError("elsewhere")}
        if key in refused:
            raise refused[key]
        return Fetched(checked=None, sender=Mock(), identity=identity)

    monkeypatch.setattr(asked, "list", pages_of)
    monkeypatch.setattr(asked, "fetch", fetch)
    assert await introduce(asked, LINE, "127.0.0.1:2", pause=0) is identity
    assert away == []
    asked.close()


async def test_a_key_that_is_refused_is_tried_again_and_one_elsewhere_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And nothing of either is served."""
    vault, old = Mock(), AsyncMock()
    vault.has.return_value = False
    adoption = Adoption(vault, old, LINE, "127.0.0.1:2")
    old.fetch.side_effect = VerificationError("not the package")
    assert not await adoption._one(KEY)
    assert "not the package" in caplog.text
    old.fetch.side_effect = HandedOverError("elsewhere")
    assert await adoption._one(KEY)
    vault.activate.assert_not_called()
    assert adoption.taken == 0


async def test_what_is_not_settled_yet_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old process waits for its witnesses; a confirmation of another package is none."""
    asked, count = predecessor(), [0]

    async def ask(*_: object) -> tuple[HandOverConfirmed, None]:
        count[0] += 1
        if count[0] < 3:
            raise VaultStartingError("not witnessed yet")
        return HandOverConfirmed(digest=KEY), None

    monkeypatch.setattr(asked, "_ask_once", ask)
    await asked.confirm(KEY, LINE, KEY)
    assert count == [3]
    with pytest.raises(VerificationError):
        await asked.confirm(KEY, LINE, "sha256:" + "22" * 32)
    asked.close()


@pytest.mark.parametrize("endpoint", ["", "nobody", "127.0.0.1", "127.0.0.1:65536", "a b:c"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    """Before anything is connected."""
    with pytest.raises(MalformedError):
        predecessor(endpoint)


@pytest.mark.req("I17")
async def test_a_folder_of_a_vault_with_keys_of_its_own_adopts_nobody(tmp_path: Path) -> None:
    """What lives there stays what it is, whatever an operator asks for."""
    process = Process(tmp_path / "vault.db", 2)
    before = process.id
    with pytest.raises(ConflictError):
        await Adopting("127.0.0.1:1", "127.0.0.1:2").begin(
            process.store, process.tee, verify_evidence
        )
    process.crash()
    assert process.id == before
    process.close()


def test_a_release_that_is_not_known_hands_nothing_over() -> None:
    """Its own evidence has to verify by its own roots."""
    tee = Tee(vault_config(), version=2)
    now = int(time.time())
    assert OwnRelease(tee, trust(), verify_evidence, lambda: now)().startswith("sha256:")
    with pytest.raises(UnavailableError):
        OwnRelease(tee, (), verify_evidence, lambda: now)()


@pytest.mark.req("I6")
def test_each_process_of_a_vault_is_witnessed_by_itself_and_not_without_end(tmp_path: Path) -> None:
    """A beat of a new line neither displaces nor is measured by one of another line."""
    own, vault = vault_key(9), vault_key(1)
    store = SqliteStore(tmp_path / "w.db", Seal(b"s" * 32, vault_name(9), os.urandom))
    witness = Witnessing(store, own, lambda: int(time.time()), lambda _: True)

    def beat(line: str, *, boots: int, size: int) -> bool:
        head = checkpoint_at(vault, f"boot {line}", size, bytes([size]) * 32, line)
        said = Beat(
            vault=vault_name(1),
            to=vault_name(9),
            boot=f"boot {line}",
            boots=boots,
            nonce="A" * 43,
            checkpoint=head,
            time=1,
            **({"line": line} if line else {}),
        )
        request = WitnessRequest(beat=sign_record(said, vault), old=0, before="", proof=(), since=0)
        return witness.answer(request).newest is None

    assert beat("", boots=7, size=20)
    lines = [f"{i:016x}" for i in range(MAX_LINES + 1)]
    for line in lines[:MAX_LINES]:
        assert beat(line, boots=1, size=2)
    assert not beat("", boots=6, size=19)
    assert not beat(lines[0], boots=1, size=1)
    with pytest.raises(RateLimitedError):
        beat(lines[-1], boots=1, size=2)
    store.close()
