"""Several vaults' charters of one key: verify each, and see where they differ. Pure.

A vault is not believed: the key id fixes the birth statement, the birth names owner and
vault set, every later statement carries signatures, and that it came in time is shown by
receipts of k vaults, whoever brings them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import unb64
from placet.core.messages import CharterAnswer, CourierItem, Taken
from placet.core.statement import Birth, Merge, SignedStatement, UntrustedStatement, open_statement
from placet.errors import (
    ApprovalExpiredError,
    ApprovalWaitingError,
    MalformedError,
    PlacetError,
    VerificationError,
)
from placet.policy.charter import Courier, take
from placet.policy.key_policy import KeyPolicy

Vouched = dict[str, dict[str, Signed]]
"""Verified `Taken` receipts: by statement, then by vault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Two or more valid statements on the same one: only the owner can merge them."""

    prev: str
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStatement:
    """A statement that takes effect after a delay, unless an owner signer says no."""

    sent: UntrustedStatement
    until: Mapping[str, int]
    """By vault that shows it: Unix seconds, by that vault's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CharterView:
    """The newest charter that verifies, and how far each vault is."""

    policy: KeyPolicy
    items: tuple[CourierItem, ...]
    """The charter, each statement with every receipt that held."""
    chains: Mapping[str, tuple[str, ...]]
    """By vault: the statements of its charter; none, where the key is not born yet."""
    manifests: Mapping[str, str]
    """By vault: the manifest under which it says it committed a share."""
    wrong: Mapping[str, PlacetError]
    """By vault: why its charter is not believed."""
    forks: tuple[Fork, ...]
    waiting: tuple[WaitingStatement, ...] = ()

    @property
    def lagging(self) -> tuple[str, ...]:
        """Return the vaults that lack statements and could take them."""
        return tuple(v for v in self.chains if self.missing(v))

    def missing(self, vault: str) -> tuple[CourierItem, ...]:
        """Return what a vault lacks and could take, oldest first; nothing if it cannot.

        That is what follows on its head; on a branch that lost, what k vaults vouch for
        from the fork on; on one that a merge ended, the merge.
        """
        whole, chain = self.policy.chain, self.chains.get(vault, ())
        if not chain:
            return self.items
        if chain[-1] in whole:  # whatever led there: a merge may have ended it
            return self.items[whole.index(chain[-1]) + 1 :]
        for i, item in enumerate(self.items):
            statement = open_statement(item.signed).statement
            if isinstance(statement, Merge) and chain[-1] in statement.body.heads:
                return self.items[i:]
        same = sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(whole, chain)))  # noqa: B905 - of different lengths
        k = self.policy.vault_set.k
        backed = any(len(item.receipts) >= k for item in self.items[same:])
        return self.items[same:] if backed else ()

    def with_unborn(self, vaults: Iterable[str]) -> CharterView:
        """Return this view with vaults that have no statement of the key yet."""
        return replace(self, chains={**dict.fromkeys(vaults, ()), **self.chains})

    def confirmed(self, statement: str) -> dict[str, Signed]:
        """Return the receipts of the vaults that have this statement now, by vault."""
        for item, digest in zip(self.items, self.policy.chain, strict=True):
            if digest == statement:
                by_vault = {vault_id(unb64(r.vault_key)): r for r in item.receipts}
                return {v: r for v, r in by_vault.items() if digest in self.chains.get(v, ())}
        return {}


def open_birth(key: str, signed: SignedStatement) -> KeyPolicy:
    """Return the policy that a key was born with, wherever its birth statement came from.

    Enough to know owner, label and vaults; what was decided later is *not* in it.

    Raises:
        VerificationError: It is the birth of another key, or its owner did not sign.
        MalformedError, PolicyDeniedError: It is no birth that a vault would take.
    """
    sent = open_statement(signed)
    if sent.digest != key:
        raise VerificationError(f"statement is {sent.digest}, not the birth of key {key}")
    # Whether it was taken in time is for the vaults to know; the owner's signature never ends.
    policy, _ = take(None, [Courier(sent=sent)], now=sent.statement.issued_at)
    return policy


def merge_charters(key: str, answers: Mapping[str, CharterAnswer], *, now: int) -> CharterView:
    """Verify what vaults showed and return the newest charter among it.

    Longest wins, unless k vaults of the set vouch for another branch.

    Args:
        key: The key id.
        answers: By vault id; at least one.
        now: Unix seconds.

    Raises:
        PlacetError: None of the charters verifies: the first reason.
    """
    opened: dict[str, list[UntrustedStatement]] = {}
    wrong: dict[str, PlacetError] = {}
    for vault, answer in answers.items():
        try:
            opened[vault] = _open(key, answer)
        except PlacetError as e:
            wrong[vault] = e
    vouched = _vouched(key, opened, answers)
    verified: dict[str, tuple[KeyPolicy, list[UntrustedStatement]]] = {}
    for vault, sent in opened.items():
        try:
            verified[vault] = _longest(sent, vouched, now)
        except PlacetError as e:
            wrong[vault] = e
    if not verified:
        raise next(iter(wrong.values()))

    def rank(entry: tuple[KeyPolicy, object]) -> tuple[int, int, str]:
        policy, k = entry[0], entry[0].vault_set.k
        backed = [i for i, d in enumerate(policy.chain, 1) if len(vouched.get(d, {})) >= k]
        return (max(backed, default=0), policy.version, policy.head)

    policy, sent = max(verified.values(), key=rank)
    return CharterView(
        policy=policy,
        items=tuple(
            CourierItem(signed=s.signed(), receipts=tuple(vouched.get(s.digest, {}).values()))
            for s in sent
        ),
        chains={v: tuple(s.digest for s in opened[v]) for v in verified},
        manifests={v: m for v, a in answers.items() if (m := a.manifest) is not None},
        wrong=wrong,
        # Who is at the head has no other branch, whatever led there: a merge ended it.
        forks=_forks([p.chain for p, _ in verified.values() if p.head != policy.head], policy),
        waiting=_waiting(policy, answers),
    )


def _open(key: str, answer: CharterAnswer) -> list[UntrustedStatement]:
    sent = [open_statement(item.signed) for item in answer.charter]
    if not sent or sent[0].digest != key or not isinstance(sent[0].statement, Birth):
        raise VerificationError(f"charter does not start at the birth of key {key}")
    # After a merge, versions count those of the longest branch.
    version = getattr(sent[-1].statement, "base_version", 0) + 1
    if (answer.head, answer.version) != (sent[-1].digest, version):
        raise VerificationError("charter does not end at the head that the vault names")
    return sent


def _vouched(
    key: str,
    opened: Mapping[str, Sequence[UntrustedStatement]],
    answers: Mapping[str, CharterAnswer],
) -> Vouched:
    found: Vouched = {}
    for vault, sent in opened.items():
        # Who the vaults are, the birth says, and the key id is its digest.
        birth = sent[0].statement
        ids = birth.body.vault_set.ids if isinstance(birth, Birth) else ()
        for one, item in zip(sent, answers[vault].charter, strict=True):
            by_vault = found.setdefault(one.digest, {})
            for receipt in item.receipts:
                signer = _signer(receipt, key, one)
                if signer in ids:
                    by_vault[signer] = receipt
    return found


def _signer(receipt: Signed, key: str, sent: UntrustedStatement) -> str:
    """Return the vault that says in this receipt that it took this statement, or nothing."""
    try:
        signer = vault_id(unb64(receipt.vault_key))
        taken = open_signed(receipt, Taken, vault=signer)
    except (VerificationError, MalformedError):
        return ""
    fits = (taken.vault, taken.key, taken.statement) == (signer, key, sent.digest)
    return signer if fits else ""


def _longest(
    sent: list[UntrustedStatement], vouched: Vouched, now: int
) -> tuple[KeyPolicy, list[UntrustedStatement]]:
    """Return the longest beginning of a charter that would be taken from scratch."""
    couriers = [Courier(sent=s, receipts=tuple(vouched.get(s.digest, {}).values())) for s in sent]
    # A last statement that fewer than k vaults took in time is not known to be in force.
    for end in range(len(couriers), 1, -1):
        try:
            return take(None, couriers[:end], now=now)[0], sent[:end]
        except ApprovalExpiredError:
            continue
    return take(None, couriers[:1], now=now)[0], sent[:1]


def _waiting(
    policy: KeyPolicy, answers: Mapping[str, CharterAnswer]
) -> tuple[WaitingStatement, ...]:
    """Return what waits on the head, signed by people who may; a vault is not believed."""
    found: dict[str, UntrustedStatement] = {}
    until: dict[str, dict[str, int]] = {}
    for vault, answer in answers.items():
        for item in answer.waiting:
            try:
                sent = open_statement(item.signed)
                take(policy, [Courier(sent=sent)], now=sent.statement.issued_at)
            except ApprovalWaitingError:
                found[sent.digest] = sent
                until.setdefault(sent.digest, {})[vault] = item.until
            except PlacetError:
                continue
    return tuple(WaitingStatement(sent=s, until=until[d]) for d, s in found.items())


def _forks(chains: Sequence[tuple[str, ...]], policy: KeyPolicy) -> tuple[Fork, ...]:
    children: dict[str, set[str]] = {}
    merged = [c for c in chains if c[-1] in policy.merged]
    for chain in (policy.chain, *(c for c in chains if c not in merged)):
        for prev, child in itertools.pairwise(chain):
            children.setdefault(prev, set()).add(child)
    return tuple(
        Fork(prev=prev, children=tuple(sorted(found)))
        for prev, found in children.items()
        if len(found) > 1
    )
