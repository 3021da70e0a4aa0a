"""What a vault does on each request, over a real sealed store (spec/07, section 2)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placet_testing.charters import composer, identity, profile, signed, vault_name
from placet_testing.constellations import NONCE, SECRET, Story, begin, run_of
from placet_testing.vaults import peer

from placet.client.signing import promote_body
from placet.core.body import StageBody
from placet.core.dsse import open_signed
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.logentry import LogEntry, entry_hash
from placet.core.messages import (
    Released,
    ReleaseRequest,
    StageRequest,
    StatusBody,
    Taken,
)
from placet.core.profile import Profile, code_id
from placet.errors import (
    AncestorMissingError,
    EvidenceStaleError,
    KeyNotBornError,
    NotApprovedError,
    NotFoundError,
    PlacetError,
    RateLimitedError,
    RoleDeniedError,
    ShareMissingError,
    UnavailableError,
)

V1, V2, V3 = profile(1), profile(2), profile(3)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Five vaults, one key, version 1 approved and the key created."""
    begun = begin(tmp_path)
    yield begun
    begun.close()


def stage(story: Story, what: Profile, by: str = "platform", key: str | None = "") -> StageRequest:
    """Return a signed stage of a profile."""
    body = StageBody(profile=what, version="2", source="c0ffee", provenance=None, review=None)
    sent = composer(story.clock.time).stage(story.key if key == "" else key, body)
    return StageRequest(signed=signed(sent, by).signed())


def entries(story: Story, at: int = 0) -> list[LogEntry]:
    """Return a vault's trail of the key."""
    answer = story.benches[at].vault.log(story.key, 0)
    return [decode(unb64(item.entry), LogEntry) for item in answer.entries]


# --- release ----------------------------------------------------------------------------------


@pytest.mark.req("I1")
def test_approved_code_gets_the_key_and_a_receipt(story: Story) -> None:
    """Three shares give the data key; the receipt names approval, code and recipient."""
    assert story.gather(V1) == SECRET
    answer = story.release(3, V1)
    receipt = open_signed(answer.receipt, Released, vault=vault_name(4))
    assert (receipt.key, receipt.statement, receipt.code) == (story.key, story.key, code_id(V1))
    entry = entries(story, 3)[-1]
    assert (entry.kind, entry.index) == ("release", receipt.index)


@pytest.mark.req("I1")
@pytest.mark.req("I9")
def test_v2_is_refused_until_the_owner_promotes_it(story: Story) -> None:
    """Refused, logged as denied, data intact; promoted, it reads what version 1 wrote."""
    with pytest.raises(NotApprovedError) as refused:
        story.release(0, V2)
    assert refused.value.members["code"] == code_id(V2)
    assert entries(story)[-1].kind == "denied"
    story.promote(V2)
    assert story.gather(V2) == story.gather(V1) == SECRET


@pytest.mark.req("I15")
@pytest.mark.req("R1.9")
def test_retired_means_the_next_request(story: Story) -> None:
    """A connection that was attested before the retire gets nothing after it."""
    story.promote(V2)
    attested = peer(identity(V1, (story.key,)), (story.key,), at=story.clock.ticks)
    story.gather(V1)
    story.retire(V1)
    for bench in story.benches:
        with pytest.raises(NotApprovedError) as refused:
            bench.vault.release(attested, story.key, release_request())
        assert refused.value.members["retired"] is True
        assert refused.value.status == 403
    assert story.gather(V2) == SECRET


def release_request(**changes: object) -> object:
    """Return a release request."""
    return ReleaseRequest(**({"nonce": NONCE, "head": None} | changes))


@pytest.mark.req("R1.8")
@pytest.mark.parametrize(("age", "good"), [(0, True), (60, True), (60.5, False), (3600, False)])
def test_evidence_supports_a_release_for_a_minute(story: Story, *, age: float, good: bool) -> None:
    """By the vault's monotonic clock; then: attest again."""
    attested = peer(identity(V1, (story.key,)), (story.key,), at=story.clock.ticks)
    story.clock.ticks += age
    vault = story.benches[0].vault
    if good:
        assert vault.release(attested, story.key, release_request()).share
    else:
        with pytest.raises(EvidenceStaleError):
            vault.release(attested, story.key, release_request())


ORDERS = list(itertools.permutations(("attest", "retire", "release", "release", "promote-other")))


@pytest.mark.req("R1.10")
@pytest.mark.parametrize("order", sorted(set(ORDERS)))
def test_no_release_follows_a_retire_in_any_interleaving(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    """Every order of attest, retire and release: the log never has a release after the retire."""
    story = begin(tmp_path)
    try:
        who = None
        for step in order:
            if step == "attest":
                who = peer(identity(V1, (story.key,)), (story.key,), at=story.clock.ticks)
            elif step == "retire":
                story.retire(V1, only=(0,))
            elif step == "promote-other":
                story.promote(V3, only=(0,))
            elif who is not None:
                with contextlib.suppress(NotApprovedError):
                    story.benches[0].vault.release(who, story.key, release_request())
        kinds = [(e.kind, e.statement) for e in entries(story)]
        retired = kinds.index(("taken", _retire_digest(story)))
        assert all(kind != "release" for kind, _ in kinds[retired:])
        released = sum(kind == "release" for kind, _ in kinds)
        expected = _expected_releases(order)
        assert released == expected
    finally:
        story.close()


def _retire_digest(story: Story) -> str:
    return next(s.digest for s in story.statements if type(s.statement).__name__ == "Retire")


def _expected_releases(order: tuple[str, ...]) -> int:
    attested = retired = False
    count = 0
    for step in order:
        attested |= step == "attest"
        retired |= step == "retire"
        count += step == "release" and attested and not retired
    return count


def test_a_caller_that_knows_more_is_not_served_by_a_laggard(story: Story) -> None:
    """The caller names a newer head: the vault says what it lacks and releases nothing."""
    newer = story.promote(V2, only=(0, 1, 2))
    with pytest.raises(AncestorMissingError) as refused:
        story.release(4, V1, head=newer.digest)
    assert refused.value.members["version"] == 1
    assert story.release(0, V1, head=story.key).version == 2


@pytest.mark.req("I9")
def test_doubts_are_typed_and_none_is_a_yes(story: Story, tmp_path: Path) -> None:
    """Unborn, uncreated, visitor: each a no of its own, and a denial is no absence."""
    unborn = "sha256:" + "0f" * 32
    vault = story.benches[0].vault
    who = peer(identity(V1, (unborn,)), (unborn,), at=story.clock.ticks)
    with pytest.raises(KeyNotBornError):
        vault.release(who, unborn, release_request())
    with pytest.raises(RoleDeniedError):
        vault.release(peer(None), story.key, release_request())
    (tmp_path / "b").mkdir()
    uncreated = begin(tmp_path / "b", created=False)
    with pytest.raises(ShareMissingError):
        uncreated.release(0, V1)
    with pytest.raises(NotApprovedError):
        uncreated.release(0, V2)
    uncreated.close()


# --- staging ----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["stage", "revoke"]), st.integers(1, 4), st.booleans()), max_size=6
)


def decisions(story: Story) -> list[str]:
    """Return what a vault answers to every identity that a test knows."""
    said = []
    for what in (V1, V2, V3, profile(4)):
        try:
            said.append(story.release(0, what).share)
        except PlacetError as e:
            said.append(f"{e.type} {e.members}")
    return said


@pytest.mark.req("I4")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_staging_is_inert(tmp_path_factory: pytest.TempPathFactory, steps: object) -> None:
    """No sequence of stage and revoke, by anyone, changes any decision."""
    story = begin(tmp_path_factory.mktemp("inert"))
    try:
        story.promote(V3)
        before, head = decisions(story), story.benches[0].vault.charter(story.key).head
        staged: list[str] = []
        for kind, number, by_owner in steps:  # type: ignore[attr-defined]
            by = "owner" if by_owner else "platform"
            vault = story.benches[0].vault
            try:
                if kind == "stage":
                    staged.append(vault.stage(stage(story, profile(number), by)).stage)
                elif staged:
                    vault.stage(revoke(story, staged[number % len(staged)], by))
            except (NotFoundError, RoleDeniedError):
                continue
            assert decisions(story) == before
        story.restart(0)
        assert decisions(story) == before
        assert story.benches[0].vault.charter(story.key).head == head
    finally:
        story.close()


def revoke(story: Story, digest: str, by: str) -> StageRequest:
    """Return a signed revoke-pending."""
    sent = composer(story.clock.time).revoke(story.key, digest, "no")
    return StageRequest(signed=signed(sent, by).signed())


def test_staged_versions_are_shown_and_taken_back(story: Story) -> None:
    """By digest; twice is once; the stager takes its own back, the owner anyone's."""
    vault = story.benches[0].vault
    digest = vault.stage(stage(story, V2)).stage
    assert vault.stage(stage(story, V2)).stage == digest
    assert len(vault.pending(story.key).pending) == 1
    assert vault.stage(revoke(story, digest, "owner")).stage == digest
    assert vault.pending(story.key).pending == ()
    digest = vault.stage(stage(story, V2)).stage
    vault.stage(revoke(story, digest, "platform"))
    with pytest.raises(NotFoundError):
        vault.stage(revoke(story, digest, "platform"))


def test_staged_for_an_app_shows_at_its_keys(story: Story) -> None:
    """A stage without a key is for every key of the app whose policy lists the stager."""
    vault = story.benches[0].vault
    vault.stage(stage(story, V2, key=None))
    assert len(vault.pending(story.key).pending) == 1
    assert len(vault.pending("notes").pending) == 1
    with pytest.raises(RoleDeniedError):
        vault.stage(stage(story, profile(2, app="mail"), key=None))


@pytest.mark.parametrize("by", ["stranger"])
def test_strangers_cannot_stage(story: Story, by: str) -> None:
    """Nor fill anybody's slots."""
    with pytest.raises(RoleDeniedError):
        story.benches[0].vault.stage(stage(story, V2, by))


def test_a_stager_has_a_quota_and_what_ended_frees_it(
    story: Story,
) -> None:
    """The platform cannot fill a vault beyond what the owner lets it; an ended stage makes room."""
    rules = msgspec.structs.replace(story.policy.rules, stager_quota=2)
    update = signed(composer().update(story.policy, rules, "two stages are enough"))
    for bench in story.benches:
        bench.vault.take(run_of(update))
    vault = story.benches[0].vault
    for number in (2, 3):
        vault.stage(stage(story, profile(number)))
    with pytest.raises(RateLimitedError):
        vault.stage(stage(story, profile(4)))
    vault.stage(stage(story, profile(4), "owner"))
    story.clock.time += 2 * 86400
    vault.stage(stage(story, profile(5)))
    assert len(vault.pending(story.key).pending) == 1


# --- the log comes first ------------------------------------------------------------------------


@pytest.mark.req("I11")
def test_nothing_leaves_when_the_log_cannot_be_written(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails: release, promote and promise are refused, and nothing changed."""
    before = story.benches[0].vault.charter(story.key)
    promote = signed(composer().promote(story.policy, promote_to(story, V2)))

    def full(*_: object, **__: object) -> None:
        raise UnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(story.benches[0].store, "commit", full)
        with pytest.raises(UnavailableError):
            story.release(0, V1)
        with pytest.raises(UnavailableError):
            story.benches[0].vault.take(run_of(promote))
    assert story.benches[0].vault.charter(story.key) == before
    with pytest.raises(NotApprovedError):
        story.release(0, V2)
    assert all(e.kind != "release" for e in entries(story))


def promote_to(story: Story, what: Profile) -> object:
    """Return a promote's body."""
    return promote_body(story.policy, what)


@pytest.mark.req("I11")
def test_an_auditor_replays_a_trail_and_misses_nothing(story: Story) -> None:
    """Each entry follows the one before it; each release names a statement taken before it."""
    story.promote(V2)
    story.gather(V2)
    with pytest.raises(NotApprovedError):
        story.release(0, V3)
    answer = story.benches[0].vault.log(story.key, 0)
    previous, taken = None, set()
    for number, item in enumerate(answer.entries):
        entry = decode(unb64(item.entry), LogEntry)
        assert (entry.key_seq, entry.key_prev) == (number, previous)
        previous = entry_hash(unb64(item.salt), unb64(item.entry))
        if entry.kind == "taken":
            taken.add(entry.statement)
        if entry.kind == "release":
            assert entry.statement in taken
    assert {"taken", "promised", "held", "committed", "release", "denied"} == {
        e.kind for e in entries(story)
    }


@pytest.mark.req("I11")
@pytest.mark.req("I5")
def test_a_restart_keeps_everything(story: Story) -> None:
    """Charter, shares, pending, tombstones: all as before, from the sealed store."""
    story.promote(V2)
    story.retire(V1)
    story.benches[0].vault.stage(stage(story, V3))
    before = [story.benches[0].vault.charter(story.key), story.release(0, V2).share]
    pending = story.benches[0].vault.pending(story.key)
    story.restart(0)
    assert [story.benches[0].vault.charter(story.key), story.release(0, V2).share] == before
    assert story.benches[0].vault.pending(story.key) == pending
    with pytest.raises(NotApprovedError):
        story.release(0, V1)
    story.benches[0].log.verify()


# --- statements -------------------------------------------------------------------------------


@pytest.mark.req("I14")
def test_taking_again_gives_the_same_receipts(story: Story) -> None:
    """Redelivery, by anyone and at any time, changes nothing."""
    promote = story.promote(V2)
    vault = story.benches[0].vault
    size = vault.log(story.key, 0).checkpoint
    story.clock.time += 90 * 86400
    again = vault.take(run_of(*story.statements))
    assert [open_signed(t, Taken, vault=vault_name(1)).version for t in again.taken] == [1, 2]
    assert again.head == promote.digest
    assert vault.log(story.key, 0).checkpoint == size


@pytest.mark.req("I5")
def test_a_lagging_vault_catches_up_by_receipts_after_expiry(story: Story) -> None:
    """K vaults took it in time; weeks later their receipts carry it to the fifth."""
    promote = story.promote(V2, only=(0, 1, 2))
    receipts = tuple(story.benches[i].vault.take(run_of(promote)).taken[0] for i in range(3))
    story.clock.time += 20 * 86400
    late = story.benches[4].vault
    with pytest.raises(PlacetError):
        late.take(run_of(promote))
    late.take(run_of(promote, receipts=receipts))
    assert story.release(4, V2).version == 2


def test_status_is_fresh_and_signed(story: Story) -> None:
    """The caller's nonce, the boot and the checkpoint, under the vault's own key."""
    nonce = b64(b"q" * 32)
    status = story.benches[2].vault.status(nonce)
    body = open_signed(status.status, StatusBody, vault=vault_name(3))
    assert (body.nonce, body.boot, body.boots, body.schemas) == (nonce, "boot-1", 1, (1, 2))
    assert body.checkpoint.startswith("placet/" + vault_name(3).removeprefix("sha256:"))
    assert "boot boot-1" in body.checkpoint


def test_statements_of_two_keys_do_not_travel_together(story: Story) -> None:
    """A run is of one key."""
    other = signed(composer(seed="other").birth(story.statements[0].statement.body))
    with pytest.raises(PlacetError, match="one key"):
        story.benches[0].vault.take(run_of(story.statements[0], other))


@pytest.mark.parametrize("nonce", ["", "A" * 42, "A" * 44, "A" * 900_000, "=" * 43])
def test_a_release_nonce_is_32_bytes(nonce: str) -> None:
    """Nothing longer is read, kept or echoed."""
    with pytest.raises(PlacetError):
        decode(encode(ReleaseRequest(nonce=nonce, head=None)), ReleaseRequest)
