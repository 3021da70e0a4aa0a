"""What a witness knows after a beat: the real rules, over real signatures, asked once each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from placet_testing import charters

from placet.core.continuity import (
    Beat,
    Seen,
    WitnessAnswer,
    Witnessed,
    WitnessRequest,
    checkpoint_at,
)
from placet.core.dsse import sign_record
from placet.core.encoding import b64
from placet.core.merkle import Frontier, consistency_proof, leaf_hash
from placet.errors import QuarantinedError
from placet.policy import continuity
from placet.policy.continuity import Again

vault_key, vault_name = cache(charters.vault_key), cache(charters.vault_name)
OWN = 1
Receive = Callable[..., continuity.Heard]
Log = tuple[int, ...]
"""Who wrote each entry: the number of its process."""


class BrokenError(Exception):
    """A state in which an invariant does not hold; the message is how it came to it."""


class Told(NamedTuple):
    """What is known of a vault: by a witness, or on a disk."""

    boots: int
    boot: int
    log: Log


def ask(known: Told | None, own: Told, witness: int) -> tuple[Told, str]:
    """Return what a witness knows after a beat, and why the process ends, if it does."""
    return _ask(known, own, witness, continuity.receive)


@cache
def _ask(known: Told | None, own: Told, witness: int, receive: Receive) -> tuple[Told, str]:
    old = 0
    for _ in range(3):
        request = _request(own, witness, min(old, len(own.log)))
        before = None if known is None else _seen(known, witness)
        heard = receive(before, request, own=vault_name(witness))
        known = _told(heard.seen, own, known)
        try:
            said = continuity.judge(
                _beat(own, witness),
                _answer(heard.seen, own, witness, accepted=heard.accepted),
                witness=vault_name(witness),
                public_key=vault_key(OWN).public_key().public_bytes_raw(),
                size=len(own.log),
                root_at=lambda size: _root(own.log[:size]),
            )
        except QuarantinedError as e:
            return known, str(e.members["reason"])
        if not isinstance(said, Again):
            return known, ""
        old = said.old
    raise BrokenError("a witness and a vault go on for ever")


def _told(seen: Seen, own: Told, known: Told | None) -> Told:
    told = (seen.boots, seen.boot, seen.size, seen.root)
    for one in (own, known):
        if one and told == (one.boots, f"boot {one.boot}", len(one.log), _root(one.log).hex()):
            return one
    raise BrokenError(f"a witness knows what nobody told it: {told}")


def _root(log: Log) -> bytes:
    frontier = Frontier()
    for number, writer in enumerate(log):
        frontier = frontier.append(_leaf(number, writer))
    return frontier.root()


def _leaf(number: int, writer: int) -> bytes:
    return leaf_hash(b"%d by %d" % (number, writer))


def _proof(log: Log, old: int) -> tuple[str, ...]:
    nodes, frontier = dict[tuple[int, int], bytes](), Frontier()
    for number, writer in enumerate(log):
        for level, node in enumerate(frontier.completed(_leaf(number, writer))):
            nodes[level, number >> level] = node
        frontier = frontier.append(_leaf(number, writer))
    return tuple(map(b64, consistency_proof(lambda *at: nodes[at], old, len(log))))


@cache
def _beat(own: Told, witness: int) -> Beat:
    key = vault_key(OWN)
    return Beat(
        vault=vault_name(OWN),
        to=vault_name(witness),
        boot=f"boot {own.boot}",
        boots=own.boots,
        nonce=b64(bytes(32)),
        checkpoint=checkpoint_at(key, str(own.boot), len(own.log), _root(own.log)),
        time=0,
    )


@cache
def _request(own: Told, witness: int, old: int) -> WitnessRequest:
    key = vault_key(OWN)
    before = checkpoint_at(key, str(own.boot), old, _root(own.log[:old])) if old else ""
    return WitnessRequest(
        beat=sign_record(_beat(own, witness), key),
        old=old,
        before=before,
        proof=_proof(own.log, old),
        since=0,
    )


@cache
def _seen(known: Told, witness: int) -> Seen:
    return Seen(
        boots=known.boots,
        boot=f"boot {known.boot}",
        size=len(known.log),
        root=_root(known.log).hex(),
        beat=sign_record(_beat(known, witness), vault_key(OWN)),
    )


def _answer(seen: Seen, own: Told, witness: int, *, accepted: bool) -> WitnessAnswer:
    said = Witnessed(
        witness=vault_name(witness),
        vault=vault_name(OWN),
        nonce=_beat(own, witness).nonce,
        boot=seen.boot,
        boots=seen.boots,
        size=seen.size,
        root=seen.root,
        time=0,
    )
    signed = sign_record(said, vault_key(witness))
    return WitnessAnswer(signed, None if accepted else seen.beat, (), 0)
