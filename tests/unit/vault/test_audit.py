"""What a vault shows of its log to those who check it (spec/07, section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from placet_testing.charters import profile, vault_key, vault_name
from placet_testing.constellations import Story, begin

from placet.core.checkpoint import open_note
from placet.core.dsse import open_signed
from placet.core.encoding import decode, unb64
from placet.core.limits import MAX_LOG_HASHES
from placet.core.logentry import Draft, LogEntry, entry_hash, leaf_data
from placet.core.merkle import Frontier, leaf_hash, verify_inclusion
from placet.core.messages import AuditAnswer, Trail
from placet.errors import KeyNotBornError, NotFoundError
from placet.vault import service

V1, V2 = profile(1), profile(2)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Yield a key that was released twice."""
    made = begin(tmp_path)
    made.gather(V1)
    made.promote(V2)
    made.gather(V2)
    yield made
    made.close()


def checked(answer: AuditAnswer, key: str) -> tuple[Trail, list[LogEntry]]:
    """Return what an answer shows, once every part of it was checked."""
    name, public = vault_name(1), vault_key(1).public_key().public_bytes_raw()
    tree = open_note(answer.checkpoint, "placet/" + name[7:], public)
    trail = open_signed(answer.trail, Trail, vault=name)
    assert (trail.vault, trail.key, trail.size) == (name, key, tree.size)
    entries = []
    for item in answer.entries:
        hashed = entry_hash(unb64(item.salt), unb64(item.entry))
        proof = [unb64(p) for p in item.proof]
        verify_inclusion(leaf_hash(leaf_data(hashed)), item.index, tree.size, proof, tree.root)
        entries.append(decode(unb64(item.entry), LogEntry))
        last = hashed
    if answer.next is None and entries:
        assert trail.last == last
    return trail, entries


@pytest.mark.req("I11")
def test_every_entry_comes_with_its_proof_and_the_end_is_signed(story: Story) -> None:
    """Of each entry of the key, in the tree of the checkpoint that comes with it."""
    answer = story.benches[0].vault.audit(story.key, 0, 0)
    trail, entries = checked(answer, story.key)
    assert [e.key_seq for e in entries] == list(range(trail.count))
    assert [e.kind for e in entries].count("release") == 2


def test_a_trail_is_shown_as_it_was_at_every_earlier_size(story: Story) -> None:
    """Pages that were asked for while the log grew fit one tree."""
    vault, log = story.benches[0].vault, story.benches[0].log
    whole = checked(vault.audit(story.key, 0, 0), story.key)[1]
    for size in range(1, log.head()[0] + 1):
        trail, entries = checked(vault.audit(story.key, 0, size), story.key)
        assert entries == [e for e in whole if e.index < size]
        assert trail.count == len(entries)


def test_pages_fit_into_an_answer(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends before it is too long, and says where to go on."""
    monkeypatch.setattr(service, "AUDIT_PAGE", 2 * (service.PROOF_ROOM + 1200))
    vault, found, since = story.benches[0].vault, list[LogEntry](), 0
    while True:
        answer = vault.audit(story.key, since, 0)
        found += checked(answer, story.key)[1]
        assert 0 < len(answer.entries) <= 3
        if answer.next is None:
            break
        since = answer.next
    assert found == checked(vault_page(story), story.key)[1]


def vault_page(story: Story) -> AuditAnswer:
    """Return the whole trail in one page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "AUDIT_PAGE", 2**20)
        return story.benches[0].vault.audit(story.key, 0, 0)


def test_nothing_is_shown_of_a_log_that_never_was(story: Story) -> None:
    """Neither of a later size, nor of a key that is not known here; behind the end is nothing."""
    vault = story.benches[0].vault
    with pytest.raises(NotFoundError):
        vault.audit(story.key, 0, 10**6)
    with pytest.raises(KeyNotBornError):
        vault.audit("sha256:" + "0" * 64, 0, 0)
    beyond = vault.audit(story.key, 10**6, 0)
    assert (beyond.entries, beyond.next) == ((), None)


def test_all_hashes_give_the_root_and_own_entries_are_among_them(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fetches them all computes the tree again."""
    assert MAX_LOG_HASHES == 4096
    monkeypatch.setattr(service, "MAX_LOG_HASHES", 3)
    vault, hashes = story.benches[0].vault, list[str]()
    while len(page := vault.hashes(len(hashes)).hashes) == 3:
        hashes += page
    hashes += page
    tree = Frontier()
    for one in hashes:
        tree = tree.append(leaf_hash(leaf_data(one)))
    assert (tree.size, tree.root()) == story.benches[0].log.head()
    for item in vault_page(story).entries:
        assert hashes[item.index] == entry_hash(unb64(item.salt), unb64(item.entry))
    assert vault.hashes(10**6).hashes == ()


def test_the_journal_shows_the_vaults_own_entries_alone(story: Story) -> None:
    """Of keys it shows hashes: a collector learns nothing of whom it does not know."""
    bench = story.benches[0]
    bench.log.commit(Draft(kind="boot"), now=story.clock.time)
    items = bench.vault.journal(0).items
    assert [i.index for i in items] == list(range(len(items)))
    shown = [i for i in items if i.entry is not None]
    assert [decode(unb64(i.entry or ""), LogEntry).kind for i in shown] == ["boot"]
    assert [entry_hash(unb64(i.salt or ""), unb64(i.entry or "")) for i in shown] == [
        i.hash for i in shown
    ]
    assert tuple(i.hash for i in items) == bench.vault.hashes(0).hashes
    assert bench.vault.journal(len(items)).items == ()
