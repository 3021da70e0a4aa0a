"""Five vault services in process, with a key born and created: where most stories start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from placet.client.signing import promote_body
from placet.core.body import BirthBody
from placet.core.dsse import Signed
from placet.core.encoding import b64, unb64
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitRequest,
    CourierItem,
    HoldRequest,
    PromiseRequest,
    ReleaseAnswer,
    ReleaseRequest,
    TakeAnswer,
    TakeRequest,
)
from placet.core.profile import Profile, code_id
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay
from placet.policy.key_policy import KeyPolicy
from placet.sharing.key import Answer, Dealing, combine, deal
from placet_testing.charters import NOW, birth_body, composer, identity, profile, signed
from placet_testing.vaults import Bench, TestClock, open_bench, peer

SECRET = b"the 32 bytes of a data key here!"
NONCE = b64(b"n" * 32)


def run_of(*sents: UntrustedStatement, receipts: tuple[Signed, ...] = ()) -> TakeRequest:
    """Return statements as a request."""
    return TakeRequest(
        chain=tuple(CourierItem(signed=s.signed(), receipts=receipts) for s in sents)
    )


@dataclass
class Story:
    """A key, its vaults, and its statements so far."""

    folder: Path
    clock: TestClock
    benches: list[Bench]
    statements: list[UntrustedStatement]

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    @property
    def policy(self) -> KeyPolicy:
        """Return the policy after all statements."""
        return replay(self.statements)

    def take(self, sent: UntrustedStatement, only: Sequence[int] | None = None) -> list[TakeAnswer]:
        """Bring a statement to vaults (counted from 0), and remember it."""
        at = range(len(self.benches)) if only is None else only
        answers = [self.benches[i].vault.take(run_of(sent)) for i in at]
        if sent not in self.statements:
            self.statements.append(sent)
        return answers

    def promote(self, what: Profile, only: Sequence[int] | None = None) -> UntrustedStatement:
        """Have the owner promote a profile."""
        body = promote_body(self.policy, what)
        sent = signed(composer(self.clock.time).promote(self.policy, body))
        self.take(sent, only)
        return sent

    def retire(self, what: Profile, only: Sequence[int] | None = None) -> UntrustedStatement:
        """Have the owner retire a profile."""
        sent = signed(composer(self.clock.time).retire(self.policy, code_id(what), "old"))
        self.take(sent, only)
        return sent

    def release(self, at: int, what: Profile, **changes: object) -> ReleaseAnswer:
        """Ask one vault for its share as code of this profile."""
        who = peer(identity(what, (self.key,)), (self.key,), at=self.clock.ticks)
        request = ReleaseRequest(**({"nonce": NONCE, "head": None} | changes))  # type: ignore[arg-type]
        return self.benches[at].vault.release(who, self.key, request)

    def gather(self, what: Profile, at: Sequence[int] = (0, 1, 2)) -> bytes:
        """Recover the key from some vaults as code of this profile."""
        ids = self.policy.vault_set.ids
        answers = []
        for i in at:
            said = self.release(i, what)
            answers.append(Answer(vault=ids[i], manifest=said.manifest, share=unb64(said.share)))
        return bytes(combine(answers, k=self.policy.vault_set.k, key=self.key).key)

    def dealing(self, attempt: int = 1) -> Dealing:
        """Deal the test's data key to the vault set."""
        vault_set = self.policy.vault_set
        return deal(
            SECRET,
            key=self.key,
            generation=1,
            attempt=attempt,
            k=vault_set.k,
            vaults=vault_set.ids,
            prev=None,
            rng=os.urandom,
        )

    def creator(self, what: Profile | None = None) -> object:
        """Return a workload that attested to create."""
        who = identity(what or profile(1), (self.key,), purpose="create")
        return peer(who, (self.key,), at=self.clock.ticks)

    def create(self, attempt: int = 1) -> Dealing:
        """Run the creation protocol to its end."""
        dealt, who = self.dealing(attempt), self.creator()
        ids = self.policy.vault_set.ids
        for bench in self.benches:
            bench.vault.promise(who, self.key, PromiseRequest(attempt=attempt))  # type: ignore[arg-type]
        held = tuple(
            bench.vault.hold(
                who,  # type: ignore[arg-type]
                self.key,
                HoldRequest(
                    attempt=attempt,
                    manifest=dealt.manifest,
                    share=b64(dealt.shares[vault]),
                    finishing=(),
                ),
            ).held
            for bench, vault in zip(self.benches, ids, strict=True)
        )
        request = CommitRequest(
            attempt=attempt, manifest=manifest_digest(dealt.manifest), held=held
        )
        for bench in self.benches:
            bench.vault.commit(who, self.key, request)  # type: ignore[arg-type]
        return dealt

    def restart(self, at: int) -> None:
        """Close one vault and open it again from its store."""
        self.benches[at].store.close()
        self.benches[at] = open_bench(self.folder, at + 1, clock=self.clock, boots=2)

    def close(self) -> None:
        """Close all stores."""
        for bench in self.benches:
            bench.store.close()


def begin(
    folder: Path,
    body: BirthBody | None = None,
    *,
    created: bool = True,
    names: tuple[str, ...] = ("owner",),
) -> Story:
    """Open five vaults, have the key born at all of them and, usually, created."""
    clock = TestClock(time=NOW)
    benches = [open_bench(folder, i, clock=clock) for i in range(1, 6)]
    birth = signed(composer().birth(body or birth_body()), *names)
    story = Story(folder=folder, clock=clock, benches=benches, statements=[birth])
    story.take(birth)
    if created:
        story.create()
    return story
