"""The vault's side of creating a key: every way to do it twice, early, late or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from placet_testing.charters import NOW, identity, profile, vault_key, vault_name
from placet_testing.constellations import SECRET, Story, begin
from placet_testing.vaults import peer

from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, unb64
from placet.core.manifest import KeyManifest, manifest_digest
from placet.core.messages import (
    CommitRequest,
    Held,
    HoldRequest,
    PromiseRequest,
    RecoverRequest,
)
from placet.errors import (
    ApprovalExpiredError,
    BindingError,
    ConflictError,
    KeyCheckError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    PolicyDeniedError,
    ShareMissingError,
    SupersededError,
    VerificationError,
)

V1 = profile(1)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Five vaults at which a key was born, and nothing created."""
    begun = begin(tmp_path, created=False)
    yield begun
    begun.close()


@dataclass
class Try:
    """One workload's attempt, step by step."""

    story: Story
    attempt: int = 1
    who: Any = None
    dealt: Any = None
    held: list[Signed] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Deal a key."""
        self.who = self.who or self.story.creator()
        self.dealt = self.dealt or self.story.dealing(self.attempt)

    def promise(self, *at: int) -> list[Any]:
        """Promise at these vaults."""
        request = PromiseRequest(attempt=self.attempt)
        return [self._vault(i).promise(self.who, self.story.key, request) for i in at]

    def hold(self, *at: int, finishing: tuple[Signed, ...] = (), **changes: Any) -> None:
        """Hold at these vaults."""
        ids = self.story.policy.vault_set.ids
        for i in at:
            request = HoldRequest(
                attempt=self.attempt,
                manifest=changes.get("manifest", self.dealt.manifest),
                share=b64(changes.get("share", self.dealt.shares[ids[i]])),
                finishing=finishing,
            )
            self.held.append(self._vault(i).hold(self.who, self.story.key, request).held)

    def commit(self, *at: int, held: tuple[Signed, ...] | None = None) -> list[Any]:
        """Commit at these vaults."""
        request = CommitRequest(
            attempt=self.attempt,
            manifest=manifest_digest(self.dealt.manifest),
            held=tuple(self.held) if held is None else held,
        )
        return [self._vault(i).commit(self.who, self.story.key, request) for i in at]

    def _vault(self, at: int) -> Any:
        return self.story.benches[at].vault


ALL = range(5)


def test_a_key_is_created_once_and_read_back(story: Story) -> None:
    """Promise, hold, commit at all; then any three give it."""
    story.create()
    assert story.gather(V1) == SECRET
    story.restart(0)
    assert story.gather(V1, (0, 3, 4)) == SECRET


@pytest.mark.req("R4.8")
def test_the_loser_of_a_race_commits_nothing(story: Story) -> None:
    """Two instances at once: after the newer promise the older one is refused everywhere."""
    first, second = Try(story, 1), Try(story, 2)
    first.promise(*ALL)
    first.hold(*ALL)
    second.promise(*ALL)
    for step in (lambda: first.commit(0), lambda: first.hold(0), lambda: first.promise(0)):
        with pytest.raises(SupersededError) as refused:
            step()
        assert refused.value.members["attempt"] == 2
    second.hold(*ALL)
    second.commit(*ALL)
    with pytest.raises(ConflictError):
        first.commit(0)
    assert story.gather(V1) == SECRET


@pytest.mark.req("R4.8")
@pytest.mark.req("I8")
@pytest.mark.parametrize("committed", range(1, 6))
def test_a_commit_anywhere_is_shown_and_finished(story: Story, committed: int) -> None:
    """The first workload dies after some commits; the next finds the very key and finishes it."""
    first = Try(story, 1)
    first.promise(*ALL)
    first.hold(*ALL)
    first.commit(*range(committed))
    second = Try(story, 2, dealt=first.dealt)
    shown = second.promise(*ALL)
    digest = manifest_digest(first.dealt.manifest)
    assert [a.committed is not None for a in shown] == [i < committed for i in ALL]
    shares = [
        unb64(
            story.benches[i]
            .vault.recover(second.who, story.key, RecoverRequest(manifest=digest))
            .share
        )
        for i in ALL
    ]
    assert shares == list(first.dealt.shares.values())
    # Weeks later too: what was begun under the birth statement may be finished.
    story.clock.time += 40 * 86400
    second.hold(*ALL, finishing=shown[0].certificate)
    second.commit(*ALL)
    assert story.gather(V1) == SECRET


@pytest.mark.req("I9")
def test_held_shares_are_no_key(story: Story) -> None:
    """Held everywhere and committed nowhere: no release gives anything."""
    first = Try(story)
    first.promise(*ALL)
    first.hold(*ALL)
    for i in ALL:
        with pytest.raises(ShareMissingError):
            story.release(i, V1)


def forged(story: Story, **changes: Any) -> tuple[Signed, ...]:
    """Return n `Held` of which the fifth says something else."""
    dealt = Try(story).dealt
    return tuple(
        sign_record(
            Held(
                **(
                    {
                        "vault": vault_name(i),
                        "key": story.key,
                        "attempt": 1,
                        "manifest": manifest_digest(dealt.manifest),
                        "index": 1,
                        "time": NOW,
                    }
                    | (changes if i == 5 else {})
                )
            ),
            vault_key(i),
        )
        for i in range(1, 6)
    )


def begun(story: Story) -> Try:
    """Return an attempt that was promised and held everywhere."""
    one = Try(story)
    one.promise(*ALL)
    one.hold(*ALL)
    return one


COMMITS: dict[str, tuple[type[PlacetError], Callable[[Story, Try], Any]]] = {
    "one vault's word is missing": (VerificationError, lambda _, t: t.commit(0, held=t.held[:4])),
    "one vault's word twice": (
        VerificationError, lambda _, t: t.commit(0, held=(*t.held[:4], t.held[0])),
    ),
    "in another order": (VerificationError, lambda _, t: t.commit(0, held=tuple(t.held[::-1]))),
    "nobody's word": (VerificationError, lambda _, t: t.commit(0, held=())),
    "held for another attempt": (
        VerificationError, lambda s, t: t.commit(0, held=forged(s, attempt=2)),
    ),
    "held for another key": (
        VerificationError, lambda s, t: t.commit(0, held=forged(s, key="sha256:" + "00" * 32)),
    ),
    "held of another manifest": (
        VerificationError,
        lambda s, t: t.commit(0, held=forged(s, manifest="sha256:" + "00" * 32)),
    ),
    "a word in another vault's name": (
        VerificationError, lambda s, t: t.commit(0, held=forged(s, vault=vault_name(1))),
    ),
}  # fmt: skip


@pytest.mark.req("I9")
@pytest.mark.parametrize(("expect", "step"), COMMITS.values(), ids=COMMITS.keys())
def test_a_commit_takes_the_word_of_all(
    story: Story, expect: type[PlacetError], step: Callable[[Story, Try], Any]
) -> None:
    """All n, each in its own name, for this attempt, key and manifest."""
    with pytest.raises(expect):
        step(story, begun(story))
    with pytest.raises(ShareMissingError):
        story.release(0, V1)


def edited(one: Try, **changes: Any) -> KeyManifest:
    """Return the attempt's manifest with other fields."""
    return msgspec.structs.replace(one.dealt.manifest, **changes)


HOLDS: dict[str, tuple[type[PlacetError], Callable[[Story, Try], Any]]] = {
    "before any promise": (SupersededError, lambda s, _: Try(s, 7).hold(0)),
    "the share of another vault": (
        KeyCheckError,
        lambda _, t: t.hold(0, share=t.dealt.shares[vault_name(2)]),
    ),
    "a share of no manifest": (KeyCheckError, lambda _, t: t.hold(0, share=bytes(32))),
    "a truncated share": (
        KeyCheckError, lambda _, t: t.hold(0, share=t.dealt.shares[vault_name(1)][:31]),
    ),
    "for another key": (
        PolicyDeniedError, lambda _, t: t.hold(0, manifest=edited(t, key="sha256:" + "00" * 32)),
    ),
    "with another threshold": (PolicyDeniedError, lambda _, t: t.hold(0, manifest=edited(t, k=4))),
    "with a threshold that two halves reach": (
        MalformedError, lambda _, t: t.hold(0, manifest=edited(t, k=2)),
    ),
    "to fewer vaults": (
        MalformedError,
        lambda _, t: t.hold(0, manifest=edited(t, shares=t.dealt.manifest.shares[:3])),
    ),
    "to the vaults in another order": (
        PolicyDeniedError,
        lambda _, t: t.hold(0, manifest=edited(t, shares=t.dealt.manifest.shares[::-1])),
    ),
    "with x out of order": (
        PolicyDeniedError,
        lambda _, t: t.hold(
            0,
            manifest=edited(
                t,
                shares=tuple(
                    msgspec.structs.replace(s, x=6 - s.x) for s in t.dealt.manifest.shares
                ),
            ),
        ),
    ),
    "of another generation": (
        PolicyDeniedError,
        lambda _, t: t.hold(0, manifest=edited(t, generation=2, prev="sha256:" + "00" * 32)),
    ),
    "of another length": (PolicyDeniedError, lambda _, t: t.hold(0, manifest=edited(t, length=16))),
    "dealt in a later attempt": (
        PolicyDeniedError, lambda _, t: t.hold(0, manifest=edited(t, attempt=9)),
    ),
}  # fmt: skip


@pytest.mark.req("I8")
@pytest.mark.parametrize(("expect", "step"), HOLDS.values(), ids=HOLDS.keys())
def test_a_share_is_held_only_as_the_owner_signed(
    story: Story, expect: type[PlacetError], step: Callable[[Story, Try], Any]
) -> None:
    """The vault set, its order, its threshold and this key: or it is refused."""
    one = Try(story)
    one.promise(*ALL)
    with pytest.raises(expect):
        step(story, one)


@pytest.mark.req("I8")
def test_creation_takes_approved_code_and_an_unexpired_birth(story: Story) -> None:
    """Other code, other purpose, after the birth statement's end: nothing is begun."""
    who = peer(identity(profile(2), (story.key,), purpose="create"), (story.key,), at=1000.0)
    with pytest.raises(NotApprovedError):
        Try(story, who=who).promise(0)
    released = peer(identity(V1, (story.key,)), (story.key,), at=1000.0)
    with pytest.raises(BindingError):
        Try(story, who=released).promise(0)
    late = Try(story)
    story.clock.time += 86400
    late.promise(*ALL)
    with pytest.raises(ApprovalExpiredError):
        late.hold(0)
    with pytest.raises(ApprovalExpiredError):
        late.hold(0, finishing=forged(story))


def test_a_commit_repeated_is_the_same(story: Story) -> None:
    """The same receipt, and no second log entry."""
    one = begun(story)
    first = one.commit(*ALL)
    assert one.commit(*ALL) == first
    assert Try(story, 2, dealt=one.dealt).promise(0)[0].committed == one.dealt.manifest


def test_what_is_committed_stays(story: Story) -> None:
    """A newer attempt can neither replace nor hold beside it."""
    begun(story).commit(*ALL)
    second = Try(story, 2)
    second.promise(*ALL)
    with pytest.raises(ConflictError):
        second.hold(0)
    with pytest.raises(ShareMissingError):
        story.benches[0].vault.recover(
            second.who, story.key, RecoverRequest(manifest="sha256:" + "00" * 32)
        )
    assert story.gather(V1) == SECRET
