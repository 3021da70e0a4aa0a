"""What is put forward for a key: read from all vaults, verified, and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placet.cli.look import Look, look
from placet.cli.reach import clock
from placet.cli.settings import the_one
from placet.client.constellation import Constellation
from placet.core.profile import Profile, code_id
from placet.core.signer import signer_id
from placet.core.statement import Birth, Promote, Stage, UntrustedStatement, open_statement
from placet.errors import MalformedError, PlacetError
from placet.policy.key_policy import KeyPolicy
from placet.policy.pending import check_stage
from placet.policy.principal import leaves

LEAST = 8
"""Hex digits of the shortest prefix that names code: fewer can be found by trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """One version that somebody put forward who may, and where it is pending."""

    sent: UntrustedStatement
    stage: Stage
    staged_by: str
    """Label of the signer, in the key's own policy."""
    at: tuple[int, ...]
    """Numbers of the vaults that have it."""

    @property
    def profile(self) -> Profile:
        """Return what a promote would let in."""
        return self.stage.body.profile

    @property
    def code(self) -> str:
        """Return the digest of its code."""
        return code_id(self.profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """All that is pending for a key."""

    staged: tuple[Staged, ...]
    answered: tuple[int, ...]
    """Numbers of the vaults that said what is pending."""
    forged: tuple[tuple[int, str], ...]
    """Vaults that showed what nobody signed who may stage, and why it is none."""

    def lack(self, staged: Staged) -> tuple[int, ...]:
        """Return the vaults that answered and do not have this."""
        return tuple(n for n in self.answered if n not in staged.at)


async def read_forward(vaults: Constellation, key: str) -> tuple[Look, Forward]:
    """Read a key's charter and all that is pending for it."""
    found = await look(vaults, key)
    outcomes = await vaults.fan_out(lambda v: v.pending(key))
    numbers = {v.id: n for n, v in enumerate(vaults.vaults, 1)}
    signed: dict[str, tuple[UntrustedStatement, str]] = {}
    at: dict[str, list[int]] = {}
    forged: list[tuple[int, str]] = []
    for vault, answer in outcomes.values.items():
        for one in answer.pending:
            try:
                sent = open_statement(one)
                by = _stager(found.policy, sent)
            except PlacetError as e:
                forged.append((numbers[vault], e.detail))
                continue
            if sent.statement.expires_at <= clock.now():
                continue
            signed[sent.digest] = (sent, by)
            at.setdefault(sent.digest, []).append(numbers[vault])
    staged = tuple(_staged(sent, by, at[d]) for d, (sent, by) in signed.items())
    return found, Forward(
        staged=tuple(sorted(staged, key=lambda s: (s.stage.issued_at, s.sent.digest))),
        answered=tuple(sorted(numbers[v] for v in outcomes.values)),
        forged=tuple(forged),
    )


def _staged(sent: UntrustedStatement, by: str, at: Sequence[int]) -> Staged:
    if not isinstance(sent.statement, Stage):
        raise TypeError("sent: not a stage")
    return Staged(sent=sent, stage=sent.statement, staged_by=by, at=tuple(sorted(at)))


def _stager(policy: KeyPolicy, sent: UntrustedStatement) -> str:
    """Return the label of who staged; the moment is the statement's own, for it may be over."""
    stager = check_stage(policy, sent, now=sent.statement.issued_at)
    people = policy.stagers + leaves(policy.owner)
    return next(s.label for s in people if signer_id(s) == stager)


def profiles_of(found: Look) -> dict[str, Profile]:
    """Return every profile that a charter ever let in, by code; the newest of each."""
    known: dict[str, Profile] = {}
    for taken in found.taken:
        statement = taken.sent.statement
        if isinstance(statement, Birth):
            known |= {code_id(p): p for p in statement.body.policy.profiles}
        elif isinstance(statement, Promote):
            known[code_id(statement.body.profile)] = statement.body.profile
    return known


def named_code(codes: Sequence[str], name: str, see: str) -> str:
    """Return the digest that a prefix of at least eight digits names.

    Raises:
        MalformedError: Too short, or it could be several.
        NotFoundError: It is none of them.
    """
    bare = name.removeprefix("sha256:")
    if len(bare) < LEAST:
        raise MalformedError(
            f"{name!r} is too short to name code safely", f"Write at least {LEAST} digits of it."
        )
    near = sorted({c for c in codes if c.removeprefix("sha256:").startswith(bare)})
    return the_one(near, name, "code", str, see)


def find_staged(forward: Forward, name: str, see: str) -> Staged | None:
    """Return what a stage or code names among what is pending; ``None`` if it is code that is not.

    Of several stages of the same code the newest is meant.
    """
    digests = {s.sent.digest: s for s in forward.staged}
    codes = {s.code: s for s in forward.staged}
    known = {**codes, **digests}
    bare = name.removeprefix("sha256:")
    if not any(d.removeprefix("sha256:").startswith(bare) for d in known):
        return None
    return known[named_code(tuple(known), name, see)]
