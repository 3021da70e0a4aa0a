"""Vaults against what the app saw of them: one that lies, is silent, or was put back (spec/08, 5).

Three of five answer, k = 3, and vault 1 is the one that something is wrong with: so the app
starts only if it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace
from placet_testing.charters import identity, profile, seeded, vault_key, vault_name
from placet_testing.clients import Link, constellation_of, memory_folder
from placet_testing.constellations import Story, begin

from placet.agent.comparing import Compared, Comparing, Shown
from placet.agent.memory import STATUS_LIMIT, Memory, Seen, SeenLog, open_memory, write_memory
from placet.client.heads import Proof
from placet.core.continuity import ConsistencyAnswer, ForkProof, check_fork_proof, checkpoint_at
from placet.core.dsse import Signed, open_signed, sign_record
from placet.core.encoding import b64, decode, encode
from placet.core.messages import ReleaseAnswer, Released, Status, StatusBody
from placet.errors import QuorumError, RolledBackError, UnavailableError

LIAR = vault_name(1)
LINE = "00000000000000ff"


@dataclass
class House:
    """A key's vaults, of which three answer, and an app that starts."""

    story: Story
    links: list[Link]
    proofs: list[Proof] = field(default_factory=list)

    def start(self, memory: Memory) -> Compared:
        """Gather and compare."""

        async def started() -> Compared:
            key = self.story.key
            who = identity(profile(1), (key,))
            vaults = constellation_of(self.links, self.story.policy.vault_set, who, (key,))
            gathered = await vaults.gather(key)
            shown = {
                vault: Shown.of(one.version, one.head, one.receipt)
                for vault, one in gathered.released.items()
            }
            comparing = Comparing(
                memory=memory, vaults=vaults, rng=seeded("starts"), keep=self.proofs.append
            )
            return await comparing.compare(shown)

        return asyncio.run(started())

    def remembered(self) -> Memory:
        """Start once, with no memory, and remember what was seen."""
        compared = self.start(Memory(key=self.story.key))
        assert (set(compared.seen), compared.behind) == (set(map(vault_name, (1, 2, 3))), ())
        return Memory(key=self.story.key).with_seen(compared.seen, k=3)


@pytest.fixture
def house() -> Iterator[House]:
    """Five vaults, two of which are down."""
    with memory_folder() as folder:
        story = begin(folder)
        links = [Link(bench) for bench in story.benches]
        links[3].down = links[4].down = True
        yield House(story, links)
        story.close()


def status_of(
    change: Callable[[StatusBody], StatusBody],
) -> Callable[[str, bytes], bytes]:
    """Return the lie: a status that the vault signs and that is not so."""

    def tamper(path: str, answer: bytes) -> bytes:
        if not path.startswith("/v1/status"):
            return answer
        status = decode(answer, Status)
        body = change(open_signed(status.status, StatusBody, vault=LIAR))
        return encode(replace(status, status=sign_record(body, vault_key(1))))

    return tamper


def of_line(line: str) -> Callable[[str, bytes], bytes]:
    """Return the lie, or the truth, that another process of the vault answers."""

    def head(body: StatusBody) -> StatusBody:
        size = int(body.checkpoint.split("\n")[1])
        note = checkpoint_at(vault_key(1), body.boot, size, bytes(32), line)
        return replace(body, checkpoint=note)

    def tamper(path: str, answer: bytes) -> bytes:
        if path.endswith("/release"):
            said = decode(answer, ReleaseAnswer)
            receipt = replace(open_signed(said.receipt, Released, vault=LIAR), line=line)
            return encode(replace(said, receipt=sign_record(receipt, vault_key(1))))
        return status_of(head)(path, answer)

    return tamper


def short(body: StatusBody) -> StatusBody:
    """Return a status of a log of one entry."""
    return replace(body, checkpoint=checkpoint_at(vault_key(1), body.boot, 1, bytes(32)))


def forged(body: StatusBody) -> StatusBody:
    """Return a status of another root."""
    size = int(body.checkpoint.split("\n")[1])
    return replace(body, checkpoint=checkpoint_at(vault_key(1), body.boot, size, bytes(32)))


def unproven(path: str, answer: bytes) -> bytes:
    """Return a consistency answer whose proof does not hold."""
    if not path.startswith("/v1/log/consistency"):
        return answer
    shown = decode(answer, ConsistencyAnswer)
    return encode(replace(shown, proof=(b64(bytes(32)), *shown.proof[1:])))


def test_a_log_that_grew_is_as_far(house: House) -> None:
    """Start after start; each vault is asked for one proof, and nothing is asked twice."""
    memory = house.remembered()
    house.links[0].sent.clear()
    for _ in range(2):
        compared = house.start(memory)
        assert (len(compared.seen), compared.behind, house.proofs) == (3, (), [])
        memory = memory.with_seen(compared.seen, k=3)
    asked = [path.partition("?")[0].rsplit("/", 1)[-1] for _, path, _ in house.links[0].sent]
    assert asked == ["release", "status", "consistency"] * 2


BEHIND = {
    "a log that ends before its release": status_of(short),
    "another root": status_of(forged),
    "no proof": unproven,
}


@pytest.mark.req("R2.4")
@pytest.mark.parametrize("lie", BEHIND.values(), ids=BEHIND.keys())
def test_who_does_not_show_that_its_log_grew_is_behind(
    house: House, lie: Callable[[str, bytes], bytes]
) -> None:
    """It is named; with a fourth vault the app starts, and what was remembered of it stays."""
    memory = house.remembered()
    house.links[0].tamper = lie
    with pytest.raises(RolledBackError) as refused:
        house.start(memory)
    assert refused.value.members["behind"] == [LIAR]
    house.links[3].down = False
    house.links[4].down = False
    compared = house.start(memory)
    assert len(compared.seen) >= 3
    assert LIAR not in compared.seen
    new = memory.with_seen(compared.seen, k=3)
    assert [x for x in new.logs if x.vault == LIAR] == [x for x in memory.logs if x.vault == LIAR]


def test_a_log_that_ends_before_its_own_release_is_none(house: House) -> None:
    """Even if nothing is remembered: the vault said that the release is in its log."""
    house.links[0].tamper = status_of(short)
    with pytest.raises(RolledBackError) as refused:
        house.start(Memory(key=house.story.key))
    assert refused.value.members["behind"] == [LIAR]


@pytest.mark.req("R2.1")
def test_vaults_that_were_never_seen_must_know_the_head(house: House) -> None:
    """Others showed it: that their own logs are not remembered makes them no newer."""
    head = "sha256:" + "00" * 32
    with pytest.raises(RolledBackError) as refused:
        house.start(Memory(key=house.story.key, version=9, head=head))
    assert refused.value.members["behind"] == list(map(vault_name, (1, 2, 3)))
    assert (refused.value.members["version"], refused.value.members["head"]) == (9, head)


def test_who_was_seen_to_be_behind_is_named_though_silent_later(house: House) -> None:
    """It shows no proof, and then nothing: the others are k without it."""
    memory = house.remembered()
    released = list[str]()

    def once(path: str) -> None:
        if path.endswith("/release"):
            released.append(path)
            if len(released) > 1:
                raise UnavailableError("no answer")

    house.links[0].tamper, house.links[0].before = unproven, once
    # A fourth vault, which is not among those that released first.
    house.links[3].down, house.links[3].lose_request = False, 1
    compared = house.start(memory)
    assert set(compared.seen) == set(map(vault_name, (2, 3, 4)))
    assert (compared.behind, len(released) > 1) == ((LIAR,), True)


@pytest.mark.req("R2.4")
def test_another_root_of_one_size_is_kept_as_a_proof(house: House) -> None:
    """Whatever the app remembered of it: the vault signed both."""
    memory = house.remembered()

    def other(path: str, answer: bytes) -> bytes:
        if not path.startswith("/v1/log/consistency"):
            return answer
        shown = decode(answer, ConsistencyAnswer)
        size = int(shown.before.split("\n")[1])
        return encode(replace(shown, before=checkpoint_at(vault_key(1), "b", size, bytes(32))))

    house.links[0].tamper = other
    with pytest.raises(RolledBackError):
        house.start(memory)
    proof = house.proofs[0]
    assert isinstance(proof, ForkProof)
    check_fork_proof(proof)


def silent(path: str) -> None:
    """Do not answer for a status."""
    if path.startswith("/v1/status"):
        raise UnavailableError("no answer")


def unheard(path: str) -> None:
    """Do not answer for a proof."""
    if path.startswith("/v1/log/consistency"):
        raise UnavailableError("no answer")


@pytest.mark.parametrize("fault", [silent, unheard])
def test_who_shows_nothing_at_the_moment_does_not_count(
    house: House, fault: Callable[[str], None]
) -> None:
    """It is not called behind: nobody knows. The app may try again, and does with `--wait`."""
    memory = house.remembered()
    house.links[0].before = fault
    with pytest.raises(QuorumError) as refused:
        house.start(memory)
    assert refused.value.members["answered"] == 2
    house.links[0].before = None
    assert len(house.start(memory).seen) == 3


def test_a_status_that_is_too_long_is_not_remembered(house: House) -> None:
    """So no vault makes the memory too long to be read again."""
    house.links[0].tamper = status_of(lambda body: replace(body, schemas=tuple(range(1000))))
    with pytest.raises(QuorumError) as refused:
        house.start(Memory(key=house.story.key))
    assert "4096 bytes" in refused.value.detail + str(refused.value.members["vaults"])


def test_an_older_process_of_a_vault_never_gets_a_key_back(house: House) -> None:
    """A newer one has a log of its own, and counts; once it was seen, the older one is behind."""
    memory = house.remembered()
    house.links[0].tamper = of_line(LINE)
    compared = house.start(memory)
    assert compared.seen[LIAR].log.line == LINE
    newer = memory.with_seen(compared.seen, k=3)
    assert [log.line for log in newer.logs if log.vault == LIAR][-1] == LINE
    house.links[0].tamper = None
    with pytest.raises(RolledBackError) as refused:
        house.start(newer)
    assert refused.value.members["behind"] == [LIAR]
    assert len(house.start(memory).seen) == 3


def test_a_process_that_did_not_release_does_not_count(house: House) -> None:
    """The key was handed over between the release and the look."""

    def lie(path: str, answer: bytes) -> bytes:
        return answer if path.endswith("/release") else of_line(LINE)(path, answer)

    house.links[0].tamper = lie
    with pytest.raises(QuorumError):
        house.start(Memory(key=house.story.key))


def test_a_full_memory_forgets_what_was_seen_longest_ago(tmp_path: Path) -> None:
    """And can be read, however long the statuses are that vaults may show."""
    status = Signed(payload="A" * 3900, vault_key="A" * 43, signature="A" * 86)
    assert len(encode(status)) <= STATUS_LIMIT
    logs = {
        str(n): Seen(version=1, head=LIAR, log=SeenLog(vault=vault_name(n), status=status))
        for n in range(70)
    }
    memory = Memory(key=LIAR)
    for vault, seen in logs.items():
        memory = memory.with_seen({vault: seen}, k=3)
    assert [log.vault for log in memory.logs] == [vault_name(n) for n in range(6, 70)]
    # One that is seen again moves to the end.
    again = memory.with_seen({"6": logs["6"]}, k=3)
    assert [log.vault for log in again.logs][-1] == vault_name(6)
    assert len(again.logs) == 64
    write_memory(tmp_path, again, bytes(32))
    assert open_memory(tmp_path, LIAR, bytes(32), expected=True).logs == again.logs
