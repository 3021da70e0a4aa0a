"""The platform against real processes, and proof that the steps notice when it gets in."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from placet_testing import backends
from placet_testing.leaks import Secrets, found_in

pytest.importorskip("placet_dev.notes.app.store")

from placet.agent.volume import EmbeddedVolume
from placet.client.signing import SigningKey
from placet.core.dsse import vault_id
from placet.core.encoding import decode, unb64
from placet.core.limits import MAX_RECORD
from placet.core.profile import SgxMeasurement, code_id
from placet.errors import ApprovalError, MalformedError
from placet.sharing.key import Answer, combine
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.vault.keys import record_name
from placet.vault.records import IdentityRecord, KeyRecord
from placet.vault.succession import IDENTITY
from placet_dev.apps import Refusal, Serving
from placet_dev.demo import story
from placet_dev.demo.attacks import ATTACKS
from placet_dev.demo.steps import Step, StepFailedError
from placet_dev.demo.world import VOLUME, World, all_refused, refused_by_agent
from placet_dev.tee.bundle import read_bundle
from placet_dev.tee.enclave import SEAL

UNAVAILABLE = 75


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Five vaults, a platform, an owner; notes 1 runs and holds notes, notes 2 is staged."""
    made = World(state=tmp_path_factory.mktemp("redteam"))
    try:
        for act in (
            story.five_vaults,
            story.platform,
            story.owner_makes_a_key,
            story.writes,
            story.stages,
        ):
            act(made)
        yield made
    finally:
        made.close()


@pytest.mark.req("I2")
@pytest.mark.parametrize("attack", ATTACKS, ids=[a.name for a in ATTACKS])
def test_attack_is_refused(world: World, attack: Step[World]) -> None:
    """Each of the demo's attacks, in its order: the step raises unless it was refused."""
    assert attack.act(world)


@pytest.mark.req("I4")
def test_staging_lets_nobody_in(world: World) -> None:
    """Notes 2 is staged at every vault, and is refused as if it were not."""
    assert code_id(world.profile("notes-2")) in world.owner.pending(world.key)
    assert "measurement-not-approved" in story.deploys_unapproved(world)


def test_notes_outlive_a_power_failure(world: World) -> None:
    """The app and its agent are killed while they serve: every note that was answered is there."""
    app = world.app()
    app.add("answered before the lights went out")
    world.written = app.texts()
    launcher = world.constellation.launcher
    launcher.stop(app.workload, signal.SIGKILL)
    launcher.wait(app.workload)
    assert world.serve("notes-1").texts() == world.written


@pytest.mark.req("R8.3")
@pytest.mark.req("I9")
def test_one_vault_more_than_may_be_down(world: World) -> None:
    """With n-k+1 vaults dead the app is told so, by a type; nothing is created or changed."""
    world.stop()
    world.constellation.kill(3, 4, 5)
    before = world.volume_digest()
    fresh = refused_by_agent(
        world.start("notes-1", "fresh"), "quorum-unavailable", code=UNAVAILABLE
    )
    known = refused_by_agent(world.start("notes-1"), "quorum-unavailable", code=UNAVAILABLE)
    assert "2 of 5" in known.said
    assert "2 of 5" in fresh.said
    assert world.volume_digest() == before
    assert not list((world.platform.state / "volumes" / "fresh").iterdir())
    world.constellation.restart(3, 4, 5)
    assert world.serve("notes-1").texts() == world.written


@pytest.mark.req("I17")
def test_the_environment_of_the_launcher_changes_nothing(world: World) -> None:
    """What the platform may set without being measured are values, never options or code."""
    launcher, bundle = world.constellation.launcher, world.platform.bundles / "notes-1"
    for params in (
        {"listen": "--wait"},
        {"listen": "127.0.0.1:0", "python": "/bin/sh"},
        {"listen": "127.0.0.1:0", "LD_PRELOAD": "x.so"},
    ):
        with pytest.raises(MalformedError, match="parameter"):
            launcher.start(bundle, {"key": world.key, "volume": "v", "charter": "c", **params})


@pytest.mark.req("I13", "R4.9")
def test_processes_leave_no_secret_where_others_look(world: World, tmp_path: Path) -> None:
    """Of what the launcher's own secret opens, nothing lies on a disk, in a log or in /proc."""
    state, secrets = world.state, Secrets()
    launcher_secret = (state / "constellation" / "tee" / "sealing.key").read_bytes()
    secrets.add("sealing secret", launcher_secret)
    measured = read_bundle(world.constellation.bundle).measurement
    assert isinstance(measured, SgxMeasurement)
    info = SEAL + bytes.fromhex(measured.mrenclave)
    key = HKDF(SHA256(), 32, salt=None, info=info).derive(launcher_secret)
    secrets.add("sealing key", key)
    answers = []
    for number in range(1, 6):
        folder = state / "constellation" / "vaults" / str(number)
        backends.Sqlite().copy(folder / "data" / "vault.db", tmp_path / f"{number}.db")
        with contextlib.closing(
            SqliteStore(tmp_path / f"{number}.db", Seal(key, "", os.urandom))
        ) as store:
            identity = decode(store.get(IDENTITY).value, IdentityRecord)  # type: ignore[union-attr]
            private = Ed25519PrivateKey.from_private_bytes(unb64(identity.private_key))
            vault = vault_id(private.public_key().public_bytes_raw())
            store.bind(vault, boots=identity.boots)
            found = store.get(record_name(world.key))
            committed = decode(found.value, KeyRecord, limit=MAX_RECORD).committed  # type: ignore[union-attr]
        assert committed is not None
        secrets.add("identity key", private.private_bytes_raw())
        secrets.add("share", unb64(committed.share))
        answers.append(
            Answer(vault=vault, manifest=committed.manifest, share=unb64(committed.share))
        )
    data_key = combine(answers, k=3, key=world.key).key
    secrets.add("data key", data_key)
    volume = EmbeddedVolume(state / "platform" / "volumes" / VOLUME).unlock(data_key, key=world.key)
    secrets.add("volume key", volume.secret)
    secrets.add("memory key", volume.memory_key)
    owner = SigningKey.load("", world.owner.home / "owner.pem").private
    assert isinstance(owner, Ed25519PrivateKey)
    secrets.add("owner's key", owner.private_bytes_raw())

    own = {"bundles", "cache", "tee", "owner.pem", "stager.pem"}
    hay = {
        str(path.relative_to(state)): path.read_bytes()
        for path in state.rglob("*")
        if path.is_file() and not own & set(path.relative_to(state).parts)
    }
    hay["launcher"] = (state / "constellation" / "tee" / "launcher.log").read_bytes()
    running = [p.pid for p in world.constellation.launcher.list() if p.exit is None]
    for pid in running:
        for name in ("environ", "cmdline"):
            hay[f"{pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    assert len(running) >= 5
    assert {p.partition("/")[0] for p in hay} >= {"platform", "owner", "constellation"}
    assert found_in(secrets, hay) == set()


# --- the steps can fail: from here on the owner has let notes 2 in -------------------------


def test_a_step_notices_when_the_version_is_let_in(world: World) -> None:
    """After the owner's promote the refused deployment starts, and its step says so."""
    effect = world.owner.promote(world.key, code_id(world.profile("notes-2")))
    assert (len(effect.confirmed), effect.missing) == (5, frozenset())
    with pytest.raises(StepFailedError, match="it started"):
        story.deploys_unapproved(world)
    with pytest.raises(StepFailedError, match="it started"):
        refused_by_agent(Serving("127.0.0.1:1", "notes-9", "2"), "measurement-not-approved")


def test_a_step_notices_another_reason() -> None:
    """A refusal for the wrong reason, or by one vault too few, is no proof."""
    with pytest.raises(StepFailedError):
        refused_by_agent(Refusal(77, "malformed", "", ""), "measurement-not-approved")
    with pytest.raises(StepFailedError):
        refused_by_agent(Refusal(75, "quorum-unavailable", "", ""), "quorum-unavailable")
    refused = {"endpoint": "a", "status": 403, "answer": ApprovalError("").problem()}
    taken = {"endpoint": "b", "status": 200, "answer": {"head": "x"}}
    assert all_refused([refused], ApprovalError)
    for answers in ([refused, taken], []):
        with pytest.raises(StepFailedError):
            all_refused(answers, ApprovalError)
