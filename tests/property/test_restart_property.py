"""A vault that is started again shows what it showed before: the record is all there is of it.

One real vault of five (k = 3) takes random runs of statements: in order, late, again, on other
branches, with receipts of the others and with its own of before its disk was put back.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from placet_testing.charters import NOW, composer, profile, signed, vault_key, vault_name
from placet_testing.clients import memory_folder
from placet_testing.governed import DAY, governed_body, some
from placet_testing.vaults import Bench, TestClock, open_bench

from placet.client.signing import promote_body
from placet.core.body import StageBody
from placet.core.dsse import Signed, sign_record
from placet.core.messages import CourierItem, StageRequest, Taken, TakeRequest
from placet.core.profile import code_id
from placet.core.statement import UntrustedStatement
from placet.errors import PlacetError
from placet.policy.charter import replay
from placet.policy.key_policy import KeyPolicy
from placet.policy.receipts import receipt_of

OWNERS = ("owner", "spare", "third")
SIGNING = (("owner",), ("owner",), ("spare",), ("third",), ("owner", "m1", "m2"))
SAID = ("promote", "promote", "promote", "retire", "owner", "recover", "complete", "void")

Path_ = tuple[UntrustedStatement, ...]


@dataclass
class House:
    """One vault, and whatever anybody signed about its key."""

    folder: Path
    clock: TestClock = field(default_factory=TestClock)
    boots: int = 1
    bench: Bench = field(init=False)
    paths: list[Path_] = field(default_factory=list)
    """Each statement after those that it stands on."""
    stages: list[str] = field(default_factory=list)
    own: dict[str, Signed] = field(default_factory=dict)
    """What the vault itself signed first, by statement: others have it, whatever its disk has."""

    def __post_init__(self) -> None:
        """Have the key born."""
        self.bench = open_bench(self.folder, clock=self.clock)
        self.paths.append((signed(composer(NOW).birth(governed_body())),))
        self.bring(self.paths[0], vouched=0)

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.paths[0][0].digest

    @property
    def kept(self) -> Path:
        """Return where a copy of its disk is, if one is."""
        return self.folder.with_name("kept")

    def view(self) -> list[object]:
        """Return everything that it shows and decides by."""
        vault = self.bench.vault
        return [
            vault.charter(self.key),
            vault.pending(self.key),
            vault.pending("notes"),
            vault.dropped(self.key),
            vault.log(self.key, 0).entries,
            vault._keys.get(self.key),
        ]

    def restart(self, *copied: Path) -> None:
        """Start it again; before that, have all of one folder replaced by what is in another."""
        self.bench.store.close()
        if copied:
            source, target = copied
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        self.boots += 1
        self.bench = open_bench(self.folder, clock=self.clock, boots=self.boots)

    def bring(self, path: Path_, *, vouched: int, start: int = 0) -> None:
        """Bring it the end of a path, with receipts of so many of the vaults that took it."""
        chain = []
        for version, sent in enumerate(path, 1):
            mine = [self.own[sent.digest]] if sent.digest in self.own else []
            others = [_receipt(n, sent, version) for n in (2, 3, 4, 5)]
            receipts = tuple([*mine, *others][:vouched])
            chain.append(CourierItem(signed=sent.signed(), receipts=receipts))
        try:
            answer = self.bench.vault.take(TakeRequest(chain=tuple(chain[start:])))
        except PlacetError:
            return
        for item in answer.taken:
            self.own.setdefault(receipt_of(item).statement, item)


def _receipt(number: int, sent: UntrustedStatement, version: int) -> Signed:
    taken = Taken(
        vault=vault_name(number),
        key=sent.key,
        statement=sent.digest,
        version=version,
        index=version,
        time=sent.statement.issued_at + number * 60,
    )
    return sign_record(taken, vault_key(number))


def _composed(
    house: House, policy: KeyPolicy, act: str, number: int, by: tuple[str, ...]
) -> UntrustedStatement:
    write = composer(house.clock.time, f"said {len(house.paths)}")
    if act == "promote":
        sent = write.promote(policy, promote_body(policy, profile(number)))
    elif act == "retire":
        sent = write.retire(policy, code_id(profile(number)), "old")
    elif act == "owner":
        owner = some("owner", 1, *OWNERS[: number % 3 + 1])
        sent = write.update(policy, structs.replace(policy.rules, owner=owner), "more")
    elif act == "recover":
        sent, by = write.recover(policy, some("owner", 1, "third"), "lost"), ("g1", "g2")
    elif act == "complete":
        intent = policy.recovery.intent if policy.recovery else policy.head
        sent, by = write.complete(policy, intent, "lost"), ("g1", "g2")
    else:
        sent = write.void(policy, policy.head, "no")
    return signed(sent, *by)


def say(house: House, rng: Random) -> None:
    """Have somebody sign something, on the newest or elsewhere, and bring it now or later."""
    path = rng.choice([house.paths[-1]] * 2 + house.paths)
    act, number = rng.choice(SAID), rng.randint(1, 4)
    by = rng.choice(SIGNING)
    try:
        sent = _composed(house, replay(path), act, number, by)
    except PlacetError:
        return  # Nobody would sign that.
    house.paths.append((*path, sent))
    if rng.random() < 0.5:
        _bring(house, rng, house.paths[-1])


def again(house: House, rng: Random) -> None:
    """Bring what there is, maybe late."""
    _bring(house, rng, rng.choice(house.paths))


def _bring(house: House, rng: Random, path: Path_) -> None:
    start = rng.choice((0, 0, len(path) - 1))
    house.bring(path, start=start, vouched=rng.choice((0, 0, 2, 3, 5)))


def stage(house: House, rng: Random) -> None:
    """Put a version forward, or take one back."""
    number = len(house.stages) + 1
    write = composer(house.clock.time, f"staged {number}")
    if house.stages and rng.random() < 0.5:
        sent = write.revoke(house.key, rng.choice(house.stages), "no")
    else:
        body = StageBody(
            profile=profile(number), version="new", source="s", provenance=None, review=None
        )
        sent = write.stage(house.key if rng.random() < 0.5 else None, body)
        house.stages.append(sent.digest)
    who = signed(sent, rng.choice(("platform", "owner")))
    try:
        house.bench.vault.stage(StageRequest(signed=who.signed()))
    except PlacetError:
        return


def wait(house: House, rng: Random) -> None:
    """Let time pass."""
    house.clock.time += rng.choice((60, DAY, 4 * DAY, 8 * DAY))


def keep(house: House, _: object) -> None:
    """Keep the disk as it is."""
    house.restart(house.folder, house.kept)


def put_back(house: House, _: object) -> None:
    """Put the kept disk back."""
    if house.kept.exists():
        house.restart(house.kept, house.folder)


ACTS = (say, say, say, say, again, again, stage, wait, keep, put_back)


@pytest.mark.req("I14")
@settings(max_examples=25)
@given(st.randoms(use_true_random=True), st.integers(10, 25))
def test_a_vault_that_starts_again_shows_what_it_showed(rng: Random, count: int) -> None:
    """Charter, receipts in their order, what waits, forks, what is staged, log and policy."""
    with memory_folder() as folder:
        (folder / "disk").mkdir()
        house = House(folder / "disk")
        try:
            for _ in range(count):
                rng.choice(ACTS)(house, rng)
                before = house.view()
                house.restart()
                assert house.view() == before
        finally:
            house.bench.store.close()


@pytest.mark.req("I14")
@pytest.mark.parametrize("others", [2, 3])
def test_its_own_receipt_of_before_its_disk_was_put_back_counts_for_nothing(others: int) -> None:
    """Its record will not have it: what k others say, it says after a restart as well."""
    with memory_folder() as folder:
        (folder / "disk").mkdir()
        house = House(folder / "disk")
        try:
            [birth] = house.paths
            keep(house, None)
            path = (*birth, _composed(house, replay(birth), "recover", 1, ()))
            house.bring(path, vouched=0)
            put_back(house, None)
            house.clock.time += DAY // 2
            house.bring(path, start=1, vouched=1 + others)
            before = house.view()
            recovery = house.bench.vault._keys.get(house.key).policy.recovery
            assert recovery is not None
            since = house.clock.time if others < 3 else NOW + 4 * 60
            assert recovery.since == since
            house.restart()
            assert house.view() == before
        finally:
            house.bench.store.close()
