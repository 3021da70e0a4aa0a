"""Statements in files: read, judged by who may sign them, and learnt from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from placet.cli.files import read_json
from placet.cli.govern_branches import read_branches
from placet.cli.govern_ways import lacking
from placet.cli.look import look
from placet.cli.pen import missing_signatures
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.words import titled
from placet.core.signer import Threshold
from placet.core.statement import (
    Birth,
    Chained,
    Merge,
    SignedStatement,
    UntrustedStatement,
    open_statement,
)
from placet.errors import MalformedError, PlacetError
from placet.policy.authority import Way, signers_of, ways


def read_statement(file: Path) -> UntrustedStatement:
    """Read a statement of a key's chain. Its signatures are *not* checked."""
    sent = open_statement(read_json(file, SignedStatement, "signed statement"))
    if not isinstance(sent.statement, Chained):
        raise MalformedError(
            f"{file} holds a {titled(sent.statement).kind}, which has no place in a charter",
            "Stage it: placet stage KEY --profile FILE --version V --source COMMIT",
        )
    return sent


def learn_birth(home: Home, sent: UntrustedStatement) -> None:
    """Keep a birth that others have signed since it was composed here."""
    if not isinstance(sent.statement, Birth):
        return
    if missing_signatures(sent, sent.statement.body.policy.owner) is None:
        for known in home.known_keys():
            if known.key == sent.digest:
                home.remember(msgspec.structs.replace(known, birth=sent.signed()))


def ways_of(home: Home, sent: UntrustedStatement) -> tuple[Way, ...]:
    """Return in which ways a statement may be approved, by the key's policy in force.

    Of a merge: by the policies of its branches, each of which asks for its own way.
    """
    if isinstance(sent.statement, Birth):
        return ways(None, sent)
    target = Target.find(home, sent.key)
    if isinstance(sent.statement, Merge):
        _, branches = target.visit(lambda v: read_branches(v, sent.key), "asking")
        return tuple(way for b in branches for way in ways(b.policy, sent))
    return ways(target.visit(lambda v: look(v, target.key), "asking").policy, sent)


def anybody(found: tuple[Way, ...]) -> Threshold:
    """Return the principal of all whose signature may count: owners, managers, guardians."""
    return Threshold(label="who may sign this", threshold=1, of=signers_of(found))


def still_lacking(found: tuple[Way, ...], sent: UntrustedStatement) -> PlacetError | None:
    """Return whose signatures are still missing, if they are.

    Whether a new signer's cool-down is over is *not* asked: vaults know the time.
    """
    vetoed = frozenset(way.names for way in found if way.names is not None)
    return lacking(found, frozenset(s.signer for s in sent.signatures), seen=vetoed, now=0)
