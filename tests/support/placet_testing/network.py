"""A seeded network between owner, couriers and n vaults: lost, doubled, late, out of order.

Vaults are the real `take` and `change_branch`. Statements, receipts and checked signatures
are remembered over all seeds, so that a seed costs a few milliseconds.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import msgspec

from placet.client.signing import merge_body, promote_body
from placet.core.dsse import Signed, open_signed, sign_record
from placet.core.messages import Taken
from placet.core.profile import code_id
from placet.core.statement import Promote, Retire, UntrustedStatement
from placet.errors import AncestorMissingError, ConflictError, PlacetError
from placet.policy import charter as charter_module
from placet.policy import receipts as receipts_module
from placet.policy import signers as signers_module
from placet.policy.branches import change_branch
from placet.policy.charter import Courier, TakenStatement, effective_at, fold, take
from placet.policy.key_policy import KeyPolicy
from placet.policy.points import check_ed25519
from placet.policy.signers import verify_signatures
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    owner_of,
    person,
    profile,
    signed,
    vault_key,
    vault_name,
    vault_set,
)

NAMES = [vault_name(i) for i in range(1, 6)]
KEYS = [vault_key(i) for i in range(1, 6)]
SIZES = ((3, 2), (4, 3), (5, 3))
SIGNED: dict[tuple[str, str, int, int], UntrustedStatement | None] = {}
"""What was signed on a head before: the same again, in another seed."""
KINDS = ("promote", "replace", "retire", "update", "void")


class BrokenError(Exception):
    """An invariant does not hold."""


@functools.cache
def birth_of(n: int, k: int) -> UntrustedStatement:
    """Return the birth of a key at n vaults."""
    owner = owner_of(person("owner").signer, person("spare").signer)
    return signed(composer().birth(birth_body(owner, vaults=vault_set(n, k))))


@functools.cache
def receipt(number: int, key: str, digest: str, time: int) -> Signed:
    """Return what a vault signs when it takes a statement."""
    taken = Taken(vault=NAMES[number], key=key, statement=digest, version=1, index=0, time=time)
    return sign_record(taken, KEYS[number])


@contextmanager
def remembered() -> Iterator[None]:
    """Check each signature once over all seeds; what does not hold is checked again."""
    holds: dict[object, object] = {}

    def verify(sent, signers):
        key = (sent.digest, sent.signatures, signers)
        if key not in holds:
            holds[key] = verify_signatures(sent, signers)
        return holds[key]

    def opened(signed, shape, *, vault):
        key = (signed, vault)
        if key not in holds:
            try:
                holds[key] = open_signed(signed, shape, vault=vault)
            except PlacetError as e:
                holds[key] = e
        if isinstance(found := holds[key], PlacetError):
            raise found
        return found

    with (
        mock.patch.object(charter_module, "verify_signatures", verify),
        mock.patch.object(receipts_module, "open_signed", opened),
        mock.patch.object(signers_module, "check_ed25519", functools.cache(check_ed25519)),
    ):
        yield


@dataclass
class SimVault:
    """One vault: its charter, its clock, and what it once served."""

    number: int
    charter: list[TakenStatement] = field(default_factory=list)
    policy: KeyPolicy | None = None
    ahead: int = 0

    def receive(self, run: list[Courier], now: int) -> None:
        """Take a run, or change to a branch that k vaults took; refusals change nothing."""
        now += self.ahead
        before = self.policy
        try:
            policy, new = take(before, run, now=now)
            kept = len(self.charter)
        except AncestorMissingError:
            return
        except ConflictError:
            try:
                kept, policy, new = change_branch(self.charter, run, now=now)
            except PlacetError:
                return
        except PlacetError:
            return
        self.charter = [*self.charter[:kept], *(self._stored(t, now) for t in new)]
        self.policy = policy
        if before is not None and kept == len(before.chain) and policy.version < before.version:
            raise BrokenError("I5: a version fell")

    def _stored(self, taken: TakenStatement, now: int) -> TakenStatement:
        own = receipt(self.number, taken.sent.key, taken.sent.digest, now)
        others = tuple(r for r in taken.receipts if r.vault_key != own.vault_key)
        return TakenStatement(sent=taken.sent, receipts=(own, *others), at=taken.at)

    def restart(self) -> None:
        """Lose everything but what is stored."""
        if self.charter:
            again = fold(self.charter)
            if again != self.policy:
                raise BrokenError("I16: what is stored folds to another policy")


class Simulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.n, self.k = SIZES[seed % len(SIZES)]
        self.now = NOW
        self.birth = birth_of(self.n, self.k)
        self.vaults = [SimVault(i) for i in range(self.n)]
        for vault in self.vaults:
            vault.receive([Courier(sent=self.birth)], NOW)
        self.known = {self.birth.digest: self.birth}
        self.wire: list[tuple[int, list[str]]] = []
        self.taps = 0

    # --- what happens ------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Do so many random things, then heal the network and have everything converge."""
        for _ in range(steps):
            self.step()
            self.check()
        self.heal()
        self.check()

    def step(self) -> None:
        """Do one thing: sign, deliver, lose, double, delay, restart, let time pass."""
        what = self.random.choices(
            ("sign", "deliver", "lose", "double", "carry", "restart", "time"),
            (3, 8, 1, 1, 3, 1, 1),
        )[0]
        if what == "sign":
            self.sign()
        elif what == "carry":
            self.carry()
        elif what == "restart":
            self.random.choice(self.vaults).restart()
        elif what == "time":
            self.now += self.random.choice((600, 3600))
            self.random.choice(self.vaults).ahead += self.random.choice((0, 600))
        elif self.wire:
            at = self.random.randrange(len(self.wire))  # any order: the network reorders
            to, run = self.wire[at] if what == "double" else self.wire.pop(at)
            if what != "lose":
                self.deliver(to, run)

    def sign(self) -> None:
        """Have one of the owner's devices sign on the head that some vault shows it."""
        shown = self.random.choice(self.vaults).policy
        sent = self.compose(shown, self.random.choice(KINDS))
        if sent is None:
            return
        self.taps += 1
        self.known[sent.digest] = sent
        for to in range(self.n):
            self.wire.append((to, [sent.digest]))

    def compose(self, policy: KeyPolicy, kind: str) -> UntrustedStatement | None:
        """Return a statement on a policy; devices that do the same sign the same bytes."""
        chosen = (policy.head, kind, self.random.randrange(2), self.random.randrange(3))
        if chosen not in SIGNED:
            SIGNED[chosen] = self._compose(policy, kind, *chosen[2:])
        return SIGNED[chosen]

    def _compose(
        self, policy: KeyPolicy, kind: str, device: int, number: int
    ) -> UntrustedStatement | None:
        pen = composer(NOW, seed=f"{policy.head}/{kind}/{device}")
        what = profile(2 + number)
        code = code_id(what)
        if kind in ("promote", "replace"):
            body = promote_body(policy, what, unretire=code in policy.tombstones)
            if kind == "replace":
                body = msgspec.structs.replace(body, earlier="retire")
            return signed(pen.promote(policy, body))
        if kind == "retire":
            there = sorted(a.code for a in policy.approvals)
            return signed(pen.retire(policy, there[0], "x")) if there else None
        if kind == "update":
            quota = 1 + (policy.rules.stager_quota % 5)
            rules = msgspec.structs.replace(policy.rules, stager_quota=quota)
            return signed(pen.update(policy, rules, "x"))
        return signed(pen.void(policy, policy.head, "x"))

    def carry(self) -> None:
        """Have a courier bring one vault's whole charter to another, with all receipts."""
        source, target = self.random.choice(self.vaults), self.random.randrange(self.n)
        self.wire.append((target, list(source.policy.chain)))

    def deliver(self, to: int, run: list[str]) -> None:
        """Bring a run to a vault, with every receipt that exists of it by now."""
        self.vaults[to].receive([self.with_receipts(d) for d in run], self.now)

    def with_receipts(self, digest: str) -> Courier:
        """Return a statement with the receipts of everybody who holds it."""
        found = [
            link.receipts[0]
            for vault in self.vaults
            for link in vault.charter
            if link.sent.digest == digest
        ]
        return Courier(sent=self.known[digest], receipts=tuple(found))

    # --- what must hold ----------------------------------------------------------------

    def holders(self, digest: str) -> int:
        """Return how many vaults have a statement in their charter now."""
        return sum(digest in v.policy.chain for v in self.vaults)

    def check(self) -> None:
        """Check I1, I5 and I12 as they stand."""
        children: dict[str, set[str]] = {}
        for vault in self.vaults:
            for prev, child in zip(vault.policy.chain, vault.policy.chain[1:], strict=False):
                children.setdefault(prev, set()).add(child)
        for prev, found in children.items():
            merged = {c for c in found if any(c in v.policy.merged for v in self.vaults)}
            if sum(self.holders(c) >= self.k for c in found - merged) > 1:
                raise BrokenError(f"R8.2: two branches on {prev} could release")
        for vault in self.vaults:
            for approval in vault.policy.approvals:
                if approval.statement not in vault.policy.chain:
                    raise BrokenError("I1: an approval without its statement")
        self.check_retired()

    def check_retired(self) -> None:
        """Check that what was retired at n-k+1 vaults is served by fewer than k (I12)."""
        for sent in self.known.values():
            statement = sent.statement
            if not isinstance(statement, Retire):
                continue
            on = [v for v in self.vaults if sent.digest in v.policy.chain]
            if len(on) < effective_at(statement, vault_set(self.n, self.k)):
                continue
            code = statement.body.code
            again = any(
                isinstance(s.statement, Promote) and code_id(s.statement.body.profile) == code
                for v in on
                for s in (
                    self.known[d] for d in v.policy.chain[v.policy.chain.index(sent.digest) :]
                )
            )
            serving = sum(code in {a.code for a in v.policy.approvals} for v in self.vaults)
            if serving >= self.k and not again:
                raise BrokenError(f"I12: {code} was retired and k vaults serve it")

    def heal(self) -> None:
        """Let couriers carry everything to everybody; a fork that nobody won is merged."""
        taps = self.taps
        for _ in range(2 * self.n):
            self.wire.clear()
            for source in self.vaults:
                for to in range(self.n):
                    self.deliver(to, list(source.policy.chain))
            if len({v.policy.head for v in self.vaults}) == 1:
                break
        else:
            self.merge()
        if len({v.policy.head for v in self.vaults}) != 1:
            raise BrokenError("R8.1: healed, and vaults differ")
        if len({v.policy.approvals for v in self.vaults}) != 1:
            raise BrokenError("R8.1: one head, and two policies")
        if taps != self.taps:
            raise BrokenError("R8.1: a new tap was needed")

    def merge(self) -> None:
        """End a fork in which no branch has k vaults."""
        heads = {v.policy.head: v.policy for v in self.vaults}
        backed = [h for h in heads if self.holders(h) >= self.k]
        if backed:
            raise BrokenError("R8.2: a branch with k vaults did not win")
        branches = list(heads.values())
        sent = signed(composer(self.now).merge(branches, merge_body(branches, "one")))
        self.known[sent.digest] = sent
        for to in range(self.n):
            self.deliver(to, [sent.digest])


def simulate(seeds: range, steps: int = 24) -> dict[str, int]:
    """Run seeds; return how many forked to a merge, and how many statements were signed.

    Raises:
        BrokenError: An invariant broke; the message names the seed.
    """
    counts = {"seeds": 0, "taps": 0, "merged": 0, "longest": 0}
    with remembered():
        for seed in seeds:
            one = Simulation(seed)
            try:
                one.run(steps)
            except BrokenError as e:
                raise BrokenError(f"seed {seed}: {e}") from e
            counts["seeds"] += 1
            counts["taps"] += one.taps
            counts["merged"] += any(v.policy.merged for v in one.vaults)
            counts["longest"] = max(counts["longest"], one.vaults[0].policy.version)
    return counts
