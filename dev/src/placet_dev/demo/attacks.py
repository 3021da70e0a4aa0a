"""What the platform tries: each is really done, and must be refused for the right reason."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from placet.client.constellation import Constellation
from placet.client.signing import Composer, SigningKey, promote_body
from placet.core.body import BirthBody
from placet.core.profile import VaultSet
from placet.core.signer import Threshold
from placet.core.statement import Birth, Promote, UntrustedStatement, compose, open_statement
from placet.core.table import PolicyTable
from placet.errors import ApprovalError, ConflictError, MalformedError, PlacetError
from placet_dev.apps import Refusal
from placet_dev.demo.steps import Step, StepFailedError
from placet_dev.demo.world import (
    World,
    all_refused,
    refused_by_agent,
    request,
)
from placet_dev.notes.builds import LABEL
from placet_dev.tee.bundle import restate
from placet_dev.vaults import VaultProcess

TAKEN = 200


def promotes_by_itself(world: World) -> str:
    """Sign an approval of version 2 with the platform's own key, as owner and stager."""
    own = SigningKey.load("platform", world.platform.state / "stager.pem")
    policy = world.policy()
    approval = _composer().promote(policy, promote_body(policy, world.profile("notes-2")))
    said = all_refused(world.platform.relay(request(own.sign(approval))), ApprovalError)
    _nothing_changed(world, policy.head)
    return f"signed by the stager's key: {said}"


def tampers_with_a_relayed_statement(world: World) -> str:
    """Put version 2 into what the owner signed about version 1; then relay what was signed."""
    policy = world.policy()
    # The owner signed an approval of version 2 for the platform to carry, and thought better
    # of it before it was brought anywhere: see the next attack.
    world.held_back = world.owner.sign_promote(world.key, world.profile("notes-2"))
    world.owner.take_back(world.held_back)
    # In its place the owner asks more of the machines that run version 1.
    profile = world.profile("notes-1")
    strict = msgspec.structs.replace(profile.tcb, denied_families=("000000000000",))
    signed = world.owner.sign_promote(world.key, msgspec.structs.replace(profile, tcb=strict))
    tampered = _with_profile_of(world, signed, "notes-2")
    said = all_refused(world.platform.relay(request(tampered)), ApprovalError)
    _nothing_changed(world, policy.head)
    answers = world.platform.relay(request(signed))
    if any(a["status"] != TAKEN for a in answers):
        raise StepFailedError(f"what the owner signed was not taken either: {answers}")
    return f"image swapped in the owner's statement: {said}; the very bytes: taken by all"


def replays_an_old_approval(world: World) -> str:
    """Relay an approval of version 2 that the owner signed, and then replaced by another."""
    if world.held_back is None:
        raise StepFailedError("there is no old approval to replay")
    head = world.policy().head
    said = all_refused(world.platform.relay(request(world.held_back)), ConflictError)
    # And on top of the statement that replaced it: that is another statement, unsigned.
    moved = _moved(world, world.held_back)
    again = all_refused(world.platform.relay(request(moved)), ApprovalError)
    _nothing_changed(world, head)
    return f"as it was signed: {said}; moved to today's head: {again}"


def points_the_app_at_its_own_vaults(world: World) -> str:
    """Run a genuine vault, give birth to a key of one's own there, and start notes 1 on it."""
    folder = world.state / "attack-vaults"
    launcher = world.constellation.launcher
    vault = VaultProcess(folder=folder / "vault")
    vault.start(launcher, world.constellation.bundle)
    own_set = VaultSet(k=1, vaults=(vault.member,), profiles=world.constellation.listed().profiles)
    try:
        # A key whose owner is the platform, at a genuine vault that is the platform's.
        birth = _own_birth(world, own_set)
        _submit(world, own_set, birth)
        alone = _try_charter(world, folder / "own.json", birth.digest, request(birth))
        # The app's own key, and a charter that names the platform's vault for it.
        item = world.charter()[0]
        moved = _with_vaults(open_statement(item.signed), own_set)
        forged = _try_charter(world, folder / "forged.json", world.key, request(moved))
    finally:
        vault.end(launcher)
    return (
        f"a key of the platform's own: exit {alone.code}, {alone.type}; "
        f"the app's key with other vaults: exit {forged.code}, {forged.type}"
    )


def swaps_the_image(world: World) -> str:
    """Put version 2's files under the name and version of what was approved."""
    swapped = world.platform.bundles / "notes-1-swapped"
    shutil.copytree(world.platform.bundles / "notes-1", swapped)
    edition = Path("image", "notes", "edition.py")
    shutil.copyfile(world.platform.bundles / "notes-2" / edition, swapped / edition)
    # The bundle still names the approved image: the TEE measures, and does not read names.
    unmeasured = _raises(lambda: world.start("notes-1-swapped"), MalformedError)
    # It names what it holds now: it starts, and is other code.
    restate(swapped)
    before = world.volume_digest("swapped")
    refusal = refused_by_agent(
        world.start("notes-1-swapped", "swapped"), "measurement-not-approved"
    )
    if world.volume_digest("swapped") != before:
        raise StepFailedError("the refused app wrote to its volume")
    return (
        f"under the approved digest: the TEE refuses, {unmeasured.type}; "
        f"under its own: exit {refusal.code}, {refusal.type}"
    )


ATTACKS = (
    Step("platform promotes notes 2 by itself", "refused", promotes_by_itself),
    Step("platform tampers with a relayed statement", "refused", tampers_with_a_relayed_statement),
    Step("platform replays an old approval", "refused", replays_an_old_approval),
    Step("platform points notes at its own vaults", "refused", points_the_app_at_its_own_vaults),
    Step("platform swaps the image under an approved name", "refused", swaps_the_image),
)


def _composer() -> Composer:
    return Composer(now=int(time.time()), rng=os.urandom)


def _nothing_changed(world: World, head: str) -> None:
    if set(world.heads().values()) != {head}:
        raise StepFailedError("a vault's head moved")


def _with_profile_of(world: World, sent: UntrustedStatement, bundle: str) -> UntrustedStatement:
    """Return the statement about another bundle, under the signatures that it had."""
    if not isinstance(sent.statement, Promote):
        raise StepFailedError("not a promote")
    body = msgspec.structs.replace(sent.statement.body, profile=world.profile(bundle))
    return compose(msgspec.structs.replace(sent.statement, body=body), sent.signatures)


def _moved(world: World, sent: UntrustedStatement) -> UntrustedStatement:
    """Return the statement on top of today's head, under the signatures that it had."""
    policy = world.policy()
    if not isinstance(sent.statement, Promote):
        raise StepFailedError("not a promote")
    moved = msgspec.structs.replace(sent.statement, prev=policy.head, base_version=policy.version)
    return compose(moved, sent.signatures)


def _with_vaults(sent: UntrustedStatement, vault_set: VaultSet) -> UntrustedStatement:
    """Return a birth with other vaults, under the signatures that it had."""
    if not isinstance(sent.statement, Birth):
        raise StepFailedError("not a birth")
    body = msgspec.structs.replace(sent.statement.body, vault_set=vault_set)
    return compose(msgspec.structs.replace(sent.statement, body=body), sent.signatures)


def _own_birth(world: World, vault_set: VaultSet) -> UntrustedStatement:
    own = SigningKey.load("platform", world.platform.state / "stager.pem")
    table = PolicyTable(
        owner=Threshold(label="platform", threshold=1, of=(own.signer,)),
        stagers=(),
        profiles=(world.profile("notes-1"),),
        security_version_floor=0,
    )
    body = BirthBody(label=LABEL, policy=table, vault_set=vault_set)
    return own.sign(_composer().birth(body))


def _submit(world: World, vault_set: VaultSet, sent: UntrustedStatement) -> None:
    async def act(vaults: Constellation) -> bool:
        return (await vaults.submit(sent.signed())).effective

    if not world.visit(vault_set, act):
        raise StepFailedError("the platform's own vault did not take its own birth statement")


def _try_charter(world: World, file: Path, key: str, charter: bytes) -> Refusal:
    """Start notes 1 with a charter of the platform's making, on an empty volume."""
    file.write_bytes(charter)
    volume = file.with_suffix(".volume")
    started = world.start_behind(
        world.platform.bundles / "notes-1",
        {"key": key, "volume": str(volume), "charter": str(file)},
        file.with_suffix(".log"),
    )
    refusal = refused_by_agent(started, "policy-denied", "verification-failed")
    if volume.exists() and any(volume.iterdir()):
        raise StepFailedError("the refused app wrote to its volume")
    return refusal


def _raises(act: Callable[[], object], problem: type[PlacetError]) -> PlacetError:
    try:
        act()
    except problem as e:
        return e
    raise StepFailedError(f"it was not refused; expected {problem.type}")
