"""What must hold in every state, whatever the oracle says: I1, I5, I12 and no second branch."""

from __future__ import annotations

from dataclasses import dataclass, field

from placet.policy.receipts import vouching
from placet_model import cast, oracle, oracle_taking
from placet_model.oracle import History, Link, Refused, Said
from placet_model.world import DisagreementError, World


@dataclass
class Watch:
    """Looks at a world after each step, and remembers what has been effective."""

    world: World
    chains: list[tuple[str, ...]] = field(init=False)
    won: dict[str, set[str]] = field(default_factory=dict)
    """By statement: its children that k vaults held at one time."""
    shut: dict[str, frozenset[int]] = field(default_factory=dict)
    """Statements that were effective, and what they shut out."""

    def __post_init__(self) -> None:
        """Begin with what is."""
        self.chains = [self.world.chain(at) for at in range(self.world.n)]

    def look(self) -> None:
        """Check everything.

        Raises:
            DisagreementError: An invariant does not hold; which, is said.
        """
        released = dict.fromkeys(cast.CODES, 0)
        for at in range(self.world.n):
            for code in cast.CODES:
                if self.world.releases(at, code):
                    released[code] += 1
                    self.consented(at, code)
            self._chained(at)
        self._one_branch()
        self._shut_out(released)

    def _past(self, at: int) -> History:
        """Return a vault's history as its own record has it, not as the oracle does."""
        return tuple(
            Link(self.world.saids[link.sent.digest], link.at or 0, frozenset())
            for link in self.world.nodes[at].taken()
        )

    def consented(self, at: int, code: int) -> None:
        """I1: what lets it in stands in this vault's charter, signed by who had to."""
        past = self._past(at)
        if not oracle.allowed(past, code, self.world.clock(at)):
            raise DisagreementError(f"I1: vault {at} releases to code {code} without an approval")
        for i, link in enumerate(past):
            try:
                oracle_taking._wait(past[:i], link.said, link.said.signed, veto=True)
            except Refused as e:
                raise DisagreementError(
                    f"I1: vault {at} took {link.said.kind} of {set(link.said.signed)}: {e}"
                ) from e

    def _chained(self, at: int) -> None:
        """I5: a line of statements, each on the one before; it grows, or k vaults say otherwise."""
        chain, before = self.world.chain(at), self.chains[at]
        self.chains[at] = chain
        if chain == before:
            return
        version = 0
        for prev, digest in zip((None, *chain), chain, strict=False):
            said = self.world.saids[digest]
            stands = said.prev == prev or prev in said.heads
            version = version + 1 if said.kind != "merge" else max(said.base, version) + 1
            if not stands or said.base + 1 != version:
                raise DisagreementError(f"I5: at vault {at} {said.kind} stands on something else")
        same = sum(1 for a, b in zip(chain, before, strict=False) if a == b)
        if same < len(before):
            there = cast.vaults(self.world.n, self.world.k)
            backed = (
                vouching(there, kept.sent, kept.receipts).keys() - {cast.vault(at)}
                for kept in self.world.nodes[at].charter[same:]
            )
            if max(map(len, backed), default=0) < self.world.k:
                raise DisagreementError(
                    f"I5: vault {at} changed branch, and k vaults do not say so"
                )

    def _one_branch(self) -> None:
        """R8.2: of the children of a statement, one at most is ever held by k vaults."""
        held: dict[str, int] = {}
        branch: dict[str, int] = {}
        for chain in self.chains:
            merged = [i for i, d in enumerate(chain) if self.world.saids[d].kind == "merge"]
            for i, digest in enumerate(chain):
                held[digest] = held.get(digest, 0) + 1
                # What a merge ended is no branch any more, and may stand below it anywhere.
                branch[digest] = branch.get(digest, 0) + (not merged or i >= merged[-1])
        for digest, count in held.items():
            said = self.world.saids[digest]
            plain = said.prev is not None and said.kind != "merge"
            if branch[digest] >= self.world.k and plain:
                won = self.won.setdefault(str(said.prev), set())
                won.add(digest)
                if len(won) > 1:
                    raise DisagreementError("R8.2: two branches were effective")
            if count >= self.world.n - self.world.k + 1 and digest not in self.shut:
                self.shut[digest] = self.shuts(said)

    def shuts(self, said: Said) -> frozenset[int]:
        """Return the codes that a statement shuts out."""
        if said.kind == "retire":
            return frozenset({said.code})
        if said.kind == "promote" and said.earlier == "retire":
            return frozenset(cast.CODES) - {said.code}
        return frozenset(cast.CODES) if said.kind == "delete" else frozenset()

    def _shut_out(self, released: dict[int, int]) -> None:
        """I12: what was retired at n-k+1 vaults has no k, until a promote brings it back."""
        for digest, codes in self.shut.items():
            for code in codes:
                if released[code] >= self.world.k and not self._back(digest, code):
                    raise DisagreementError(f"I12: retired code {code} has k vaults again")

    def _back(self, digest: str, code: int) -> bool:
        for chain in self.chains:
            after = chain[chain.index(digest) + 1 :] if digest in chain else ()
            for said in map(self.world.saids.__getitem__, after):
                if code in said.lets_in or (said.kind == "promote" and said.code == code):
                    return True
        return False
