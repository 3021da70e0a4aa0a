"""Keys under fuller policies: who is who, and rules that tests change one row of."""

from __future__ import annotations

from pathlib import Path

import msgspec

from placet.client.signing import auto_body
from placet.core.body import BirthBody
from placet.core.profile import Profile
from placet.core.signer import Signer, Threshold
from placet.core.statement import UntrustedStatement
from placet.core.table import Act, Acts, AutoMigrate, Guardians, PolicyTable, Rules
from placet_testing.charters import NOW, birth_body, composer, person, signed
from placet_testing.constellations import Story, begin
from placet_testing.passkey import SoftwarePasskey

DAY = 24 * 3600
PAGE = SoftwarePasskey(name="page", screen="page")
CLAUSE = AutoMigrate(
    signers=Threshold(label="builders", threshold=1, of=(person("platform").signer,)),
    changes=("image", "measurement"),
    max_step=1,
    delay=DAY,
    expires_at=NOW + 60 * DAY,
    budget=2,
)


def any_one(label: str, *signers: Signer) -> Threshold:
    """Return a principal of which any one signer is enough."""
    return Threshold(label=label, threshold=1, of=signers)


def some(label: str, count: int, *names: str) -> Threshold:
    """Return a principal of these roles, of whom so many must sign."""
    return Threshold(label=label, threshold=count, of=tuple(person(n).signer for n in names))


def governed_body(**changes: object) -> BirthBody:
    """Return a birth with two owner devices, managers, guardians; changed as named."""
    body = birth_body()
    fields: dict[str, object] = {
        "owner": any_one("owner", person("owner").signer, person("spare").signer, PAGE.signer),
        "managers": some("managers", 2, "m1", "m2", "m3"),
        "guardians": Guardians(
            principal=some("guardians", 2, "g1", "g2", "g3"), delay=7 * DAY, cooldown=3 * DAY
        ),
        "auditors": (person("auditor").signer,),
    } | changes
    table = body.policy
    return msgspec.structs.replace(
        body,
        policy=PolicyTable(
            stagers=table.stagers,
            profiles=table.profiles,
            security_version_floor=table.security_version_floor,
            **fields,  # type: ignore[arg-type]
        ),
    )


def governed(folder: Path, *, names: tuple[str, ...] = ("owner",), **changes: object) -> Story:
    """Have a key under such a policy born, signed by these, and created at five vaults."""
    return begin(folder, governed_body(**changes), names=names)


def co_signed(*acts: str, lifetime: int = DAY) -> Acts:
    """Return a table in which managers co-sign these acts."""
    return Acts(**{name: Act(managers=True, lifetime=lifetime) for name in acts})  # type: ignore[arg-type]


def with_rules(story: Story, **changes: object) -> Rules:
    """Return the rules in force with some fields changed."""
    return msgspec.structs.replace(story.policy.rules, **changes)


def update(story: Story, *names: str, **changes: object) -> UntrustedStatement:
    """Return a signed update of some rules."""
    sent = composer(story.clock.time).update(story.policy, with_rules(story, **changes), "test")
    return signed(sent, *names)


def use_clause(story: Story, what: Profile, *names: str, **changes: object) -> UntrustedStatement:
    """Return a use of the clause in force, by the builders unless others are named."""
    body = msgspec.structs.replace(auto_body(story.policy, what), **changes)
    sent = composer(story.clock.time).promote(story.policy, body)
    return signed(sent, *(names or ("platform",)))
