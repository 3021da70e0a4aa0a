"""A key's charter: taking statements, and folding them to the policy in force.

Taking and folding are two acts (spec/03, sections 3 and 4). `take` checks signatures and
expiry once, against the time it is given. `fold` reads no clock: the policy of a key *is*
the fold of what was taken. Both are pure; the caller **must** store what was taken
before anything follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from placet.core.dsse import Signed
from placet.core.profile import VaultSet
from placet.core.statement import (
    Birth,
    Chained,
    Delete,
    Retire,
    UntrustedStatement,
    Void,
)
from placet.errors import (
    ApprovalError,
    ApprovalExpiredError,
    MalformedError,
)
from placet.policy.authority import signers_of, wait_of, ways
from placet.policy.governance import follow
from placet.policy.key_policy import KeyPolicy, birth_of
from placet.policy.oidc import VerifiedToken
from placet.policy.receipts import receipt_of, taken_at, vouching
from placet.policy.signers import verify_signatures
from placet.policy.timing import check_delays, check_place, seen_waiting, without_young

CLOCK_SKEW = 600
"""Seconds by which an owner's clock may be ahead of a vault's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenStatement:
    """A statement that `take` took. Its signatures held and it came in time."""

    sent: UntrustedStatement
    """Without what strangers signed, and one signature of each signer."""
    receipts: tuple[Signed, ...] = ()
    """Of those that came with it, the ones that hold: one a vault."""
    at: int | None = None
    """Unix seconds from which delays count that it begins (`taken_at`); ``None``: its issue."""
    jwks: tuple[str, ...] = ()
    """Thumbprints of the providers' keys that verified the tokens among its signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """A statement on its way, with receipts of vaults that took it in time."""

    sent: UntrustedStatement
    receipts: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A statement of a run, between the policies before and after it."""

    before: KeyPolicy | None
    courier: Courier
    signed: frozenset[str]
    """Who signed and counts: of whatever way, and not too young."""
    tokens: tuple[VerifiedToken, ...]
    receipts: dict[str, Signed]
    wait: int
    """Seconds that it has to wait out."""
    at: int

    @property
    def vouched(self) -> bool:
        """Return whether k vaults took it, by their own clocks."""
        return len(self.receipts) >= _vault_set(self.before, self.courier.sent).k


def fold(charter: Iterable[TakenStatement]) -> KeyPolicy:
    """Return the policy in force after these statements.

    Signatures and times are **not** checked again: `TakenStatement` stands for them.

    Raises:
        MalformedError: The statements are no charter (empty, or not starting at a birth).
        PolicyDeniedError: A statement breaks a rule: it could not have been taken.
    """
    policy: KeyPolicy | None = None
    for link in charter:
        at = link.sent.statement.issued_at if link.at is None else link.at
        policy = follow(policy, link.sent, at=at)
    if policy is None:
        raise MalformedError("charter is empty")
    return policy


def take(
    policy: KeyPolicy | None,
    couriers: Sequence[Courier],
    *,
    now: int,
    waiting: Mapping[str, int] | None = None,
) -> tuple[KeyPolicy, tuple[TakenStatement, ...]]:
    """Take a run of statements of one key, oldest first: all of them or none.

    Those already taken are passed over, so repeating it changes nothing (I14).

    Args:
        policy: The policy in force here, or ``None`` where the key is unknown.
        couriers: At least one statement.
        now: This vault's time in Unix seconds.
        waiting: Statements that were seen here and have to wait: since when, by digest.

    Returns:
        The policy that follows and the statements that are new here. The caller must
        store them before the policy is used.

    Raises:
        AncestorMissingError: Statements in between are missing here.
        ConflictError: Another statement was taken in this one's place.
        ApprovalError: Too few of those signed who must.
        ApprovalExpiredError: Nothing shows that it was approved in time.
        ApprovalWaitingError: It takes effect after a delay that did not pass here yet;
            ``statement`` and ``delay`` say which and how long.
        MalformedError, PolicyDeniedError: A rule of its type is broken.
    """
    waits = waiting or {}
    steps: list[_Step] = []
    for courier in unknown(policy, couriers):
        step, policy = _step(policy, courier, now, waits)
        steps.append(step)
    # 3.5 Each came in time, or is vouched for.
    vouchers: list[frozenset[str]] = []
    for step in reversed(steps):
        if not step.vouched:
            _check_alive(step, vouchers, now)
        vouchers.append(step.signed)
    # 3.6 Each waited out its delay, or is vouched for.
    for step in steps:
        if not step.vouched:
            check_delays(step.before, step.courier.sent, wait=step.wait, now=now, waiting=waits)
    if policy is None:
        raise ValueError("no statement was given")
    return policy, tuple(map(_proven, steps))


def unknown(policy: KeyPolicy | None, couriers: Sequence[Courier]) -> Sequence[Courier]:
    """Return the end of a run that is new here: what follows on the last that is known.

    What stands before that one and is not known is of a branch that a merge ended.
    """
    # 3.1 What was taken before is passed over.
    known = [i for i, c in enumerate(couriers) if policy and policy.knows(c.sent.digest)]
    return couriers[known[-1] + 1 :] if known else couriers


def replay(sents: Sequence[UntrustedStatement]) -> KeyPolicy:
    """Return the policy of a charter that somebody else holds, for a reader without a log.

    Every signature is checked by those who count before it; that each was taken in
    time, and waited, is **not**: vaults see to that, and a reader believes k of them.
    Delays that they began are counted from their issue.

    Raises:
        ConflictError, ApprovalError, MalformedError, PolicyDeniedError: It is no charter.
    """
    policy: KeyPolicy | None = None
    for sent in sents:
        check_place(policy, sent)
        found = ways(policy, sent)
        signed = verify_signatures(sent, signers_of(found)).signers
        wait_of(found, signed, seen=_named(sent))
        policy = follow(policy, sent, at=sent.statement.issued_at)
    if policy is None:
        raise MalformedError("charter is empty")
    return policy


def effective_at(statement: Chained, vault_set: VaultSet) -> int:
    """Return at how many vaults a statement is effective (I12).

    A birth at n, since creation needs all; a retire or delete at n - k + 1, for fewer leave
    k vaults that would still serve what was retired. Everything else at k, which is never
    fewer than these, since 2k > n.
    """
    n, k = vault_set.n, vault_set.k
    if isinstance(statement, Birth):
        return n
    return n - k + 1 if isinstance(statement, Retire | Delete) else k


def _step(
    policy: KeyPolicy | None, courier: Courier, now: int, waiting: Mapping[str, int]
) -> tuple[_Step, KeyPolicy]:
    sent = courier.sent
    # 3.2 The next statement stands on the head: compare and swap.
    check_place(policy, sent)
    # 3.3 Signed by those who must: by one of the ways there are (spec/09, section 3).
    found = ways(policy, sent)
    verified = verify_signatures(sent, signers_of(found))
    receipts = _receipts(policy, courier)
    vault_set = _vault_set(policy, sent)
    vouched = len(receipts) >= vault_set.k
    counting = verified.signers if vouched else without_young(policy, verified.signers, now)
    seen = _named(sent) if vouched else seen_waiting(policy, waiting)
    wait = wait_of(found, counting, seen=seen)
    # 3.4 The rules of its type.
    at = taken_at(now, (receipt_of(r).time for r in receipts.values()), vault_set.k)
    after = follow(policy, sent, at=at)
    step = _Step(
        before=policy,
        courier=courier,
        signed=counting,
        tokens=verified.tokens,
        receipts=receipts,
        wait=wait,
        at=at,
    )
    return step, after


def _check_alive(step: _Step, vouchers: list[frozenset[str]], now: int) -> None:
    sent = step.courier.sent
    # (a) Alive, and with it the tokens that sign it.
    until = min([sent.statement.expires_at, *(t.until for t in step.tokens)])
    if sent.statement.issued_at - CLOCK_SKEW <= now < until:
        return
    # (b) k vaults that took it, say so: not looked at here.
    # (c) A later statement that counts was signed by people who could have signed this one.
    found = ways(step.before, sent)
    for signed in vouchers:
        try:
            wait = wait_of(found, signed, seen=_named(sent))
        except ApprovalError:
            continue
        if wait == 0:
            return
    raise ApprovalExpiredError(
        f"statement {sent.digest} was good from {sent.statement.issued_at} to {until}, it is {now}",
        "Bring taken receipts of k vaults, or have the owner sign it anew.",
    )


def _named(sent: UntrustedStatement) -> frozenset[str]:
    """Return what a veto names: k vaults, or a reader, take its having waited for granted."""
    statement = sent.statement
    return frozenset({statement.body.statement}) if isinstance(statement, Void) else frozenset()


def _proven(step: _Step) -> TakenStatement:
    # 3.8 What a courier added and nobody verified is not kept: it could outgrow every limit.
    sent, signed = step.courier.sent, step.signed
    by_signer = {s.signer: s for s in reversed(sent.signatures) if s.signer in signed}
    signatures = tuple(s for s in sent.signatures if by_signer.get(s.signer) is s)
    return TakenStatement(
        sent=replace(sent, signatures=signatures),
        receipts=tuple(step.receipts.values()),
        at=step.at,
        jwks=tuple(t.jwk for t in step.tokens),
    )


def _vault_set(before: KeyPolicy | None, sent: UntrustedStatement) -> VaultSet:
    return before.vault_set if before else birth_of(sent).body.vault_set


def _receipts(before: KeyPolicy | None, courier: Courier) -> dict[str, Signed]:
    """Return the receipts that hold, by vault of the set in force before the statement."""
    return vouching(_vault_set(before, courier.sent), courier.sent, courier.receipts)
