"""Staging, as rules: who may put a version forward and who may take it back (I4 is elsewhere)."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import NOW, birth_body, composer, owner_of, person, profile, signed

from placet.core.body import StageBody
from placet.core.signer import signer_id
from placet.core.statement import UntrustedStatement, compose
from placet.errors import ApprovalExpiredError, MalformedError, RoleDeniedError
from placet.policy.charter import CLOCK_SKEW, replay
from placet.policy.key_policy import KeyPolicy
from placet.policy.pending import check_revoke_pending, check_stage

OWNER = owner_of(person("owner").signer)
STAGERS = (person("platform").signer, person("second").signer)
DAY = 86400


@pytest.fixture(scope="module")
def policy() -> KeyPolicy:
    """Return a policy with two stagers."""
    return replay([signed(composer().birth(birth_body(OWNER, stagers=STAGERS)))])


def stage(policy: KeyPolicy, *names: str, what=None, key: str | None = "") -> UntrustedStatement:
    """Return a signed stage; for this key unless another is named."""
    body = StageBody(
        profile=what or profile(2), version="2", source="s", provenance=None, review=None
    )
    return signed(composer().stage(policy.key if key == "" else key, body), *names)


def revoke(policy: KeyPolicy, *names: str, key: str | None = None) -> UntrustedStatement:
    """Return a signed revoke-pending."""
    return signed(composer().revoke(key or policy.key, "sha256:" + "1" * 64, "x"), *names)


@pytest.mark.parametrize("name", ["platform", "second", "owner"])
def test_stagers_and_owner_signers_stage(policy: KeyPolicy, name: str) -> None:
    """The stager is named, for its quota; with and without a key."""
    for key in ("", None):
        sent = stage(policy, name, key=key)
        assert check_stage(policy, sent, now=NOW) == signer_id(person(name).signer)


def test_nobody_else_stages(policy: KeyPolicy) -> None:
    """The refusal is about the role, and says what to ask for."""
    with pytest.raises(RoleDeniedError) as refusal:
        check_stage(policy, stage(policy, "stranger"), now=NOW)
    assert "stagers" in refusal.value.hint
    forged = stage(policy, "platform")
    other = stage(policy, "platform", what=profile(3))
    with pytest.raises(RoleDeniedError):
        check_stage(policy, compose(other.statement, forged.signatures), now=NOW)


@pytest.mark.parametrize(
    ("now", "taken"),
    [
        (NOW - CLOCK_SKEW, True),
        (NOW - CLOCK_SKEW - 1, False),
        (NOW + DAY - 1, True),
        (NOW + DAY, False),
    ],
)
def test_a_stage_is_in_time(policy: KeyPolicy, now: int, *, taken: bool) -> None:
    """From its issue, less what clocks may differ, to its end."""
    for sent, check in (
        (stage(policy, "platform"), check_stage),
        (revoke(policy, "owner"), check_back),
    ):
        if taken:
            check(policy, sent, now=now)
            continue
        with pytest.raises(ApprovalExpiredError):
            check(policy, sent, now=now)


def check_back(policy: KeyPolicy, sent: UntrustedStatement, *, now: int) -> None:
    """Check a revocation of what the platform staged."""
    by = signer_id(person("platform").signer)
    check_revoke_pending(policy, sent, staged_by=by, now=now)


def test_a_stage_is_of_this_key_and_sound(policy: KeyPolicy) -> None:
    """Another key, another type, a profile that is none."""
    bad = msgspec.structs.replace(profile(2), app="no\nname")
    for sent in (
        stage(policy, "platform", key="sha256:" + "2" * 64),
        stage(policy, "platform", what=bad),
        revoke(policy, "platform"),
    ):
        with pytest.raises(MalformedError):
            check_stage(policy, sent, now=NOW)


def test_who_staged_it_or_an_owner_takes_it_back(policy: KeyPolicy) -> None:
    """Not another stager, and not for another key."""
    for name in ("platform", "owner"):
        check_back(policy, revoke(policy, name), now=NOW)
    with pytest.raises(RoleDeniedError):
        check_back(policy, revoke(policy, "second"), now=NOW)
    for sent in (stage(policy, "platform"), revoke(policy, "owner", key="sha256:" + "2" * 64)):
        with pytest.raises(MalformedError):
            check_back(policy, sent, now=NOW)
