"""A hand-over that is cut at any step, on either side, by a crash or by a second process (I16)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from placet_testing import backends
from placet_testing.charters import composer, person, signed, vault_key
from placet_testing.charters import profile as app_profile
from placet_testing.handing import Process
from placet_testing.leaving import LINE, Leaving, profile

from placet.client.clock import HostClock
from placet.core.body import StageBody
from placet.core.continuity import Seen
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, decode, encode
from placet.core.handover import HandOverConfirm, HandOverConfirmed, HandOverRequest
from placet.core.messages import StageRequest
from placet.core.profile import code_id
from placet.errors import (
    BindingError,
    ConflictError,
    EvidenceStaleError,
    HandedOverError,
    KeyCheckError,
    KeyDeletedError,
    NotApprovedError,
    NotFoundError,
    PlacetError,
    PolicyDeniedError,
    RoleDeniedError,
    UnavailableError,
    VaultStartingError,
    VerificationError,
)
from placet.policy.charter import replay
from placet.sharing.key import deal
from placet.storage.store import Put
from placet.vault import handover, takeover
from placet.vault.records import KeyRecord, LinesRecord, Package
from placet.vault.takeover import check_package
from placet.vault.witnessing import lines_name, seen_name

STEPS = ("ask", "receive", "confirm", "activate")
OTHER = "ffeeddccbbaa9988"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Leaving]:
    """Return a vault with a key that may be handed over."""
    made = Leaving(tmp_path)
    yield made
    made.close()


def share_at(process: Process, key: str) -> str | None:
    """Return the share that a process would let go."""
    committed = process.vault._keys.get(key).record.committed
    return None if committed is None else committed.share


@pytest.mark.req("I16")
@pytest.mark.parametrize("cut", list(itertools.product(STEPS, ("old", "new", "both"))))
def test_a_crash_after_any_step_loses_nothing_and_never_has_both_serve(
    story: Leaving, cut: tuple[str, str]
) -> None:
    """The new process begins again from the start; in the end it has the very same share."""
    steps = story.hand_over()
    old, new, key = story.old, steps.new, story.key
    for name in STEPS:
        getattr(steps, name)()
        assert not (old.serves(key) and new.serves(key)), name
        if name == cut[0]:
            break
    if cut[1] in ("old", "both"):
        old.crash()
    if cut[1] in ("new", "both") and new.path.exists():
        new.crash()
    assert not (old.serves(key) and new.serves(key))
    steps.run()
    assert (old.serves(key), new.serves(key)) == (False, True)
    assert share_at(new, key) == story.share
    for process in (old, new):
        process.crash()
        process.log.verify()
    assert (old.serves(key), new.serves(key)) == (False, True)
    assert [e.entry.kind for e in new.log.of_key(key)][:3] == ["taken-over", "carried", "carried"]


@pytest.mark.req("I16")
def test_a_newer_release_takes_over_from_a_file_into_a_database(
    tmp_path: Path, server: Any
) -> None:
    """Each process has its records where it was told: so a vault moves (docs/operations.md)."""
    file, database = backends.Sqlite(), backends.Postgresql(server.uri)

    def of(path: Path) -> backends.Backend:
        return database if path.name.startswith("new") else file

    both: Any = SimpleNamespace(
        open=lambda path, seal: of(path).open(path, seal), exists=lambda path: of(path).exists(path)
    )
    with backends.use(both):
        story = Leaving(tmp_path)
        steps = story.hand_over()
        steps.run()
        for process in story.processes:
            process.crash()
        assert share_at(steps.new, story.key) == story.share
        assert (story.old.path.exists(), steps.new.path.exists()) == (True, False)
        for process in story.processes:
            process.close()


@pytest.mark.req("I11")
def test_it_is_logged_and_out_of_service_before_anything_leaves(
    story: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the commit fails, nothing is answered and the key is still served."""
    steps = story.hand_over()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(story.old.store, "commit", full)
        with pytest.raises(OSError, match="No space"):
            steps.ask()
    story.old.crash()
    assert story.old.serves(story.key)
    steps.ask()
    assert not story.old.serves(story.key)
    last = story.old.log.of_key(story.key)[-1].entry
    assert (last.kind, last.statement) == ("handed-over", story.statements[1].digest)
    assert last.subject == code_id(profile(2))
    assert last.detail is not None
    assert last.detail["line"] == LINE


@pytest.mark.req("I16")
@pytest.mark.parametrize("order", ["aabb", "abab", "abba", "baab"])
def test_of_two_new_processes_one_at_most_ever_serves(story: Leaving, order: str) -> None:
    """Both may fetch it; who confirms first has it, whatever the other one does."""
    a, b = story.successor(), story.successor(line=OTHER)
    steps = {"a": story.hand_over(a), "b": story.hand_over(b)}
    fetched = set[str]()
    for name in order:
        one = steps[name]
        try:
            if name not in fetched:
                one.ask()
                one.receive()
                fetched.add(name)
            else:
                one.confirm()
                one.activate()
        except HandedOverError:
            continue
    for one in steps.values():  # each tries again, for as long as it can
        try:
            one.run()
        except HandedOverError:
            continue
    serving = [p for p in (story.old, a, b) if p.serves(story.key)]
    assert len(serving) == 1
    assert serving[0] is not story.old
    assert share_at(serving[0], story.key) == story.share


@pytest.mark.req("I16")
def test_a_new_process_that_lost_its_disk_before_it_confirmed_is_replaced(story: Leaving) -> None:
    """The old one kept the package: another process takes it, and only that one serves."""
    lost = story.hand_over()
    lost.ask()
    lost.receive()
    lost.new.store.close()
    lost.new.path.unlink()
    other = story.hand_over(story.successor(line=OTHER))
    other.run()
    assert other.new.serves(story.key)
    with pytest.raises(HandedOverError):
        lost.ask()


def test_it_comes_in_parts_of_a_bounded_size(
    story: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record larger than one answer is put together, and checked as a whole."""
    monkeypatch.setattr(handover, "HAND_OVER_PART", 700)
    steps = story.hand_over()
    steps.run()
    assert len(steps.raw) > 5 * 700
    assert share_at(steps.new, story.key) == story.share


def test_what_waits_and_what_is_staged_goes_along(story: Leaving) -> None:
    """Under the same times: nothing is shortened by an upgrade, and nothing is forgotten."""
    now, policy = HostClock().now(), replay(story.statements)
    staged = composer(now).stage(story.key, stage_body(app_profile(2)))
    story.old.vault.stage(StageRequest(signed=person("platform").sign(staged).signed()))
    steps = story.hand_over()
    steps.run()
    assert len(steps.new.vault.pending(story.key).pending) == 1
    assert steps.new.vault.charter(story.key).version == policy.version
    with pytest.raises(HandedOverError):
        story.old.vault.pending(story.key)


def stage_body(shown):
    """Return what a stage says of a version."""
    return StageBody(profile=shown, version="2", source="abc", provenance=None, review=None)


def test_a_key_that_was_destroyed_stays_so(story: Leaving) -> None:
    """Its tombstone is handed over like any record; there is no share to go along."""
    policy = replay(story.statements)
    delete = composer(HostClock().now()).delete(policy, "gone")
    story.take(signed(delete))
    steps = story.hand_over()
    steps.run()
    assert not steps.new.serves(story.key)
    again = composer(HostClock().now(), seed="x").update(
        replay([*story.statements, signed(delete)]),
        policy.rules,
        "back",
        vault_profiles=(profile(4),),
    )
    with pytest.raises(KeyDeletedError):
        story.take(signed(again), steps.new)


@pytest.mark.req("R1.8")
def test_stale_evidence_takes_nothing_over(story: Leaving) -> None:
    """Older than a release's may be: attest again."""
    steps = story.hand_over()
    request = HandOverRequest(line=LINE, endpoint="127.0.0.1:1", offset=0)
    stale = steps.new.as_peer(story.old.id)
    stale = replace(stale, attested_at=stale.attested_at - 61)
    with pytest.raises(EvidenceStaleError):
        story.old.vault.hand_over(stale, story.key, request)
    other = steps.new.as_peer("sha256:" + "00" * 32)
    with pytest.raises(BindingError):
        story.old.vault.hand_over(other, story.key, request)
    third = story.successor(3, OTHER).as_peer(story.old.id)
    with pytest.raises(NotApprovedError):
        story.old.vault.hand_over(third, story.key, request)
    assert story.old.serves(story.key)


@pytest.mark.req("I14")
def test_a_confirmation_of_another_package_or_by_another_erases_nothing(story: Leaving) -> None:
    """Nor one that comes before anything was asked for, or by a release that nobody named."""
    steps = story.hand_over()
    peer = steps.new.as_peer(story.old.id)
    confirm = HandOverConfirm(line=LINE, digest="sha256:" + "00" * 32)
    with pytest.raises(PlacetError):
        story.old.vault.confirm_hand_over(peer, story.key, confirm)
    assert story.old.serves(story.key)
    steps.ask()
    with pytest.raises(ConflictError):
        story.old.vault.confirm_hand_over(peer, story.key, confirm)
    other = HandOverConfirm(line=OTHER, digest=steps.digest)
    with pytest.raises(HandedOverError):
        story.old.vault.confirm_hand_over(peer, story.key, other)
    third = story.successor(3, OTHER).as_peer(story.old.id)
    mine = HandOverConfirm(line=LINE, digest=steps.digest)
    with pytest.raises(NotApprovedError):
        story.old.vault.confirm_hand_over(third, story.key, mine)
    steps.receive()
    steps.confirm()
    steps.confirm()
    steps.activate()
    assert share_at(steps.new, story.key) == story.share


# --- what a new process does not believe --------------------------------------------------------


def _without(number: int) -> Callable[[Package], Package]:
    def cut(package: Package) -> Package:
        record = msgspec.structs.replace(package.record, charter=package.record.charter[:number])
        return msgspec.structs.replace(package, record=record)

    return cut


def _share(package: Package) -> Package:
    committed = package.record.committed
    assert committed is not None
    wrong = msgspec.structs.replace(committed, share=b64(b"\x01" * 32))
    record = msgspec.structs.replace(package.record, committed=wrong)
    return msgspec.structs.replace(package, record=record)


def _other_share(package: Package) -> Package:
    committed = package.record.committed
    assert committed is not None
    dealing = deal(
        bytes(32), key="sha256:" + "11" * 32, vaults=[s.vault for s in committed.manifest.shares],
        k=2, generation=1, attempt=1, prev=None, rng=os.urandom,
    )  # fmt: skip
    share = b64(dealing.shares[package.vault])
    wrong = msgspec.structs.replace(committed, manifest=dealing.manifest, share=share)
    record = msgspec.structs.replace(package.record, committed=wrong)
    return msgspec.structs.replace(package, record=record)


def _signature(package: Package) -> Package:
    item = package.record.charter[0]
    signature = item.signed.signatures[0]
    forged = msgspec.structs.replace(signature, signature=b64(b"\x00" * 64))
    changed = msgspec.structs.replace(
        item, signed=msgspec.structs.replace(item.signed, signatures=(forged,))
    )
    record = msgspec.structs.replace(package.record, charter=(changed, *package.record.charter[1:]))
    return msgspec.structs.replace(package, record=record)


@pytest.mark.parametrize(
    ("change", "expect"),
    [
        (lambda p: msgspec.structs.replace(p, key="sha256:" + "11" * 32), VerificationError),
        (lambda p: msgspec.structs.replace(p, vault="sha256:" + "11" * 32), VerificationError),
        (_without(0), VerificationError),
        # The birth alone does not name the release that takes over.
        (_without(1), PolicyDeniedError),
        (_share, KeyCheckError),
        (_other_share, VerificationError),
        (_signature, PlacetError),
    ],
    ids=[
        "key",
        "vault",
        "no charter",
        "older charter",
        "share",
        "another key's share",
        "signature",
    ],
)
def test_a_package_is_checked_before_any_of_it_counts(
    story: Leaving, change: Callable[[Package], Package], expect: type[PlacetError]
) -> None:
    """Whoever the old process is: charter, releases and shares must fit the key id."""
    steps = story.hand_over()
    steps.ask()
    raw = encode(change(decode(steps.raw, Package)))
    with pytest.raises(expect):
        check_package(raw, story.key, story.old.as_sender(), release=code_id(profile(2)))
    check_package(steps.raw, story.key, story.old.as_sender(), release=code_id(profile(2)))


def test_what_is_too_large_to_hand_over_stays_where_it_is(
    story: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is served on: nothing was let go."""
    monkeypatch.setattr(handover, "MAX_PACKAGE", 100)
    with pytest.raises(UnavailableError, match="too large"):
        story.hand_over().ask()
    assert story.old.serves(story.key)


def test_others_are_told_of_a_key_by_who_has_it(story: Leaving) -> None:
    """News are for vaults that keep the key as well, and of keys that were not let go."""
    news, steps = story.old.vault._news, story.hand_over()
    other = replay(story.statements).vault_set.ids[1]
    assert [told.key for told in news.since(other, 0)[0]] == [story.key]
    assert news.since("sha256:" + "99" * 32, 0)[0] == ()
    steps.run()
    assert news.since(other, 0)[0] == ()


def test_two_records_of_one_key_are_joined_only_if_they_fit(story: Leaving) -> None:
    """Not if another manifest was committed here, nor if this process had the key and let go."""
    steps = story.hand_over()
    with pytest.raises(NotFoundError):
        story.old.vault.activate(story.key)
    steps.run()
    record = steps.new.vault._keys.get(story.key).record
    assert record.committed is not None
    manifest = msgspec.structs.replace(record.committed.manifest, attempt=2)
    other = msgspec.structs.replace(record.committed, manifest=manifest)
    with pytest.raises(ConflictError, match="another manifest"):
        takeover._merged(msgspec.structs.replace(record, committed=other), record)
    let_go = story.old.vault._keys.get(story.key).record
    with pytest.raises(ConflictError, match="handed it on"):
        takeover._merged(let_go, record)


def test_a_package_from_a_release_that_the_owner_never_named_is_refused(story: Leaving) -> None:
    """A process of other code that poses as the old vault plants nothing under its id."""
    steps = story.hand_over()
    steps.ask()
    stranger = Process(story.folder / "stranger.db", 5)
    story.processes.append(stranger)
    claims = msgspec.structs.replace(stranger.as_sender().claims, instance=story.old.id)
    poses = replace(stranger.as_sender(), claims=claims)
    with pytest.raises(NotApprovedError):
        check_package(steps.raw, story.key, poses, release=code_id(profile(2)))


def test_a_charter_that_a_courier_brought_first_is_no_hindrance(story: Leaving) -> None:
    """The new process may know the key already, without a share: both are put together."""
    steps = story.hand_over()
    steps.ask()
    steps.receive()
    new = steps.new
    record = KeyRecord(charter=decode(steps.raw, Package).record.charter[:1])
    new.log.commit(now=HostClock().now(), changes=(Put(f"key/{story.key}", encode(record)),))
    steps.confirm()
    steps.activate()
    assert share_at(new, story.key) == story.share
    assert new.vault.charter(story.key).version == 2


@pytest.mark.req("I6", "I16")
def test_nothing_leaves_and_nothing_is_confirmed_before_others_saw_it(
    story: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an old disk that is put back would serve, or hand over, what another process has."""
    steps, old = story.hand_over(), story.old.vault
    seen: list[int] = []

    def unwitnessed(_: object, index: int) -> None:
        if index not in seen:
            raise VaultStartingError("nobody saw it", reason="unwitnessed", index=index)

    monkeypatch.setattr(old.standing, "check_witnessed", unwitnessed)
    with pytest.raises(VaultStartingError) as early:
        steps.ask()
    assert steps.raw == b""
    assert not story.old.serves(story.key)
    seen.append(int(str(early.value.members["index"])))
    steps.ask()
    steps.receive()
    with pytest.raises(VaultStartingError) as early:
        steps.confirm()
    with pytest.raises(VaultStartingError):
        steps.ask()  # that it was confirmed is not told either
    assert not steps.new.serves(story.key)
    seen.append(int(str(early.value.members["index"])))
    assert [e.entry.index for e in story.old.log.of_key(story.key)][-2:] == seen
    steps.run()
    assert share_at(steps.new, story.key) == story.share


@pytest.mark.req("I6")
def test_what_was_witnessed_of_other_vaults_goes_along(story: Leaving) -> None:
    """A new process forgets nothing that could show another vault's old disk."""
    other = "sha256:" + f"{1:064x}"
    signed_beat = decode(encode(sign_nothing()), Signed)
    old = Seen(boots=3, boot="b", size=9, root="11" * 32, beat=signed_beat)
    line = Seen(boots=1, boot="c", size=4, root="22" * 32, beat=signed_beat)
    lines = LinesRecord(lines=(OTHER,))
    story.old.log.commit(
        now=HostClock().now(),
        changes=(
            Put(seen_name(other, ""), encode(old)),
            Put(seen_name(other, OTHER), encode(line)),
            Put(lines_name(other), encode(lines)),
        ),
    )
    steps = story.hand_over()
    steps.ask()
    steps.receive()
    newer = msgspec.structs.replace(old, size=12)
    steps.new.log.commit(now=HostClock().now(), changes=(Put(seen_name(other, ""), encode(newer)),))
    steps.confirm()
    steps.activate()
    store = steps.new.store
    kept = {n: store.get(seen_name(other, n)) for n in ("", OTHER)}
    assert decode(kept[""].value, Seen).size == 12  # type: ignore[union-attr]
    assert decode(kept[OTHER].value, Seen) == line  # type: ignore[union-attr]
    assert decode(store.get(lines_name(other)).value, LinesRecord) == lines  # type: ignore[union-attr]


def sign_nothing() -> Signed:
    """Return a signature over nothing that matters here."""
    return sign_record(HandOverConfirmed(digest="sha256:" + "00" * 32), vault_key(1))


def test_who_is_nobody_takes_nothing_over(story: Leaving) -> None:
    """A visitor, and a release that is not known to itself."""
    peer = replace(story.successor().as_peer(story.old.id), role="visitor", identity=None)
    request = HandOverRequest(line=LINE, endpoint="127.0.0.1:1", offset=0)
    with pytest.raises(RoleDeniedError):
        story.old.vault.hand_over(peer, story.key, request)
    with pytest.raises(RoleDeniedError):
        story.old.vault.hand_over_list(peer, 0)
    assert story.old.serves(story.key)
    assert story.old.log.of_key(story.key)[-1].entry.kind == "denied"
