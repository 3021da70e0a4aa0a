"""What must work: an app keeps its data through restart, upgrade and outage."""

from __future__ import annotations

from placet.core.profile import code_id
from placet_dev.apps import Serving
from placet_dev.constellation import LocalConstellation
from placet_dev.demo.attacks import ATTACKS
from placet_dev.demo.owner import Owner
from placet_dev.demo.steps import Step, StepFailedError
from placet_dev.demo.world import World, refused_by_agent
from placet_dev.notes.builds import LABEL, notes_config, write_notes
from placet_dev.platform_process import start_platform
from placet_dev.waiting import wait_for

N, K = 5, 3
KILLED = (4, 5)
FIRST = ("Buy milk", "Call the bank about the mortgage")
LATER = "Written while version 2 was waiting"


def five_vaults(world: World) -> str:
    """Start a software TEE, and five vaults in it."""
    world.constellation = LocalConstellation.create(world.state / "constellation", n=N, k=K)
    attested = world.attested()
    if attested != N:
        raise StepFailedError(f"{attested} of {N} vaults proved what they run")
    return f"{attested} processes, each attested live; any {K} give back a key"


def platform(world: World) -> str:
    """Start the platform as a process of its own."""
    world.platform = start_platform(world.constellation, world.state / "platform")
    return f"on {world.platform.address}; it stages, starts and relays"


def owner_makes_a_key(world: World) -> str:
    """Let the owner sign the birth of a key for notes 1."""
    world.owner = Owner(world.state / "owner")
    roots = (world.constellation.launcher.trust().root,)
    config = notes_config(world.owner.init(), roots)
    for version in ("1", "2"):
        folder = world.platform.bundles / f"notes-{version}"
        write_notes(folder, version, config, world.constellation.cache)
    world.key = world.owner.new_key(
        label=LABEL,
        vaults=world.constellation.file,
        profile=world.profile("notes-1"),
        stager=world.platform.stager(),
    )
    return f"key {world.key[:19]}..., born at {N} of {N} vaults"


def writes(world: World) -> str:
    """Start notes 1 for the first time: it makes the data key, and keeps notes."""
    app = world.serve("notes-1")
    for text in FIRST:
        app.add(text)
    world.written = app.texts()
    if world.written != list(FIRST):
        raise StepFailedError(f"wrote {FIRST}, read {world.written}")
    return f"data key made and shared out; {len(FIRST)} notes written"


def restarts(world: World) -> str:
    """Stop notes 1 and start it again."""
    code = world.stop()
    _reads_all(world, "notes-1")
    return f"stopped with {code}; the same {len(world.written)} notes are read again"


def stages(world: World) -> str:
    """Stage version 2: the owner sees it, and it changes nothing."""
    staged = world.platform.ask(
        "POST",
        "/v1/stage",
        {
            "bundle": "notes-2",
            "key": world.key,
            "version": "2",
            "source": "notes, version 2: a search box",
            "security_version": 1,
        },
    )
    taken = sum(v["status"] == 200 for v in staged["vaults"])  # noqa: PLR2004 - HTTP
    if taken != N:
        raise StepFailedError(f"staged at {taken} of {N} vaults: {staged['vaults']}")
    if world.owner.pending(world.key) != {code_id(world.profile("notes-2")): N}:
        raise StepFailedError("the owner does not see what was staged")
    return f"at {taken} of {N} vaults; the owner sees it as pending"


def deploys_unapproved(world: World) -> str:
    """Deploy version 2 before anybody approved it; then see that nothing was lost."""
    world.stop()
    before = world.volume_digest()
    refusal = refused_by_agent(world.start("notes-2"), "measurement-not-approved")
    if world.volume_digest() != before:
        raise StepFailedError("the refused version changed the volume")
    app = _reads_all(world, "notes-1")
    app.add(LATER)
    world.written = app.texts()
    return f"exit {refusal.code}, {refusal.type}; volume untouched, notes 1 goes on"


def kills_two(world: World) -> str:
    """Kill two vaults as a power failure would."""
    world.constellation.kill(*KILLED)
    alive = sorted(world.heads())
    if alive != [n for n in range(1, N + 1) if n not in KILLED]:
        raise StepFailedError(f"vaults {alive} answer")
    return f"vaults {' and '.join(map(str, KILLED))} are gone, {len(alive)} answer"


def promotes(world: World) -> str:
    """Let the owner look at version 2, and approve it, with two vaults missing."""
    profile = world.profile("notes-2")
    found = world.owner.review(world.key, code_id(profile), profile)
    if "not-your-build" in found:
        raise StepFailedError("what was staged is not what the owner's own build measures")
    effect = world.owner.promote(world.key, code_id(profile))
    gone = {world.constellation.vaults[n - 1].id for n in KILLED}
    if not effect.effective or len(effect.confirmed) != N - len(KILLED) or effect.missing != gone:
        raise StepFailedError(f"not as expected: {effect}")
    return (
        f"effective: {len(effect.confirmed)} of {N} vaults ({effect.needed} needed), names the "
        f"{len(gone)} missing; six words: {effect.words}"
    )


def upgrades(world: World) -> str:
    """Start version 2 on version 1's volume."""
    world.stop()
    app = _reads_all(world, "notes-2")
    found = app.texts("mortgage")
    if found != [FIRST[1]]:
        raise StepFailedError(f"version 2's search found {found}")
    return f"notes 2 reads all {len(world.written)} notes of notes 1, and can search them"


def converges(world: World) -> str:
    """Bring the dead vaults back, on the stores that they had."""
    head = world.heads()[1]
    world.constellation.restart(*KILLED)
    wait_for(lambda: True if set(world.heads().values()) == {head} else None, "the vaults to agree")
    back = " and ".join(map(str, KILLED))
    return f"vaults {back} took what they had missed from the others; all {N} agree again"


def retires(world: World) -> str:
    """Let the owner end version 1's approval."""
    effect = world.owner.retire(world.key, code_id(world.profile("notes-1")))
    if not effect.effective or effect.missing:
        raise StepFailedError(f"not as expected: {effect}")
    return f"effective: {len(effect.confirmed)} of {N} vaults ({effect.needed} needed)"


def retired_is_refused(world: World) -> str:
    """Start version 1 again, at once."""
    world.stop()
    before = world.volume_digest()
    refusal = refused_by_agent(world.start("notes-1"), "measurement-not-approved")
    if code_id(world.profile("notes-1")) not in world.policy().tombstones:
        raise StepFailedError("notes 1 has no tombstone")
    if world.volume_digest() != before:
        raise StepFailedError("the retired version changed the volume")
    _reads_all(world, "notes-2")
    return f"exit {refusal.code}, {refusal.type} (retired); notes 2 still reads"


def _reads_all(world: World, bundle: str) -> Serving:
    app = world.serve(bundle)
    if app.texts() != world.written:
        raise StepFailedError(f"wrote {world.written}, {bundle} reads {app.texts()}")
    return app


STORY: tuple[Step[World], ...] = (
    Step("five vaults start (k = 3)", "works", five_vaults),
    Step("platform starts", "works", platform),
    Step("owner gives birth to a key", "works", owner_makes_a_key),
    Step("notes 1 writes", "works", writes),
    Step("notes 1 restarts and reads", "works", restarts),
    Step("notes 2 is built and staged", "works", stages),
    Step("notes 2 is deployed, unapproved", "refused", deploys_unapproved),
    *ATTACKS,
    Step("two vaults are killed", "works", kills_two),
    Step("owner reviews and promotes notes 2", "works", promotes),
    Step("notes 2 reads notes 1's notes", "works", upgrades),
    Step("dead vaults return and converge", "works", converges),
    Step("owner retires notes 1", "works", retires),
    Step("notes 1 is started again", "refused", retired_is_refused),
)
