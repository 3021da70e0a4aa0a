"""What a courier adds to the owner's statements cannot harm the key (DESIGN section 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    identity,
    person,
    profile,
    signed,
    vault_key,
    vault_name,
)
from placet_testing.constellations import SECRET, Story, begin, run_of
from placet_testing.vaults import open_bench

from placet.client.signing import promote_body
from placet.core.body import StageBody
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, encode
from placet.core.limits import MAX_BODY
from placet.core.messages import CourierItem, StageRequest, Taken, TakeRequest
from placet.core.signer import KeySignature
from placet.core.statement import UntrustedStatement, compose, open_statement
from placet.errors import MalformedError, NotFoundError, RateLimitedError
from placet.policy.gate import decide_release

V1, V2, V3 = profile(1), profile(2), profile(3)
JUNK = b64(b"j" * 600_000)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Five vaults, one key, version 1 approved and the key created."""
    begun = begin(tmp_path)
    yield begun
    begun.close()


def with_strangers(sent: UntrustedStatement, text: str = JUNK) -> UntrustedStatement:
    """Return the statement with what looks like somebody else's signature."""
    stranger = KeySignature(signer="sha256:" + "0" * 64, signature=text)
    return compose(sent.statement, (*sent.signatures, stranger))


def taken_by(number: int, sent: UntrustedStatement) -> Signed:
    """Return the receipt of a vault that took a statement as the second."""
    receipt = Taken(
        vault=vault_name(number),
        key=sent.key,
        statement=sent.digest,
        version=2,
        index=7,
        time=NOW,
    )
    return sign_record(receipt, vault_key(number))


@pytest.mark.req("I2")
@pytest.mark.parametrize("padding", ["receipts", "signatures"])
def test_what_a_courier_adds_is_not_kept(story: Story, padding: str) -> None:
    """Ten padded promotes later the charter can be read, and the vault starts again."""
    for number in range(2, 12):
        body = promote_body(story.policy, profile(number))
        sent = signed(composer().promote(story.policy, body))
        item = run_of(sent if padding == "receipts" else with_strangers(sent)).chain[0]
        receipts = (Signed(payload=JUNK, vault_key="", signature=""),)
        extra = receipts if padding == "receipts" else ()
        story.benches[0].vault.take(
            TakeRequest(chain=(CourierItem(signed=item.signed, receipts=extra),))
        )
        story.take(sent)
    assert len(encode(story.benches[0].vault.charter(story.key))) < MAX_BODY
    story.restart(0)
    assert story.gather(V1) == SECRET


@pytest.mark.req("I5")
def test_receipts_that_hold_are_kept(story: Story) -> None:
    """Of what comes with a statement, what vaults of the set signed about it stays."""
    sent = signed(composer().promote(story.policy, promote_body(story.policy, V2)))
    good = (taken_by(2, sent), taken_by(3, sent))
    stranger, other = taken_by(9, sent), taken_by(4, story.statements[0])
    story.benches[0].vault.take(run_of(sent, receipts=(*good, good[0], stranger, other)))
    item = story.benches[0].vault.charter(story.key).charter[-1]
    assert item.receipts[1:] == good
    assert item.signed == sent.signed()


@pytest.mark.req("I15")
def test_code_that_ended_in_1970_does_not_come_back(story: Story) -> None:
    """A later overlap never lengthens an earlier one, zero included."""
    body = promote_body(story.policy, V2, retire_at=0)
    story.take(signed(composer().promote(story.policy, body)))
    body = promote_body(story.policy, V3, retire_at=NOW + 3600)
    story.take(signed(composer().promote(story.policy, body)))
    assert {a.until for a in story.policy.approvals if a.profile == V1} == {0}
    with pytest.raises(Exception, match="was retired"):
        decide_release(
            story.policy,
            identity(V1, (story.key,)),
            purpose="release",
            keys=(story.key,),
            age=0,
            max_age=60,
            now=NOW,
        )


def test_an_app_that_is_no_text_is_refused_as_malformed(tmp_path: Path) -> None:
    """A zero byte in an app's name is the sender's fault, and named as that."""
    bench = open_bench(tmp_path)
    birth = signed(composer().birth(birth_body(profiles=(profile(1, app="a\0b"),))))
    with pytest.raises(MalformedError):
        bench.vault.take(run_of(birth))
    bench.store.close()


# --- pending ----------------------------------------------------------------------------------


def stage_for_app(number: int, by: str) -> StageRequest:
    """Return a stage for every key of the app, with a profile as large as one can be."""
    body = StageBody(
        profile=profile(number),
        version="2",
        source=hashlib.sha256(b"%d" % number).hexdigest(),
        provenance=None,
        review=None,
    )
    return StageRequest(signed=signed(composer().stage(None, body), by).signed())


@pytest.mark.req("I4")
def test_strangers_stages_are_not_shown_with_a_key(story: Story) -> None:
    """Who stages for an app under a key of their own is not among this key's pending."""
    vault = story.benches[0].vault
    stagers = (person("stranger").signer,)
    mine = signed(composer(seed="x").birth(birth_body(stagers=stagers)), "owner")
    vault.take(run_of(mine))
    vault.stage(stage_for_app(5, "stranger"))
    assert vault.pending(story.key).pending == ()
    assert len(vault.pending("notes").pending) == 1
    vault.stage(stage_for_app(6, "platform"))
    assert len(vault.pending(story.key).pending) == 1


@pytest.mark.req("I4")
def test_what_is_pending_is_taken_back_one_by_one(story: Story) -> None:
    """By a statement that names a key; what belongs into a charter is no stage."""
    vault = story.benches[0].vault
    first, second = (vault.stage(stage_for_app(number, "platform")) for number in (5, 6))
    body = promote_body(story.policy, profile(5))
    promote = signed(composer().promote(story.policy, body), "owner")
    with pytest.raises(MalformedError, match="only stage and revoke-pending"):
        vault.stage(StageRequest(signed=promote.signed()))
    revoke = composer().revoke(story.key, second.stage, "no")
    nobodys = signed(compose(replace(revoke.statement, key=None), ()), "platform")
    with pytest.raises(MalformedError, match="names the key"):
        vault.stage(StageRequest(signed=nobodys.signed()))
    before = vault.pending("notes").pending
    vault.stage(StageRequest(signed=signed(revoke, "platform").signed()))
    assert [open_statement(s).digest for s in vault.pending("notes").pending] == [first.stage]
    assert len(before) == 2
    with pytest.raises(NotFoundError):
        vault.stage(StageRequest(signed=signed(revoke, "platform").signed()))


@pytest.mark.req("I4")
def test_pending_never_outgrows_an_answer(story: Story) -> None:
    """Stages padded with strangers' signatures are kept without them; too many are refused."""
    vault = story.benches[0].vault
    for number in range(2, 12):
        request = stage_for_app(number, "platform")
        stranger = KeySignature(signer="sha256:" + "0" * 64, signature=JUNK)
        padded = (*request.signed.signatures, stranger)
        sent = type(request.signed)(payload=request.signed.payload, signatures=padded)
        vault.stage(StageRequest(signed=sent))
    assert len(encode(vault.pending("notes"))) < MAX_BODY // 10


def test_large_stages_fill_a_scope_and_not_the_disk(story: Story) -> None:
    """A scope that could no longer be shown in one answer takes no more."""
    vault = story.benches[0].vault
    advisories = tuple(f"{i:0200}" for i in range(250))
    for number in range(2, 40):
        what = profile(number)
        rules = type(what.tcb)(
            **{f: getattr(what.tcb, f) for f in what.tcb.__struct_fields__}
            | {"denied_advisories": advisories}
        )
        what = type(what)(**{f: getattr(what, f) for f in what.__struct_fields__} | {"tcb": rules})
        body = StageBody(profile=what, version="2", source="c", provenance=None, review=None)
        sent = signed(composer().stage(story.key, body), "platform")
        try:
            vault.stage(StageRequest(signed=sent.signed()))
        except RateLimitedError:
            break
    else:
        pytest.fail("38 stages of 60 kB were kept")
    assert len(encode(vault.pending(story.key))) < MAX_BODY
