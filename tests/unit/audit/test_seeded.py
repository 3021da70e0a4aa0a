"""Vaults and couriers that cheat: each violation is found, and named (R7.1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import NOW, composer, person, profile, signed
from placet_testing.constellations import Story, begin
from placet_testing.exports import Line, audited, export, kinds, write
from placet_testing.governed import CLAUSE, DAY, PAGE, any_one, co_signed, governed, update
from placet_testing.liars import digest_of, force, let_go, receipt_for, rewritten, say

from placet.client.signing import Composer, auto_body, promote_body
from placet.core.encoding import b64, encode, unb64
from placet.core.profile import code_id
from placet.core.statement import UntrustedStatement, compose
from placet_audit.audit import Audit
from placet_audit.problems import KINDS, Unreadable

V1, V2, V3 = profile(1), profile(2), profile(3)

pytestmark = pytest.mark.req("R7.1")


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Yield a key whose share was released once by each of three vaults."""
    (tmp_path / "vaults").mkdir()
    made = begin(tmp_path / "vaults")
    made.gather(V1)
    yield made
    made.close()


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[Story]:
    """Yield a governed key: three owner signers, managers, guardians."""
    (tmp_path / "vaults").mkdir()
    made = governed(tmp_path / "vaults", acts=co_signed("retire"))
    yield made
    made.close()


def checked(story: Story, tmp_path: Path, **more: object) -> Audit:
    """Return what the auditor finds in the logs as they are."""
    export(story, tmp_path / "out")
    return audited(tmp_path / "out", **more)  # type: ignore[arg-type]


def promote(story: Story, what=V2, now: int | None = None, **changes: object) -> UntrustedStatement:
    """Compose a promote on the policy in force."""
    body = msgspec.structs.replace(promote_body(story.policy, what), **changes)
    return composer(now or story.clock.time).promote(story.policy, body)


def test_a_clean_log_passes(story: Story, tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong, and each release is named with its statement."""
    story.promote(V2)
    story.gather(V2, at=(2, 3, 4))
    result = checked(story, tmp_path)
    assert result.findings == []
    releases = [r for p in result.replays.values() for r in p.releases]
    assert len(releases) == 6
    assert {r.approval.statement for r in releases if r.approval} == set(story.policy.chain)


# --- vaults that let go ---------------------------------------------------------------------


def never_approved(story: Story) -> None:
    """Never approved."""
    let_go(story, V2, story.key)


def retired(story: Story) -> None:
    """Retired."""
    story.promote(V2)
    story.retire(V1)
    let_go(story, V1, story.key)


def overlap_ended(story: Story) -> None:
    """Overlap ended."""
    story.take(signed(promote(story, earlier="retire-at", retire_at=NOW + DAY)))
    story.clock.time = NOW + DAY
    let_go(story, V1, story.key)


def below_the_floor(story: Story) -> None:
    """Below the floor."""
    story.take(signed(promote(story, profile(2, security_version=5), security_version_floor=5)))
    let_go(story, V1, story.key)


def before_its_approval(story: Story) -> None:
    """Before its approval."""
    sent = signed(promote(story))
    let_go(story, V2, sent.digest, version=2)
    story.take(sent)


def after_the_delete(story: Story) -> None:
    """After the delete."""
    story.take(signed(composer().delete(story.policy, "gone")))
    let_go(story, V1, story.key)


def another_statement(story: Story) -> None:
    """Another statement."""
    sent = story.promote(V2)
    let_go(story, V1, sent.digest)


def another_version(story: Story) -> None:
    """Another version."""
    let_go(story, V1, story.key, version=7)


def another_key_committed(story: Story) -> None:
    """Another key committed."""
    say(story, kind="committed", statement=story.key, subject=digest_of("another manifest"))


def held_under_nothing(story: Story) -> None:
    """Held under nothing."""
    say(story, kind="held", statement=digest_of("no statement"), subject=digest_of("manifest"))


def unknown_kind(story: Story) -> None:
    """Unknown kind."""
    say(story, kind="favour", statement=story.key)


LET_GO = {
    "release-unjustified": [never_approved, before_its_approval, held_under_nothing],
    "release-retired": [retired, overlap_ended, below_the_floor, after_the_delete],
    "entry-false": [another_statement, another_version],
    "share-misplaced": [another_key_committed],
    "entry-unknown": [unknown_kind],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "seed"),
    [pytest.param(k, s, id=s.__name__) for k, seeds in LET_GO.items() for s in seeds],
)
def test_a_share_that_left_wrongly_is_found(
    story: Story, tmp_path: Path, kind: str, seed: Callable[[Story], None]
) -> None:
    """It is found at that vault's entry, and nothing else is."""
    seed(story)
    result = checked(story, tmp_path)
    if seed is before_its_approval:  # its own version of the time is false as well
        assert kinds(result) >= {kind}
    else:
        assert kinds(result) == {kind}
    found = next(f for f in result.findings if f.kind == kind)
    assert result.number(found.vault or "") == 1
    assert found.entry is not None


# --- vaults that take -----------------------------------------------------------------------


def someone_else(story: Story) -> None:
    """Someone else."""
    force(story, signed(promote(story), "m1"))


def put_out_before(story: Story) -> None:
    """Put out before."""
    without = any_one("owner", person("owner").signer, PAGE.signer)
    story.take(update(story, "owner", owner=without))
    force(story, signed(promote(story), "spare"))


def too_young(story: Story) -> None:
    """Too young."""
    owner = any_one("owner", *story.policy.owner.of, person("new").signer)
    story.take(update(story, "owner", owner=owner))
    force(story, signed(promote(story), "new"))


def a_manager_missing(story: Story) -> None:
    """A manager missing."""
    story.promote(V2)
    force(story, signed(composer().retire(story.policy, code_id(V1), "x"), "owner", "m1"))


def over_other_bytes(story: Story) -> None:
    """Over other bytes."""
    sent, other = promote(story), signed(promote(story, V3))
    force(story, compose(sent.statement, other.signatures))


def too_late(story: Story) -> None:
    """Too late."""
    sent = signed(promote(story))
    story.clock.time += 40 * DAY
    force(story, sent)


def from_the_future(story: Story) -> None:
    """From the future."""
    force(story, signed(promote(story, now=NOW + DAY)))


def a_page_at_once(story: Story) -> None:
    """A page at once."""
    force(story, PAGE.sign(promote(story)))


def recovered_at_once(story: Story) -> None:
    """Recovered at once."""
    heir = any_one("owner", person("heir").signer)
    begun = signed(composer().recover(story.policy, heir, "lost"), "g1", "g2")
    story.take(begun)
    story.clock.time += DAY
    done = composer(story.clock.time).complete(story.policy, begun.digest, "lost")
    force(story, signed(done, "heir"))


def over_the_budget(story: Story) -> None:
    """Over the budget."""
    clause = msgspec.structs.replace(CLAUSE, budget=1, delay=0)
    story.take(update(story, "owner", "m1", "m2", auto_migrate=clause))
    for at, what in enumerate((V2, V3)):
        sent = signed(composer().promote(story.policy, auto_body(story.policy, what)), "platform")
        if at == 0:
            story.take(sent)
        else:
            force(story, sent)


def another_version_number(story: Story) -> None:
    """Another version number."""
    sent = promote(story)
    changed = msgspec.structs.replace(sent.statement, base_version=5)
    force(story, signed(compose(changed)))


def on_another_head(story: Story) -> None:
    """On another head."""
    sent = promote(story)
    changed = msgspec.structs.replace(sent.statement, prev=digest_of("elsewhere"))
    force(story, signed(compose(changed)))


def a_lower_floor(story: Story) -> None:
    """A lower floor."""
    story.take(signed(promote(story, profile(2, security_version=3), security_version_floor=3)))
    force(story, signed(promote(story, V3, security_version_floor=0)))


def back_without_saying_so(story: Story) -> None:
    """Back without saying so."""
    story.promote(V2)
    retire = composer().retire(story.policy, code_id(V2), "x")
    story.take(signed(retire, "owner", "m1", "m2"))
    force(story, signed(promote(story, V2, unretire=False)))


def put_everybody_out(story: Story) -> None:
    """Put everybody out."""
    force(story, update(story, "owner", owner=any_one("owner", person("evil").signer)))


def too_long_a_life(story: Story) -> None:
    """Too long a life."""
    long = Composer(now=NOW, rng=composer().rng, lifetime=3 * DAY)
    sent = long.retire(story.policy, code_id(V1), "x")
    force(story, signed(sent, "owner", "m1", "m2"))


TOOK = {
    "statement-unsigned": [someone_else, put_out_before, too_young, a_manager_missing,
                           over_other_bytes],
    "statement-late": [too_late, from_the_future],
    "statement-early": [a_page_at_once, recovered_at_once],
    "statement-misplaced": [another_version_number, on_another_head],
    "statement-refused": [over_the_budget, a_lower_floor, back_without_saying_so,
                          put_everybody_out, too_long_a_life],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "seed"),
    [pytest.param(k, s, id=s.__name__) for k, seeds in TOOK.items() for s in seeds],
)
def test_a_statement_that_was_taken_wrongly_is_found(
    ruled: Story, tmp_path: Path, kind: str, seed: Callable[[Story], None]
) -> None:
    """The vault signed a receipt and wrote an entry; neither makes it right."""
    seed(ruled)
    result = checked(ruled, tmp_path)
    assert kinds(result) == {kind}
    assert {result.number(f.vault or "") for f in result.findings} == {1}


def test_what_rests_on_a_statement_taken_wrongly_is_found(ruled: Story, tmp_path: Path) -> None:
    """A release under it, and under what was signed by whom it let in."""
    sent = signed(promote(ruled), "m1")
    force(ruled, sent)
    let_go(ruled, V2, sent.digest)
    let_go(ruled, V1, ruled.key)
    result = checked(ruled, tmp_path)
    assert [f.kind for f in result.findings] == ["statement-unsigned", "release-unjustified"]
    good = [r.justified for r in next(iter(result.replays.values())).releases]
    assert good == [False, True]


def test_late_with_receipts_of_k_vaults_is_no_violation(story: Story, tmp_path: Path) -> None:
    """And the report says that it rests on them; with one receipt fewer it is found."""
    sent = story.promote(V2, only=(1, 2, 3))
    receipts = tuple(b.vault.charter(story.key).charter[-1].receipts[0] for b in story.benches[1:4])
    story.clock.time += 40 * DAY
    item = story.benches[1].vault.charter(story.key).charter[-1]
    from placet.core.messages import CourierItem, TakeRequest

    run = (CourierItem(signed=item.signed, receipts=receipts),)
    story.benches[0].vault.take(TakeRequest(chain=run))
    found = export(story, tmp_path / "out")
    result = audited(tmp_path / "out")
    assert result.findings == []
    rests = next(iter(result.replays.values())).takings[sent.digest].rests
    assert len(rests) == 3
    rows = [dict(row) for row in found[0]]
    for row in rows:
        if row["record"] == "statement":
            row["receipts"] = row["receipts"][:-1]
    write(tmp_path / "out" / "vault-1.jsonl", rows)
    assert kinds(audited(tmp_path / "out")) == {"statement-late"}


# --- couriers who spoil an export -----------------------------------------------------------


def entries(rows: list[Line]) -> list[Line]:
    """Return the lines of entries."""
    return [row for row in rows if row["record"] == "entry"]


def edited(rows: list[Line]) -> None:
    """Edited."""
    row = entries(rows)[-1]
    said = json.loads(unb64(row["entry"]))
    said["time"] += 1
    row["entry"] = b64(encode(said))


def resalted(rows: list[Line]) -> None:
    """Resalted."""
    entries(rows)[0]["salt"] = b64(b"x" * 16)


def removed(rows: list[Line]) -> None:
    """Removed."""
    rows.remove(entries(rows)[2])


def removed_last(rows: list[Line]) -> None:
    """Removed last."""
    rows.remove(entries(rows)[-1])


def swapped(rows: list[Line]) -> None:
    """Swapped."""
    a, b = (rows.index(row) for row in entries(rows)[1:3])
    rows[a], rows[b] = rows[b], rows[a]


def doubled(rows: list[Line]) -> None:
    """Doubled."""
    row = entries(rows)[2]
    rows.insert(rows.index(row), dict(row))


def renumbered(rows: list[Line]) -> None:
    """Renumbered."""
    entries(rows)[-1]["index"] += 1


def hash_changed(rows: list[Line]) -> None:
    """Hash changed."""
    row = next(row for row in rows if row["record"] == "hashes")
    row["hashes"][0] = digest_of("another")


def hash_missing(rows: list[Line]) -> None:
    """Hash missing."""
    next(row for row in rows if row["record"] == "hashes")["hashes"].pop()


def statement_missing(rows: list[Line]) -> None:
    """Statement missing."""
    rows.remove([row for row in rows if row["record"] == "statement"][-1])


def signature_missing(rows: list[Line]) -> None:
    """Signature missing."""
    [row for row in rows if row["record"] == "statement"][-1]["signed"]["signatures"] = []


def signature_broken(rows: list[Line]) -> None:
    """Signature broken."""
    [one] = [row for row in rows if row["record"] == "statement"][-1]["signed"]["signatures"]
    one["signature"] = b64(bytes(64))


def checkpoint_of_another(rows: list[Line]) -> None:
    """Checkpoint of another."""
    rows[0]["checkpoint"] = rows[0]["checkpoint"].replace("placet/", "placet/x", 1)


def trail_signed_by_nobody(rows: list[Line]) -> None:
    """Trail signed by nobody."""
    rows[0]["trail"] = rows[0]["trail"] | {"signature": b64(bytes(64))}


def statement_added(rows: list[Line]) -> None:
    """Statement added."""
    [birth, *_] = [row for row in rows if row["record"] == "statement"]
    said = json.loads(unb64(birth["signed"]["payload"]))
    body = {"label": "notes/data", "reason": ""}
    said |= {"type": "delete", "schema": 2, "body": body}
    said |= {"prev": digest_of("x"), "base_version": 1, "key": rows[0]["key"]}
    signed = birth["signed"] | {"payload": b64(encode(said))}
    rows.insert(rows.index(birth) + 1, birth | {"signed": signed})


def statement_with_another_field(rows: list[Line]) -> None:
    """Statement with another field."""
    row = [row for row in rows if row["record"] == "statement"][-1]
    said = json.loads(unb64(row["signed"]["payload"])) | {"extra": 1}
    row["signed"]["payload"] = b64(encode(said))


SPOILED = {
    statement_added: {"statement-unlogged"},
    statement_with_another_field: {"statement-malformed"},
    edited: {"entry-not-in-log", "trail-cut"},
    resalted: {"entry-not-in-log", "trail-broken"},
    removed: {"trail-broken", "trail-cut"},
    removed_last: {"trail-cut"},
    swapped: {"trail-broken"},
    doubled: {"trail-broken", "trail-cut"},
    renumbered: {"trail-broken", "trail-cut"},
    hash_changed: {"entry-not-in-log"},
    hash_missing: {"entry-not-in-log"},
    statement_missing: {"statement-missing"},
    signature_missing: {"statement-unsigned"},
    signature_broken: {"statement-unsigned"},
    checkpoint_of_another: {"log-not-signed"},
    trail_signed_by_nobody: {"log-not-signed"},
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda s: s.__name__)
def test_a_spoiled_export_is_found(
    story: Story, tmp_path: Path, spoil: Callable[[list[Line]], None]
) -> None:
    """Whoever carries an export changes nothing in it unseen."""
    story.promote(V2)
    story.gather(V1)
    rows = export(story, tmp_path / "out", only=(0, 1, 2))[0]
    assert audited(tmp_path / "out").findings == []
    spoil(rows)
    write(tmp_path / "out" / "vault-1.jsonl", rows)
    # Only this vault's own file has the statement that is left out.
    alone = [tmp_path / "out" / "vault-1.jsonl"] if spoil is statement_missing else []
    result = audited(*(alone or [tmp_path / "out"]))
    assert kinds(result) - {"too-few-vaults"} >= SPOILED[spoil]
    assert {result.number(f.vault or "") for f in result.findings
            if f.kind != "too-few-vaults"} == {1}  # fmt: skip


def test_a_file_that_was_cut_off_is_unreadable(story: Story, tmp_path: Path) -> None:
    """At every byte, and with anything behind its end; an empty folder is no export."""
    export(story, tmp_path / "out", only=(0,))
    path = tmp_path / "out" / "vault-1.jsonl"
    raw = path.read_bytes()
    for cut in (0, 1, 200, len(raw) // 2, len(raw) - 20, len(raw) - 1):
        path.write_bytes(raw[:cut])
        with pytest.raises(Unreadable):
            audited(path)
    for more in (b"\n", b"{}\n", raw):
        path.write_bytes(raw + more)
        with pytest.raises(Unreadable):
            audited(path)
    (tmp_path / "none").mkdir()
    with pytest.raises(Unreadable):
        audited(tmp_path / "none")


# --- vaults that rewrite their whole log ----------------------------------------------------


def test_a_log_without_a_release_is_told_by_the_apps_receipt(story: Story, tmp_path: Path) -> None:
    """The vault's new log is a good one; what it signed for before is not in it."""
    rows = export(story, tmp_path / "out", hashes=False)[0]
    said = story.release(0, V1)
    receipts = tmp_path / "placet-receipts.jsonl"
    other = story.release(1, V1)
    receipts.write_bytes(encode(said.receipt) + b"\n" + b"{torn\n" + encode(other.receipt) + b"\n")
    export(story, tmp_path / "out")
    assert audited(tmp_path / "out", receipts=[receipts]).findings == []
    rows = export(story, tmp_path / "out", hashes=False)[0]

    def forget(entries: list[dict[str, object]]) -> None:
        entries.pop()

    write(tmp_path / "out" / "vault-1.jsonl", rewritten(rows, forget))
    assert audited(tmp_path / "out").findings == []
    story.clock.time += 1
    result = audited(tmp_path / "out", receipts=[receipts])
    # Signed in the very second of the visit: it could be newer than the log.
    assert result.findings == []
    assert "newer" in result.notes[0]
    story.clock.time += 1
    rows = export(story, tmp_path / "out", hashes=False)[0]
    write(tmp_path / "out" / "vault-1.jsonl", rewritten(rows, forget))
    result = audited(tmp_path / "out", receipts=[receipts])
    assert [f.kind for f in result.findings] == ["receipt-without-entry"]
    assert result.receipts == 2


@pytest.mark.parametrize("field", ["code", "recipient", "version", "statement", "manifest", "time"])
def test_a_receipt_that_says_something_else_is_found(
    story: Story, tmp_path: Path, field: str
) -> None:
    """Each of its fields is held against the entry."""
    entry = let_go(story, V1, story.key)
    story.clock.time += 10
    wrong = {"version": 9, "time": entry.time + 1}.get(field, digest_of("wrong"))
    receipts = tmp_path / "kept.jsonl"
    for changes, found in (({}, []), ({field: wrong}, ["receipt-without-entry"])):
        receipts.write_bytes(encode(receipt_for(story, entry, **changes)) + b"\n")
        export(story, tmp_path / "out")
        result = audited(tmp_path / "out", receipts=[receipts])
        assert [f.kind for f in result.findings] == found


def test_a_log_without_a_statement_is_told_by_other_vaults(story: Story, tmp_path: Path) -> None:
    """A vault took a promote and signed for it; later its log does not have it."""
    sent = story.promote(V2, only=(0,))
    receipt = story.benches[0].vault.charter(story.key).charter[-1].receipts[0]
    from placet.core.messages import CourierItem, TakeRequest

    run = (CourierItem(signed=sent.signed(), receipts=(receipt,)),)
    story.benches[1].vault.take(TakeRequest(chain=run))
    story.clock.time += 10
    rows = export(story, tmp_path / "out", hashes=False)[0]

    def forget(entries: list[dict[str, object]]) -> None:
        entries[:] = [e for e in entries if e["statement"] != sent.digest]

    rows = [r for r in rewritten(rows, forget)
            if r["record"] != "statement" or r["receipts"] == []
            or r["signed"]["payload"] != b64(sent.payload)]  # fmt: skip
    write(tmp_path / "out" / "vault-1.jsonl", rows)
    assert kinds(audited(tmp_path / "out")) == {"receipt-without-entry"}


def test_a_log_that_went_back_is_found(story: Story, tmp_path: Path) -> None:
    """A restored disk: whole, signed, and shorter than the one that was seen before."""
    store = story.folder / "vault1.db"
    copy = store.read_bytes()
    story.restart(0)
    copy = store.read_bytes()
    story.release(0, V1)
    export(story, tmp_path / "out")
    story.clock.time += 60
    story.benches[0].store.close()
    for file in story.folder.glob("vault1.db*"):
        file.unlink()
    store.write_bytes(copy)
    from placet_testing.vaults import open_bench

    story.benches[0] = open_bench(story.folder, 1, clock=story.clock, boots=3)
    export(story, tmp_path / "out", only=(0,), name="-later")
    result = audited(tmp_path / "out")
    assert kinds(result) == {"log-went-back"}


@pytest.mark.parametrize("hashes", [True, False])
def test_two_histories_of_one_vault_are_found(
    story: Story,
    tmp_path: Path,
    hashes: bool,  # noqa: FBT001 - pytest names it
) -> None:
    """At one size or two, by the hashes of all entries or by the key's own alone."""
    first = export(story, tmp_path / "out", hashes=hashes)[0]
    story.clock.time += 60

    def another(entries: list[dict[str, object]]) -> None:
        entries[-1]["time"] = NOW + 30

    write(tmp_path / "out" / "vault-1-later.jsonl", rewritten(first, another))
    assert "log-forked" in kinds(audited(tmp_path / "out"))


def test_later_visits_that_continue_earlier_ones_are_clean(story: Story, tmp_path: Path) -> None:
    """By the hashes of all entries, or by a proof; without both nothing shows it."""
    export(story, tmp_path / "out")
    story.clock.time += 60
    story.promote(V2)
    export(story, tmp_path / "out", name="-later")
    result = audited(tmp_path / "out")
    assert result.findings == []
    assert all(r.policy and r.policy.version == 2 for r in result.replays.values())
    export(story, tmp_path / "out", name="-later", hashes=False)
    assert kinds(audited(tmp_path / "out")) == {"log-forked"}
    sizes = range(1, 12)
    later = export(story, tmp_path / "out", name="-later", hashes=False, before=sizes)
    assert audited(tmp_path / "out").findings == []
    row = next(r for r in later[0] if r["record"] == "consistency" and r["proof"])
    proofs = [r for r in later[0] if r["record"] == "consistency"]
    for proof in proofs:
        proof["proof"] = row["proof"][:-1]
    write(tmp_path / "out" / "vault-1-later.jsonl", later[0])
    assert kinds(audited(tmp_path / "out")) == {"log-forked"}


def test_vaults_on_two_branches_are_found(story: Story, tmp_path: Path) -> None:
    """The owner signed two statements on one; nobody ended that."""
    one, two = signed(promote(story, V2)), signed(promote(story, V3))
    story.take(one, only=(0, 1))
    story.statements.remove(one)
    story.take(two, only=(2,))
    story.statements.remove(two)
    result = checked(story, tmp_path)
    assert kinds(result) == {"charters-fork"}
    assert any("behind" in note for note in result.notes)


def test_too_few_logs_show_nothing(story: Story, tmp_path: Path) -> None:
    """Where k vaults were not looked at, the key may have been let go there."""
    export(story, tmp_path / "out", only=(0, 1, 2))
    result = audited(tmp_path / "out")
    assert (kinds(result), len(result.notes)) == (set(), 2)
    (tmp_path / "out" / "vault-3.jsonl").unlink()
    assert kinds(audited(tmp_path / "out")) == {"too-few-vaults"}


def test_another_key_is_asked_for(story: Story, tmp_path: Path) -> None:
    """The key that is meant is named; exports of others are none of it."""
    export(story, tmp_path / "out")
    assert audited(tmp_path / "out", key=story.key).findings == []
    with pytest.raises(Unreadable):
        audited(tmp_path / "out", key=digest_of("another"))


def test_every_kind_of_finding_is_seeded_here() -> None:
    """No kind is listed that no test finds."""
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
