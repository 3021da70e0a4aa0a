"""Real vaults on a bad network: whatever they took and let go, the auditor accepts (R7.1).

Statements reach vaults late, out of order, with and without receipts; two devices of the
owner sign at once; couriers bring one vault's charter to another, so that branches are left.
"""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import composer, profile, signed
from placet_testing.constellations import Story, begin
from placet_testing.exports import OF_OWNERS, audited, export, same_policy

from placet.client.signing import merge_body, promote_body
from placet.core.messages import CourierItem, TakeRequest
from placet.core.profile import code_id
from placet.core.statement import UntrustedStatement
from placet.errors import PlacetError
from placet.policy.key_policy import KeyPolicy

STEPS = 60


class Weather:
    """One seed: who signs what on which head, and what arrives where."""

    def __init__(self, story: Story, seed: int) -> None:
        self.story, self.random = story, random.Random(seed)
        self.known: dict[str, CourierItem] = {}
        self.changed = 0

    def policy(self, at: int) -> KeyPolicy:
        """Return the policy in force at one vault."""
        return self.story.benches[at].vault._keys.get(self.story.key).policy

    def step(self) -> None:
        """Do one thing."""
        what = self.random.choices(("sign", "carry", "gather", "time"), (4, 4, 3, 2))[0]
        getattr(self, what)()

    def sign(self) -> None:
        """Sign on the head that one vault shows, and send it to some of them."""
        at = self.random.randrange(5)
        sent = self.compose(self.policy(at))
        run = (CourierItem(signed=sent.signed(), receipts=()),)
        for to in self.random.sample(range(5), self.random.randint(1, 5)):
            self.bring(run, to)

    def compose(self, policy: KeyPolicy) -> UntrustedStatement:
        """Return a promote, a retire or a void."""
        pen = composer(self.story.clock.time, seed=str(self.random.random()))
        what = profile(1 + self.random.randrange(4))
        approved = {a.code for a in policy.approvals}
        if self.random.random() < 0.3 and len(approved) > 1:
            return signed(pen.retire(policy, min(approved), "x"))
        if self.random.random() < 0.2:
            return signed(pen.void(policy, policy.head, "x"))
        body = promote_body(policy, what, unretire=code_id(what) in policy.tombstones)
        if self.random.random() < 0.3:
            end = self.story.clock.time + 1800
            body = msgspec.structs.replace(body, earlier="retire-at", retire_at=end)
        return signed(pen.promote(policy, body))

    def carry(self) -> None:
        """Bring one vault's charter to another, receipts of all who hold each included."""
        source, to = self.random.sample(range(5), 2)
        charters = [b.vault.charter(self.story.key).charter for b in self.story.benches]
        held: dict[str, tuple[object, ...]] = {}
        for charter in charters:
            for item in charter:
                mine = held.get(item.signed.payload, ())
                held[item.signed.payload] = (*mine, item.receipts[0])
        run = tuple(
            msgspec.structs.replace(item, receipts=held[item.signed.payload])
            for item in charters[source]
        )
        before = self.policy(to).chain
        self.bring(run, to)
        self.changed += before != self.policy(to).chain[: len(before)]

    def gather(self) -> None:
        """Ask any vault for its share, as any version."""
        with suppress(PlacetError):
            self.story.release(self.random.randrange(5), profile(1 + self.random.randrange(4)))

    def time(self) -> None:
        """Let an hour or two weeks pass."""
        self.story.clock.time += self.random.choice((60, 3600, 40 * 86400))

    def bring(self, run: tuple[CourierItem, ...], to: int) -> None:
        """Bring statements to a vault; refusals change nothing."""
        with suppress(PlacetError):
            self.story.benches[to].vault.take(TakeRequest(chain=run))

    def merge(self) -> None:
        """End a fork, as an owner would."""
        heads = {self.policy(at).head: self.policy(at) for at in range(5)}
        if len(heads) > 1:
            branches = list(heads.values())
            with suppress(PlacetError, ValueError, KeyError):
                sent = signed(
                    composer(self.story.clock.time).merge(branches, merge_body(branches, "one"))
                )
                for to in range(5):
                    self.bring((CourierItem(signed=sent.signed(), receipts=()),), to)


def run(folder: Path, seed: int) -> tuple[int, int, int]:
    """Run a seed; return how often a branch was left, statements taken and shares let go."""
    folder.mkdir()
    story = begin(folder)
    weather = Weather(story, seed)
    for number in range(STEPS):
        weather.step()
        if number % 25 == 24:
            weather.merge()
    export(story, folder / "out")
    result = audited(folder / "out")
    wrong = [f for f in result.findings if f.kind not in OF_OWNERS]
    assert wrong == [], (seed, wrong[:3])
    for bench, replay in zip(story.benches, result.replays.values(), strict=True):
        same_policy(replay, bench.vault._keys.get(story.key).policy)
    story.close()
    taken = sum(len(r.takings) for r in result.replays.values())
    let_go = sum(len(r.releases) for r in result.replays.values())
    return weather.changed, taken, let_go


@pytest.mark.req("R7.1", "I1")
@pytest.mark.parametrize(
    ("backend", "seeds"), [("sqlite", range(6)), ("postgresql", range(6, 8))], indirect=["backend"]
)
@pytest.mark.usefixtures("backend")
def test_whatever_real_vaults_did_is_accepted(tmp_path: Path, seeds: range) -> None:
    """Field by field the auditor's fold is the vault's; branches were left, and shares let go."""
    totals = [run(tmp_path / str(seed), seed) for seed in seeds]
    changed, taken, let_go = map(sum, zip(*totals, strict=True))
    assert changed > 0
    assert taken > 12 * len(seeds)
    assert let_go > 2 * len(seeds)
