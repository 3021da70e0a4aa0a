"""n vaults that take statements by the real rules, each beside its oracle.

Every delivery is given to both; where they differ in what a vault answers, holds or
would release, `DisagreementError` says in what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec
from placet_testing.charters import NOW

from placet.client.signing import Composer, promote_body
from placet.core.body import MergeBody, MergedProfile
from placet.core.dsse import Signed, sign_record
from placet.core.messages import Taken
from placet.core.statement import UntrustedStatement, compose, open_statement
from placet.core.table import clause_digest
from placet.errors import AncestorMissingError, ApprovalWaitingError, ConflictError, PlacetError
from placet.policy import branches, charter, gate
from placet.policy.charter import Courier, TakenStatement
from placet.policy.key_policy import KeyPolicy
from placet.policy.receipts import receipt_of, taken_at
from placet_model import cast, oracle, oracle_taking
from placet_model.ideal import signature, vault_identity
from placet_model.oracle import History, Said, Table
from placet_model.oracle_taking import Vault


class DisagreementError(AssertionError):
    """Vault and oracle differ, or an invariant does not hold."""


@dataclass(frozen=True)
class Kept:
    """One statement of a vault's record: its own receipt stands first."""

    sent: UntrustedStatement
    receipts: tuple[Signed, ...]


@dataclass(frozen=True)
class Node:
    """One vault's record of the key, and the policy that it folds to.

    What `placet.vault.taking` does with a run, without store and log.
    """

    number: int
    charter: tuple[Kept, ...] = ()
    policy: KeyPolicy | None = None
    waiting: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def taken(self) -> tuple[TakenStatement, ...]:
        """Return the charter as a start reads it from the record."""
        return tuple(_from_record(kept, _k(self.charter)) for kept in self.charter)

    def bring(  # noqa: PLR0911 - one return for each way it can end
        self, couriers: Sequence[Courier], now: int
    ) -> tuple[Node, PlacetError | None]:
        """Return this vault after it was brought a run, and what it answers if not yes."""
        me = cast.vault(self.number)
        couriers = [
            replace(c, receipts=tuple(r for r in c.receipts if receipt_of(r).vault != me))
            for c in couriers
        ]
        try:
            return self._take(couriers, now), None
        except ApprovalWaitingError as e:
            try:
                return self._wait(couriers, e, now), e
            except PlacetError as other:
                return self, other
        except AncestorMissingError as e:
            return self, e
        except ConflictError as e:
            try:
                return (self._change(couriers, now), None) if self.policy else (self, e)
            except PlacetError as other:
                return self, other
        except PlacetError as e:
            return self, e

    def _take(self, couriers: Sequence[Courier], now: int) -> Node:
        head = self.policy.head if self.policy else ""
        waits = {d: since for d, (on, since) in self.waiting.items() if on == head}
        policy, new = charter.take(self.policy, couriers, now=now, waiting=waits)
        kept = tuple(self._receipted(fresh, now) for fresh in new)
        return replace(self, policy=policy, charter=self.charter + kept)

    def _change(self, couriers: Sequence[Courier], now: int) -> Node:
        kept, policy, new = branches.change_branch(self.taken(), couriers, now=now)
        fresh = tuple(self._receipted(it, now) for it in new)
        return replace(self, policy=policy, charter=self.charter[:kept] + fresh)

    def _wait(self, couriers: Sequence[Courier], e: ApprovalWaitingError, now: int) -> Node:
        new = charter.unknown(self.policy, couriers)
        at = [c.sent.digest for c in new].index(str(e.members["statement"]))
        node = self._take(new[:at], now) if at else self
        if not e.members["delay"] or node.policy is None:
            return node
        head = node.policy.head
        waiting = {d: w for d, w in node.waiting.items() if w[0] == head}
        waiting.setdefault(new[at].sent.digest, (head, now))
        return replace(node, waiting=waiting)

    def _receipted(self, fresh: TakenStatement, now: int) -> Kept:
        own = receipt(
            self.number,
            fresh.sent.key,
            fresh.sent.digest,
            fresh.sent.statement.base_version + 1,
            now,
        )  # type: ignore[union-attr]
        return Kept(fresh.sent, (own, *fresh.receipts))


FIRST: Mapping[int, tuple[int, int | None]] = {1: (1, None)}


@lru_cache(None)
def _birth(table: Table, n: int, k: int) -> UntrustedStatement:
    body = cast.birth_of(table, 1, n, k)
    return Composer(now=NOW, rng=lambda count: b"b" * count, lifetime=3 * cast.DAY).birth(body)


@lru_cache(20000)
def receipt(number: int, key: str, digest: str, version: int, now: int) -> Signed:
    """Return what a vault signs when it takes a statement."""
    taken = Taken(
        vault=cast.vault(number), key=key, statement=digest, version=version, index=0, time=now
    )
    return sign_record(taken, vault_identity(number + 1))  # type: ignore[arg-type]


def _from_record(kept: Kept, k: int) -> TakenStatement:
    own, *others = (receipt_of(r).time for r in kept.receipts)
    return TakenStatement(sent=kept.sent, receipts=kept.receipts, at=taken_at(own, others, k))


def _k(charter_: Sequence[Kept]) -> int:
    return charter_[0].sent.statement.body.vault_set.k  # type: ignore[union-attr,no-any-return]


@dataclass
class World:
    """n vaults of one key, and every statement and receipt there is."""

    n: int
    k: int
    table: Table = cast.TABLE
    time: int = NOW
    nodes: list[Node] = field(default_factory=list)
    oracles: list[Vault] = field(default_factory=list)
    skew: list[int] = field(default_factory=list)
    sents: dict[str, UntrustedStatement] = field(default_factory=dict)
    saids: dict[str, Said] = field(default_factory=dict)
    receipts: dict[str, dict[int, Signed]] = field(default_factory=dict)
    drawn: int = 0
    seed: str = ""
    """What nonces are drawn from: other statements in another world."""

    def __post_init__(self) -> None:
        """Let there be vaults, and a birth that was signed and not yet sent."""
        self.nodes = [Node(i) for i in range(self.n)]
        self.oracles = [Vault() for _ in range(self.n)]
        self.skew = [0] * self.n
        sent = _birth(self.table, self.n, self.k)
        self.birth = self._keep(
            sent, {"owner", "spare"}, kind="birth", table=self.table, lets_in=FIRST
        )

    # --- what is said ---------------------------------------------------------------------

    def say(self, past: History, kind: str, by: Iterable[str], **body: Any) -> str:
        """Have people sign a statement that stands on the end of a history; return its digest."""
        return self._keep(self._composed(past, kind, body), by, kind=kind, **body)

    def _composed(  # noqa: PLR0911 - one return for each type
        self, past: History, kind: str, body: dict[str, Any]
    ) -> UntrustedStatement:
        spot: Any = _Spot(self.birth, past[-1].said.id, oracle.version(past))
        write = self._composer()
        if kind == "promote":
            what = promote_body(spot, cast.version_of(body["code"], body["sv"]))
            changes = {"security_version_floor": body["floor"]} | {
                f: body[f] for f in ("earlier", "retire_at", "unretire") if f in body
            }
            if body.get("auto"):
                changes["auto"] = clause_digest(cast.clause_of(body["auto"]))
            return write.promote(spot, msgspec.structs.replace(what, **changes))
        if kind == "retire":
            return write.retire(spot, cast.ID_OF[body["code"]], "r")
        if kind == "update":
            return write.update(spot, cast.rules_of(body["table"]), "r")
        if kind == "void":
            return write.void(spot, body["names"], "r")
        if kind == "recover" and body.get("owner"):
            return write.recover(spot, cast.threshold(body["owner"], "owner"), "r")
        if kind == "recover":
            return write.complete(spot, body["names"], "r")
        if kind == "delete":
            spot.label = cast.LABEL if body["label"] else "notes/other"
            return write.delete(spot, "r")
        return write.merge([spot], _merge_body(body))

    def _keep(self, sent: UntrustedStatement, by: Iterable[str], **body: Any) -> str:
        signed = compose(
            sent.statement, tuple(signature(b, sent.payload, sent.digest) for b in sorted(by))
        )
        it: Any = sent.statement
        self.sents[sent.digest] = signed
        self.saids[sent.digest] = Said(
            id=sent.digest,
            prev=it.prev,
            base=it.base_version,
            issued=it.issued_at,
            ends=it.expires_at,
            signed=frozenset(by),
            **body,
        )
        return sent.digest

    def _composer(self) -> Composer:
        return Composer(now=self.time, rng=self._draw, lifetime=3 * cast.DAY)

    def _draw(self, count: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_128(f"{self.seed}/{self.drawn}".encode()).digest(count)

    # --- what happens ---------------------------------------------------------------------

    def clock(self, at: int) -> int:
        """Return a vault's time."""
        return self.time + self.skew[at]

    def bring(self, at: int, run: Sequence[str], vouchers: Collection[int] | None = None) -> str:
        """Bring a vault a run, with all receipts there are (of these vaults); return its answer.

        Raises:
            DisagreementError: The real rules answer otherwise, or leave another policy.
        """
        now = self.clock(at)
        found = {
            d: {
                v: r
                for v, r in self.receipts.get(d, {}).items()
                if vouchers is None or v in vouchers
            }
            for d in run
        }
        couriers = [Courier(sent=self.sents[d], receipts=tuple(found[d].values())) for d in run]
        before = self.nodes[at]
        after, problem = before.bring(couriers, now)
        answer = "taken" if problem is None else "refused"
        if isinstance(problem, ApprovalWaitingError):
            answer = "waits"
        self.nodes[at] = after
        for kept in after.charter:
            self.receipts.setdefault(kept.sent.digest, {}).setdefault(at, kept.receipts[0])
        bundles = [
            (self.saids[d], {v: receipt_of(r).time for v, r in found[d].items()}) for d in run
        ]
        expected, self.oracles[at] = _foretold(self.oracles[at], bundles, now, self.k, at)
        if answer != expected:
            raise DisagreementError(
                f"vault {at} says {answer} ({problem!r}), the oracle {expected}"
            )
        self.compare(at)
        return answer

    def crash(self, at: int) -> None:
        """Start a vault again from what it stored: the fold is its policy."""
        node = self.nodes[at]
        again = tuple(
            Kept(open_statement(kept.sent.signed()), kept.receipts) for kept in node.charter
        )
        policy = charter.fold(replace(node, charter=again).taken()) if again else None
        if policy != node.policy:
            raise DisagreementError(f"vault {at} folds to another policy after a restart")
        self.nodes[at] = replace(node, charter=again, policy=policy)

    def compare(self, at: int) -> None:
        """Check one vault's policy against the oracle's."""
        got, expected = cast.seen(self.nodes[at].policy), oracle.view(self.oracles[at].past)
        for name in got.keys() | expected.keys():
            if got.get(name) != expected.get(name):
                raise DisagreementError(
                    f"vault {at}: {name} is {got.get(name)}, the oracle says {expected.get(name)}"
                )
        node = {d: since for d, (_, since) in self.nodes[at].waiting.items()}
        if node != {d: since for d, (_, since) in self.oracles[at].waiting.items()}:
            raise DisagreementError(f"vault {at}: what waits differs")

    # --- what may be asked ----------------------------------------------------------------

    def releases(self, at: int, code: int) -> bool:
        """Return whether a vault would release to a code now, by the real gate."""
        policy = self.nodes[at].policy
        if policy is None:
            return False
        try:
            gate.decide_release(
                policy,
                cast.caller(code, policy.key),
                purpose="release",
                keys=(policy.key,),
                age=0,
                max_age=60,
                now=self.clock(at),
            )
        except PlacetError:
            return False
        return True

    def chain(self, at: int) -> tuple[str, ...]:
        """Return what a vault took."""
        policy = self.nodes[at].policy
        return policy.chain if policy else ()


@dataclass
class _Spot:
    """Where a statement is to stand, as far as a composer looks."""

    key: str
    head: str
    version: int
    label: str = cast.LABEL
    floor: int = 0


def _merge_body(body: dict[str, Any]) -> MergeBody:
    return MergeBody(
        heads=tuple(sorted(body["heads"])),
        policy=cast.rules_of(body["table"]),
        profiles=tuple(
            MergedProfile(profile=cast.version_of(code, sv), until=end)
            for code, (sv, end) in sorted(body["lets_in"].items())
        ),
        security_version_floor=body["floor"],
        tombstones=tuple(sorted(cast.ID_OF[c] for c in body["tombs"])),
        reason="r",
    )


def _foretold(
    vault: Vault, run: Sequence[tuple[Said, Mapping[int, int]]], now: int, k: int, at: int
) -> tuple[str, Vault]:
    try:
        return "taken", oracle_taking.deliver(vault, run, now=now, k=k, me=at)
    except oracle.Waits as wait:
        return "waits", wait.args[1]
    except oracle.Refused:
        return "refused", vault
