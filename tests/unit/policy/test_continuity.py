"""The witness rule by itself: how many, what a witness answers, what an answer is worth."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from placet_testing.charters import vault_key, vault_name, vault_set

from placet.core.continuity import (
    Beat,
    Seen,
    WitnessAnswer,
    Witnessed,
    WitnessRequest,
    check_fork_proof,
    checkpoint_at,
)
from placet.core.dsse import sign_record
from placet.core.encoding import b64, decode, unb64
from placet.core.merkle import Frontier, consistency_proof, leaf_hash
from placet.core.profile import WitnessMember
from placet.errors import QuarantinedError, VaultStartingError, VerificationError
from placet.policy.continuity import (
    Again,
    Circle,
    Counts,
    check_standing,
    judge,
    quorum,
    receive,
)

ME, WITNESS = vault_name(1), vault_name(2)


class Tree:
    """A log's tree, all of it in memory."""

    def __init__(self, leaves):
        self.nodes, self.roots, tree = {}, [Frontier().root()], Frontier()
        for leaf in map(leaf_hash, leaves):
            for level, node in enumerate(tree.completed(leaf)):
                self.nodes[level, tree.size >> level] = node
            tree = tree.append(leaf)
            self.roots.append(tree.root())

    def root(self, size):
        """Return the root of so many leaves."""
        return self.roots[size]

    def proof(self, old, new):
        """Return a consistency proof."""
        return consistency_proof(lambda *at: self.nodes[at], old, new)


LOG = Tree([b"%d" % i for i in range(20)])
OTHER = Tree([b"%d" % i for i in range(5)] + [b"other %d" % i for i in range(15)])


def request(size, *, old=0, boots=3, boot="a", log=LOG, to=WITNESS, key=None, nonce=b"n" * 32):
    """Return what a vault sends."""
    key = key or vault_key(1)
    beat = Beat(
        vault=ME, to=to, boot=boot, boots=boots, nonce=b64(nonce), time=1000,
        checkpoint=checkpoint_at(key, boot, size, log.root(size)),
    )  # fmt: skip
    return WitnessRequest(
        beat=sign_record(beat, key),
        old=old,
        before=checkpoint_at(key, boot, old, log.root(old)) if old else "",
        proof=tuple(map(b64, log.proof(old, size))),
        since=0,
    )


def seen(size=10, **changes):
    """Return what a witness remembers after one beat."""
    return receive(None, request(size, **changes), own=WITNESS).seen


# --- how many ---------------------------------------------------------------------------


@pytest.mark.req("I6")
@pytest.mark.parametrize(
    ("n", "k", "m", "of_all", "away"), [(5, 3, 0, 4, 1), (5, 3, 4, 6, 3), (3, 2, 3, 4, 2)]
)
def test_the_quorum_is_that_of_the_table(n, k, m, of_all, away):
    """THREATS 2.2 counts the vault itself; what may be away is what is left."""
    assert quorum(n, k, m) + 1 == of_all
    assert n + m - (quorum(n, k, m) + 1) == away


@pytest.mark.req("I6", "R2.3")
def test_enough_is_never_less_than_k_nor_half_unless_there_are_no_more():
    """Every set that can be born: a majority of the others, k of them, or all there are."""
    for n, m in itertools.product(range(1, 33), range(9)):
        for k in range(n // 2 + 1, n + 1):
            q, others = quorum(n, k, m), n - 1 + m
            assert 1 <= q <= max(others, 1)
            assert 2 * q > others
            assert q >= min(k, others)


def test_a_vault_that_is_alone_never_stands():
    """Nobody to ask is not everybody's yes."""
    assert not Circle(1, (ME,), ()).stands(ME, {ME, "anybody"})


@pytest.mark.req("R2.5")
def test_of_outside_witnesses_one_has_to_answer():
    """However many vaults do."""
    circle = Circle(3, tuple(vault_name(i) for i in range(1, 6)), ("w",))
    assert not circle.stands(ME, {vault_name(i) for i in range(2, 6)})
    assert circle.stands(ME, {vault_name(2), vault_name(3), "w"})
    assert not circle.stands(ME, {vault_name(2), "w"})


def test_a_circle_is_whom_one_asks_and_nothing_else():
    """Its own answers do not count, nor does anybody else's."""
    members = (WitnessMember(id="sha256:" + "77" * 32, endpoint="w:1"),)
    circle = Circle.of(msgspec.structs.replace(vault_set(3, 2), witnesses=members))
    assert circle.others(ME) == (vault_name(2), vault_name(3), members[0].id)
    assert not circle.stands(ME, {ME, vault_name(9), members[0].id})


@pytest.mark.req("R2.6")
@pytest.mark.parametrize(
    ("skews", "skew"),
    [
        ((0, 0, 0, 0), None),
        ((300, 300, 300, 300), None),
        ((-300, -300, -300, -300), None),
        ((301, 301, 301, 0), 301),
        ((-301, -301, -301, 0), -301),
        # k - 1 clocks may lie: they say nothing, however far off they are.
        ((10**9, 10**9, 0, 0), None),
        ((-(10**9), -(10**9), 0, 0), None),
        ((10**9, 10**9, 400, 0), 400),
    ],
)
def test_a_clock_is_as_good_as_those_of_k_others(skews, skew):
    """Behind k of them, or ahead of k of them: no standing."""
    circle = Circle.of(vault_set(5, 3))
    told = dict(zip(circle.others(ME), skews, strict=True))
    if skew is None:
        check_standing(circle, ME, told, reason="starting")
        return
    with pytest.raises(VaultStartingError) as caught:
        check_standing(circle, ME, told, reason="starting")
    assert (caught.value.members["reason"], caught.value.members["skew"]) == ("clock", skew)


def test_who_is_waited_for_is_named():
    """The refusal names those that did not answer."""
    circle = Circle.of(vault_set(5, 3))
    with pytest.raises(VaultStartingError) as caught:
        check_standing(circle, ME, {vault_name(2): 0, vault_name(3): 0}, reason="lease")
    members = caught.value.members
    assert members["waiting"] == [vault_name(4), vault_name(5)]
    assert (members["answered"], members["needed"], members["reason"]) == (2, 3, "lease")


# --- what a witness does ----------------------------------------------------------------


def test_a_log_that_grew_is_remembered():
    """Of this start or a later one."""
    for boots, boot in [(3, "a"), (4, "b"), (9, "a")]:
        heard = receive(seen(), request(13, old=10, boots=boots, boot=boot), own=WITNESS)
        assert (heard.accepted, heard.fork) == (True, None)
        assert (heard.seen.size, heard.seen.boots, heard.seen.boot) == (13, boots, boot)


def test_the_same_again_is_accepted():
    """A beat may be repeated, and a vault that did nothing says so."""
    assert receive(seen(), request(10), own=WITNESS).accepted


@pytest.mark.req("I6", "R2.1", "R7.4", "R2.3")
@pytest.mark.parametrize(
    "later",
    [
        request(9),
        request(0),
        request(12),  # from where?
        request(12, old=9),
        request(12, old=10, boots=2),
        request(12, old=10, boot="b"),
        request(10, boot="b"),
        request(12, old=10, log=OTHER),
        msgspec.structs.replace(request(12, old=10), proof=()),
        msgspec.structs.replace(request(12, old=10), proof=request(13, old=10).proof),
    ],
)
def test_what_a_witness_knows_never_goes_back(later):
    """Shorter, older, another start of the same number, unproven, other: nothing changes."""
    before = seen()
    heard = receive(before, later, own=WITNESS)
    assert (heard.accepted, heard.seen) == (False, before)


@pytest.mark.req("R2.4")
@pytest.mark.parametrize(
    "later",
    [
        request(10, log=OTHER),
        request(10, log=OTHER, boots=2, boot="x"),
        request(12, old=10, log=OTHER),
    ],
)
def test_two_histories_are_a_proof(later):
    """Of one size, both signed by the vault: told in the beat, or beside it."""
    fork = receive(seen(), later, own=WITNESS).fork
    first, second = check_fork_proof(fork)
    assert (first.size, fork.vault) == (second.size, ME)
    assert {first.root, second.root} == {LOG.root(10), OTHER.root(10)}


@pytest.mark.req("R2.4")
def test_what_is_no_fork_proves_none():
    """One root twice, two sizes, another's signature, another vault's id."""
    proof = receive(seen(), request(10, log=OTHER), own=WITNESS).fork
    good = checkpoint_at(vault_key(1), "b", 10, LOG.root(10))
    for change in (
        {"second": good, "first": good},
        {"second": checkpoint_at(vault_key(1), "a", 11, OTHER.root(11))},
        {"second": checkpoint_at(vault_key(2), "a", 10, OTHER.root(10))},
        {"vault": WITNESS},
    ):
        with pytest.raises(VerificationError):
            check_fork_proof(msgspec.structs.replace(proof, **change))


@pytest.mark.parametrize(
    "bad",
    [
        request(10, to=vault_name(3)),
        request(10, key=vault_key(4)),
        msgspec.structs.replace(
            request(10),
            beat=msgspec.structs.replace(request(10).beat, payload=request(11).beat.payload),
        ),
    ],
)
def test_what_is_no_beat_for_me_is_not_answered(bad):
    """For somebody else, of another vault, changed."""
    with pytest.raises(VerificationError):
        receive(seen(), bad, own=WITNESS)


# --- what an answer is worth -------------------------------------------------------------


def answer(known: Seen, sent, *, key=None, nonce=None, newest=True, **changes):
    """Return what a witness says that knows this much; or something else."""
    beat = beat_of(sent)
    said = Witnessed(
        witness=WITNESS, vault=ME, nonce=nonce or beat.nonce, boot=known.boot, boots=known.boots,
        size=known.size, root=known.root, time=1000,
    )  # fmt: skip
    said = msgspec.structs.replace(said, **changes)
    return WitnessAnswer(
        witnessed=sign_record(said, key or vault_key(2)),
        newest=known.beat if newest else None,
        news=(),
        cursor=0,
    )


def beat_of(sent):
    """Return the beat in a request."""
    return decode(unb64(sent.beat.payload), Beat)


def judged(sent, said, *, size=12, log=LOG):
    """Return what an answer is worth to a vault whose log has so many entries."""
    return judge(
        beat_of(sent),
        said,
        witness=WITNESS,
        public_key=vault_key(1).public_key().public_bytes_raw(),
        size=size,
        root_at=log.root,
    )


def test_just_what_was_told_counts():
    """With or without the beat beside it."""
    sent = request(12)
    assert isinstance(judged(sent, answer(seen(12), sent, newest=False)), Counts)


def test_an_earlier_head_is_asked_again_from():
    """Of an earlier start as well."""
    sent = request(12)
    assert judged(sent, answer(seen(7, boots=2, boot="x"), sent)) == Again(7)
    assert judged(sent, answer(seen(0, boots=2, boot="x"), sent)) == Again(0)


@pytest.mark.req("I6", "R2.1", "R2.3", "R2.4")
@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (seen(15), "rolled-back"),
        (seen(15, boots=9, boot="x"), "rolled-back"),
        (seen(12, boots=4, boot="x"), "displaced"),
        (seen(12, boot="x"), "cloned"),
        (seen(10, log=OTHER), "forked"),
        (seen(12, log=OTHER), "forked"),
        (seen(12, log=OTHER, boots=2, boot="x"), "forked"),
    ],
)
def test_its_own_signature_takes_a_vault_down(known, reason):
    """A longer log, another start, another history; how far it is behind is said."""
    sent = request(12)
    with pytest.raises(QuarantinedError) as caught:
        judged(sent, answer(known, sent))
    members = caught.value.members
    assert (members["reason"], members["witnessed"], members["size"]) == (reason, known.size, 12)


@pytest.mark.req("I6", "I2")
@pytest.mark.parametrize(
    "said",
    [
        lambda sent: answer(seen(15), sent, newest=False),
        lambda sent: answer(seen(10), sent, size=15),
        lambda sent: answer(seen(10), sent, boots=99),
        lambda sent: answer(seen(10, log=OTHER), sent, root=LOG.root(9).hex()),
        lambda sent: answer(seen(12), sent, key=vault_key(3)),
        lambda sent: answer(seen(12), sent, nonce=b64(b"x" * 32)),
        lambda sent: answer(seen(12), sent, vault=WITNESS),
        lambda sent: answer(seen(12), sent, witness=ME),
    ],
)
def test_a_lying_witness_takes_nobody_down(said):
    """It shows no signature of the vault's own: its answer counts for nothing."""
    sent = request(12)
    with pytest.raises(VerificationError):
        judged(sent, said(sent))


def test_a_beat_for_another_witness_shows_nothing():
    """A beat of ours that was for somebody else is no evidence of what this one saw."""
    sent, known = request(12), receive(None, request(15, to=vault_name(3)), own=vault_name(3)).seen
    with pytest.raises(VerificationError):
        judged(sent, answer(known, sent))


def test_a_key_of_somebody_else_signs_no_newest():
    """Whoever forges a newer beat has not our key."""
    sent = request(12)
    forged = sign_record(beat_of(request(15)), Ed25519PrivateKey.generate())
    said = msgspec.structs.replace(answer(seen(15), sent), newest=forged)
    with pytest.raises(VerificationError):
        judged(sent, said)
