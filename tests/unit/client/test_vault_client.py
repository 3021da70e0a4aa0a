"""One vault: what it answers is checked, and what breaks on the way is tried once more."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from placet_testing.charters import (
    NOW,
    composer,
    identity,
    profile,
    signed,
    vault_key,
    vault_name,
)
from placet_testing.clients import Link, client_of, memory_folder
from placet_testing.constellations import Story, begin
from placet_testing.vaults import TestClock, open_bench

from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.body import StageBody
from placet.core.dsse import open_signed, sign_record, vault_id
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitAnswer,
    Committed,
    CourierItem,
    Held,
    HoldAnswer,
    PromiseAnswer,
    ReleaseAnswer,
    Released,
    StageAnswer,
    Status,
    StatusBody,
    TakeAnswer,
    Taken,
)
from placet.errors import (
    AncestorMissingError,
    EvidenceStaleError,
    KeyNotBornError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    RoleDeniedError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)
from placet.ratls.exchange import UnsafeExpectAnyVault

NONCE = bytes(range(32))
OTHER = "sha256:" + "00" * 32


@dataclass
class One:
    """The first vault of a story, and its clients in each role."""

    story: Story
    link: Link
    visitor: VaultClient
    release: VaultClient
    create: VaultClient

    @property
    def key(self):
        """Return the key id."""
        return self.story.key


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Return a folder with five vaults' stores, and the statements in them."""
    folder = tmp_path_factory.mktemp("story")
    story = begin(folder)
    story.close()
    return folder, story.statements


@pytest.fixture
def one(ready):
    """Return a vault that keeps a share of a created key."""
    with memory_folder() as folder:
        shutil.copytree(ready[0], folder, dirs_exist_ok=True)
        clock = TestClock(time=NOW)
        story = Story(folder, clock, [open_bench(folder, 1, clock=clock)], list(ready[1]))
        link = Link(story.benches[0])
        workloads = [
            client_of(link, 1, identity(profile(1), (story.key,), purpose=p), (story.key,))
            for p in ("release", "create")
        ]
        yield One(story, link, client_of(link, 1), *workloads)
        story.close()


def item(sent):
    """Return a statement as it travels."""
    return CourierItem(signed=sent.signed(), receipts=())


def staged():
    """Return a stage by the platform."""
    body = StageBody(profile=profile(2), version="2", source="abc", provenance=None, review=None)
    return signed(composer().stage(None, body), "platform")


# --- what works -------------------------------------------------------------------------


async def test_a_visitor_reads_and_brings(one):
    """Status, charter, statements, staging and log are for everyone."""
    status = await one.visitor.status(NONCE)
    assert (status.vault, status.time) == (vault_name(1), NOW)
    [birth] = (await one.visitor.charter(one.key)).charter
    answer = await one.visitor.take([birth])
    assert answer.head == one.key
    stage = staged()
    assert (await one.visitor.stage(stage.signed())).stage == stage.digest
    assert (await one.visitor.pending("notes")).pending == (stage.signed(),)
    revoke = signed(composer().revoke(one.key, stage.digest, "mistake"))
    assert (await one.visitor.stage(revoke.signed())).stage == stage.digest
    assert (await one.visitor.pending(one.key)).pending == ()
    assert len((await one.visitor.log(one.key)).entries) > 2
    assert (await one.visitor.meet()).role == "visitor"  # the other end, as this test made it


async def test_a_workload_gets_its_share(one):
    """A release is checked down to our own end of the channel."""
    answer = await one.release.release(one.key, NONCE)
    released = open_signed(answer.receipt, Released, vault=vault_name(1))
    assert released.manifest == manifest_digest(answer.manifest)


PROBLEMS = {
    "a visitor asks for a share": (RoleDeniedError, lambda o: o.visitor.release(o.key, NONCE)),
    "a workload that came to release creates": (
        VerificationError,
        lambda o: o.release.promise(o.key, 9),
    ),
    "a key that nobody knows": (KeyNotBornError, lambda o: o.visitor.charter(OTHER)),
    "a head that the vault lacks": (
        AncestorMissingError,
        lambda o: o.release.release(o.key, NONCE, OTHER),
    ),
}


@pytest.mark.req("R8.6")
@pytest.mark.parametrize("case", PROBLEMS)
async def test_a_refusal_comes_back_as_its_class(one, case):
    """What the vault raised is raised here, members included."""
    kind, call = PROBLEMS[case]
    with pytest.raises(kind) as e:
        await call(one)
    if kind is AncestorMissingError:
        assert e.value.members["version"] == 1


async def test_unapproved_code_is_told_so(one):
    """The refusal names the code, the key and what the owner can run."""
    who = identity(profile(2), (one.key,))
    with pytest.raises(NotApprovedError) as e:
        await client_of(one.link, 1, who, (one.key,)).release(one.key, NONCE)
    assert e.value.members["key"] == one.key
    assert "placet review" in e.value.hint


# --- vaults that lie --------------------------------------------------------------------


def forged(shape, field, record, number=1, **changes):
    """Return a tampering with one signed record of an answer, signed by vault ``number``."""

    def tamper(_path, raw):
        answer = decode(raw, shape)
        old = getattr(answer, field)
        first = old[0] if isinstance(old, tuple) else old
        said = replace(decode(unb64(first.payload), record), **changes)
        new = sign_record(said, vault_key(number))
        return encode(replace(answer, **{field: (new,) if isinstance(old, tuple) else new}))

    return tamper


def other_manifest(_path, raw):
    """Answer with the share of another manifest, and a good receipt for that."""
    answer = decode(raw, ReleaseAnswer)
    manifest = replace(answer.manifest, attempt=7)
    said = replace(
        decode(unb64(answer.receipt.payload), Released), manifest=manifest_digest(manifest)
    )
    return encode(replace(answer, manifest=manifest, receipt=sign_record(said, vault_key(1))))


def edited(shape, **changes):
    """Return a tampering with plain fields of an answer."""
    return lambda _path, raw: encode(replace(decode(raw, shape), **changes))


def _take(o):
    return o.visitor.take([item(o.story.statements[0])])


def _status(o):
    return o.visitor.status(NONCE)


def _release(o):
    return o.release.release(o.key, NONCE)


def _recover(o):
    manifest = one_manifest(o)
    return o.create.recover(o.key, manifest_digest(manifest))


def one_manifest(o):
    """Return the manifest that is committed."""
    return o.story.benches[0].vault._keys.get(o.key).record.committed.manifest


def _promise(o):
    record = o.story.benches[0].vault._keys.get(o.key).record
    return o.create.promise(o.key, max(9, record.promised + 1))


async def _hold(o):
    attempt = (await _promise(o)).attempt
    record = o.story.benches[0].vault._keys.get(o.key).record
    share = unb64(record.committed.share)
    return await o.create.hold(o.key, attempt, one_manifest(o), share)


def _commit(o):
    return o.create.commit(o.key, 1, manifest_digest(one_manifest(o)), ())


LIES = {
    "status for another nonce": (
        _status,
        forged(Status, "status", StatusBody, nonce=b64(NONCE[1:])),
    ),
    "status of another vault": (_status, forged(Status, "status", StatusBody, vault=OTHER)),
    "status signed by another vault": (_status, forged(Status, "status", StatusBody, 2)),
    "receipt of another statement": (
        _take,
        forged(TakeAnswer, "taken", Taken, statement=OTHER),
    ),
    "receipt of another key": (_take, forged(TakeAnswer, "taken", Taken, key=OTHER)),
    "receipt signed by another vault": (_take, forged(TakeAnswer, "taken", Taken, 2)),
    "no receipt": (_take, edited(TakeAnswer, taken=())),
    "release for another nonce": (_release, edited(ReleaseAnswer, nonce=b64(bytes(32)))),
    "release to another recipient": (
        _release,
        forged(ReleaseAnswer, "receipt", Released, recipient=OTHER),
    ),
    "release of another key": (_release, forged(ReleaseAnswer, "receipt", Released, key=OTHER)),
    "release under another manifest": (
        _release,
        forged(ReleaseAnswer, "receipt", Released, manifest=OTHER),
    ),
    "release at another version": (_release, edited(ReleaseAnswer, version=7)),
    "release signed by another vault": (_release, forged(ReleaseAnswer, "receipt", Released, 2)),
    "release in another's name": (
        _release,
        forged(ReleaseAnswer, "receipt", Released, vault=OTHER),
    ),
    "recovery to another recipient": (
        _recover,
        forged(ReleaseAnswer, "receipt", Released, recipient=OTHER),
    ),
    "recovery of another manifest": (_recover, other_manifest),
    "promise of another attempt": (
        _promise,
        edited(PromiseAnswer, attempt=8),
    ),
    "held for another attempt": (_hold, forged(HoldAnswer, "held", Held, attempt=8)),
    "held under another manifest": (_hold, forged(HoldAnswer, "held", Held, manifest=OTHER)),
    "held by another vault": (_hold, forged(HoldAnswer, "held", Held, 2)),
    "committed another manifest": (
        _commit,
        forged(CommitAnswer, "committed", Committed, manifest=OTHER),
    ),
    "committed by another vault": (_commit, forged(CommitAnswer, "committed", Committed, 2)),
    "staged something else": (
        lambda o: o.visitor.stage(staged().signed()),
        edited(StageAnswer, stage=OTHER),
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_not_believed(one, lie):
    """Each answer is bound to what was asked, to this vault and to our end of the channel."""
    call, tamper = LIES[lie]

    def tamper_last(path, raw):
        return raw if call is _hold and "promise" in path else tamper(path, raw)

    await call(one)  # the truth passes
    one.link.tamper = tamper_last
    with pytest.raises(VerificationError):
        await call(one)


GARBAGE = {
    "no JSON": b"<html>busy</html>",
    "nothing": b"",
    "another shape": encode({"schema": 1}),
    "not canonical": None,
    "too large": b" " * (2**20 + 1),
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_is_malformed(one, case):
    """Whatever is no canonical answer is refused as such."""
    one.link.tamper = lambda _path, raw: GARBAGE[case] if GARBAGE[case] is not None else raw + b" "
    with pytest.raises(MalformedError) as e:
        await one.visitor.charter(one.key)
    assert isinstance(e.value, TooLargeError) == (case == "too large")


@pytest.mark.parametrize(
    "body", [b"Invalid HTTP request", b"[1]", b"", b"[" * 5000, b'{"type":"\xff"}']
)
async def test_an_error_without_a_problem_document_is_malformed(one, body):
    """An error status alone says nothing that a program may act on."""
    one.link.tamper = lambda _path, _raw: body
    with pytest.raises(MalformedError, match="404"):
        await one.visitor.charter(OTHER)


async def test_an_unknown_problem_is_a_plain_error(one):
    """A newer vault's problem type is an error all the same."""
    problem = {"type": "https://placet.invalid/problems/new", "detail": "d", "self": 1}
    one.link.tamper = lambda _path, _raw: json.dumps(problem).encode()
    with pytest.raises(PlacetError) as e:
        await one.visitor.charter(OTHER)
    assert type(e.value) is PlacetError


# --- what breaks on the way ---------------------------------------------------------------


async def test_connections_are_used_again(one):
    """One connection carries request after request."""
    for _ in range(3):
        await one.visitor.status(NONCE)
    assert one.link.connections == 1


@pytest.mark.parametrize("fault", ["lose_request", "lose_answer"])
async def test_a_connection_that_died_in_the_pool_is_replaced(one, fault):
    """The same bytes, nonce included, go out once more over a new connection."""
    await one.release.release(one.key, NONCE)
    setattr(one.link, fault, 1)
    await one.release.release(one.key, NONCE)
    assert one.link.connections == 2
    assert len(one.link.sent) == 3
    assert one.link.sent[1] == one.link.sent[2]


async def test_a_new_connection_that_breaks_is_the_vaults_outcome(one):
    """No endless trying: a fresh connection gets one chance."""
    one.link.lose_request = 1
    with pytest.raises(UnavailableError):
        await one.visitor.status(NONCE)
    assert len(one.link.sent) == 1


async def test_a_vault_that_is_down_is_unavailable(one):
    """Down after a connection was pooled: tried anew once, then unavailable."""
    await one.visitor.status(NONCE)
    one.link.down = True
    with pytest.raises(UnavailableError):
        await one.visitor.status(NONCE)


async def test_a_refusal_to_answer_now_is_not_repeated(one):
    """A vault's own `unavailable` comes out at once: it heard us."""
    await one.visitor.charter(one.key)
    one.link.tamper = lambda _p, _r: encode(UnavailableError("starting").problem())
    with pytest.raises(UnavailableError, match="starting"):
        await one.visitor.charter(OTHER)
    assert len(one.link.sent) == 2


async def test_stale_evidence_means_attesting_again(one):
    """A vault that finds our evidence stale gets a new connection with new evidence."""
    await one.release.release(one.key, NONCE)
    one.story.clock.ticks += 61
    await one.release.release(one.key, NONCE)
    assert one.link.connections == 2
    assert one.link.sent[1] == one.link.sent[2]


async def test_evidence_that_is_stale_at_once_is_an_error(one):
    """A vault that calls everything stale cannot keep us attesting for ever."""
    await one.release.release(one.key, NONCE)
    one.story.clock.ticks += 61
    link = one.link
    link.before = lambda _path: setattr(one.story.clock, "ticks", one.story.clock.ticks + 61)
    with pytest.raises(EvidenceStaleError):
        await one.release.release(one.key, NONCE)
    assert link.connections == 2


# --- connector ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        *("nowhere", "h:", ":1", "h:99999", "h:0", "h:-1", "[::1]:0"),
        *("a..b:1", "a" * 64 + ":1", "\0:1", "\ud800:1"),
    ],
)
async def test_a_bad_endpoint_is_a_vault_that_cannot_be_reached(endpoint):
    """Endpoints are hints: a bad one is an outcome of that vault, and no crash."""
    clock = TestClock()
    connector = Connector(
        prover=None, clock=clock, rng=bytes, contexts=renewed_contexts(clock), timeout=5
    )
    with pytest.raises(UnavailableError):
        await connector.vault(endpoint, UnsafeExpectAnyVault(trust=())).status(NONCE)


def test_certificates_are_renewed_in_time():
    """The same context for half of the certificate's life, then a new key."""
    clock = TestClock()
    contexts = renewed_contexts(clock)
    first = contexts()
    clock.time += 12 * 3600 - 1
    assert contexts() is first
    clock.time += 1
    assert contexts().spki_digest != first.spki_digest


def test_ids_of_test_vaults_are_digests_of_their_keys():
    """The forgeries above are signed by who they say."""
    assert vault_name(2) == vault_id(vault_key(2).public_key().public_bytes_raw())
