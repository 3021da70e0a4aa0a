"""A key's charter: taking statements, and folding them to the policy in force.

Taking and folding are two acts (spec/03, sections 3 and 4). `take` checks signatures and
expiry once, against the time it is given. `fold` reads no clock: the policy of a key *is*
the fold of what was taken. Both are pure; the caller **must** store what was taken
before anything follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from placet.core.dsse import Signed, open_signed
from placet.core.messages import Taken
from placet.core.profile import VaultSet
from placet.core.signer import Threshold
from placet.core.statement import Birth, Chained, Delete, Promote, Retire, UntrustedStatement
from placet.errors import (
    AncestorMissingError,
    ApprovalError,
    ApprovalExpiredError,
    ConflictError,
    MalformedError,
    VerificationError,
)
from placet.policy.key_policy import KeyPolicy, birth_of, follow
from placet.policy.principal import check_principal, leaves, require
from placet.policy.signers import verify_signatures

CLOCK_SKEW = 600
"""Seconds by which an owner's clock may be ahead of a vault's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenStatement:
    """A statement that `take` took. Its signatures held and it came in time."""

    sent: UntrustedStatement
    """Without what strangers signed, and one signature of each signer."""
    receipts: tuple[Signed, ...] = ()
    """Of those that came with it, the ones that hold: one a vault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """A statement on its way, with receipts of vaults that took it in time."""

    sent: UntrustedStatement
    receipts: tuple[Signed, ...] = ()


def fold(charter: Iterable[TakenStatement]) -> KeyPolicy:
    """Return the policy in force after these statements.

    Signatures and times are **not** checked again: `TakenStatement` stands for them.

    Raises:
        MalformedError: The statements are no charter (empty, or not starting at a birth).
        PolicyDeniedError: A statement breaks a rule: it could not have been taken.
    """
    policy: KeyPolicy | None = None
    for link in charter:
        policy = follow(policy, link.sent)
    if policy is None:
        raise MalformedError("charter is empty")
    return policy


def take(
    policy: KeyPolicy | None, couriers: Sequence[Courier], *, now: int
) -> tuple[KeyPolicy, tuple[TakenStatement, ...]]:
    """Take a run of statements of one key, oldest first: all of them or none.

    Those already taken are passed over, so repeating it changes nothing (I14).

    Args:
        policy: The policy in force here, or ``None`` where the key is unknown.
        couriers: At least one statement.
        now: This vault's time in Unix seconds.

    Returns:
        The policy that follows and the statements that are new here. The caller must
        store them before the policy is used.

    Raises:
        AncestorMissingError: Statements in between are missing here.
        ConflictError: Another statement was taken in this one's place.
        ApprovalError: Too few of the owner's signers signed.
        ApprovalExpiredError: Nothing shows that it was approved in time.
        MalformedError, PolicyDeniedError: A rule of its type is broken.
    """
    # 3.1 What was taken before is passed over.
    known = policy.chain if policy is not None else ()
    new = [c for c in couriers if c.sent.digest not in known]
    steps: list[tuple[KeyPolicy | None, Courier, frozenset[str]]] = []
    for courier in new:
        sent = courier.sent
        # 3.2 The next statement stands on the head: compare and swap.
        _check_place(policy, sent)
        # 3.3 Signed by the owner in force before it (a birth: by the owner it names).
        owner = _owner_before(policy, sent)
        signed = verify_signatures(sent, leaves(owner)).signers
        require(owner, signed)
        # 3.4 The rules of its type.
        after = follow(policy, sent)
        steps.append((policy, courier, signed))
        policy = after
    # 3.5 Each came in time, or is vouched for.
    vouchers: list[frozenset[str]] = []
    for before, courier, signed in reversed(steps):
        _check_time(before, courier, vouchers, now)
        vouchers.append(signed)
    if policy is None:
        raise ValueError("no statement was given")
    return policy, tuple(_proven(*step) for step in steps)


def replay(sents: Sequence[UntrustedStatement]) -> KeyPolicy:
    """Return the policy of a charter that somebody else holds, for a reader without a log.

    Every signature is checked by the owner in force before it; that each was taken in
    time is **not**: vaults see to that, and a reader believes k of them.

    Raises:
        ConflictError, ApprovalError, MalformedError, PolicyDeniedError: It is no charter.
    """
    policy: KeyPolicy | None = None
    for sent in sents:
        _check_place(policy, sent)
        owner = _owner_before(policy, sent)
        require(owner, verify_signatures(sent, leaves(owner)).signers)
        policy = follow(policy, sent)
    if policy is None:
        raise MalformedError("charter is empty")
    return policy


def effective_at(statement: Chained, vault_set: VaultSet) -> int:
    """Return at how many vaults a statement is effective (I12).

    A birth at n, since creation needs all; a promote at k; a retire at n - k + 1, for
    fewer leave k vaults that would still serve what was retired. A promote that retires
    others lets in at k, and shuts out at n - k + 1: the larger of the two counts, as for
    whatever else may both give and take.
    """
    n, k = vault_set.n, vault_set.k
    shuts_out = n - k + 1
    if isinstance(statement, Birth):
        return n
    if isinstance(statement, Retire | Delete):
        return shuts_out
    if isinstance(statement, Promote) and statement.body.earlier == "keep":
        return k
    return max(k, shuts_out)


def _check_place(policy: KeyPolicy | None, sent: UntrustedStatement) -> None:
    statement = sent.statement
    if not isinstance(statement, Chained):
        raise MalformedError(
            "a stage or revoke-pending has no place in a charter",
            "Send it to /v1/pending.",
        )
    if policy is None:
        if not isinstance(statement, Birth):
            raise AncestorMissingError(
                "this vault has no statement of that key yet",
                "Send the charter from the birth statement on.",
                head=None,
                version=0,
            )
        return
    head, version = policy.head, policy.version
    if sent.key != policy.key:
        raise ConflictError(
            f"statement is about key {sent.key}, not {policy.key}", head=head, version=version
        )
    if statement.prev != policy.head:
        if statement.base_version > policy.version:
            raise AncestorMissingError(
                f"statement stands on version {statement.base_version}, "
                f"this vault is at version {policy.version}",
                "Send the statements in between as well.",
                head=head,
                version=version,
            )
        raise ConflictError(
            f"statement stands on {statement.prev}, the head here is {policy.head}",
            "Read the charter again and decide again: another statement came first.",
            head=head,
            version=version,
        )
    if statement.base_version != policy.version:
        raise ConflictError(
            f"statement was written for version {statement.base_version}, "
            f"the key is at version {policy.version}",
            head=head,
            version=version,
        )


def _owner_before(policy: KeyPolicy | None, sent: UntrustedStatement) -> Threshold:
    if policy is not None:
        return policy.owner
    if not isinstance(sent.statement, Birth):
        raise MalformedError("charter does not start at a birth statement")
    owner = sent.statement.body.policy.owner
    check_principal(owner)
    return owner


def _check_time(
    before: KeyPolicy | None, courier: Courier, vouchers: list[frozenset[str]], now: int
) -> None:
    sent = courier.sent
    # (a) Alive.
    if sent.statement.issued_at - CLOCK_SKEW <= now < sent.statement.expires_at:
        return
    # (b) k vaults of the set in force before it took it, and say so.
    if len(_receipts(before, courier)) >= _vault_set(before, sent).k:
        return
    # (c) A later statement that counts was signed by people who could have signed this one.
    owner = _owner_before(before, sent)
    for signed in vouchers:
        try:
            require(owner, signed)
        except ApprovalError:
            continue
        return
    raise ApprovalExpiredError(
        f"statement {sent.digest} was good from {sent.statement.issued_at} "
        f"to {sent.statement.expires_at}, it is {now}",
        "Bring taken receipts of k vaults, or have the owner sign it anew.",
    )


def _proven(before: KeyPolicy | None, courier: Courier, signed: frozenset[str]) -> TakenStatement:
    # 3.6 What a courier added and nobody verified is not kept: it could outgrow every limit.
    by_signer = {s.signer: s for s in reversed(courier.sent.signatures) if s.signer in signed}
    signatures = tuple(s for s in courier.sent.signatures if by_signer.get(s.signer) is s)
    sent = replace(courier.sent, signatures=signatures)
    return TakenStatement(sent=sent, receipts=tuple(_receipts(before, courier).values()))


def _vault_set(before: KeyPolicy | None, sent: UntrustedStatement) -> VaultSet:
    return before.vault_set if before else birth_of(sent).body.vault_set


def _receipts(before: KeyPolicy | None, courier: Courier) -> dict[str, Signed]:
    """Return the receipts that hold, by vault of the set in force before the statement."""
    vouching: dict[str, Signed] = {}
    for receipt in courier.receipts:
        for vault in _vault_set(before, courier.sent).ids:
            try:
                taken = open_signed(receipt, Taken, vault=vault)
            except (VerificationError, MalformedError):
                continue
            if (taken.vault, taken.key, taken.statement) == (
                vault,
                courier.sent.key,
                courier.sent.digest,
            ):
                vouching.setdefault(vault, receipt)
    return vouching
