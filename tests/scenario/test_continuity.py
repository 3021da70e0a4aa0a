"""Hosts that put disks back, copy them, set clocks and cut networks: no stale vault serves (I6)."""

from __future__ import annotations

import itertools

import pytest
from placet_testing.backends import cases
from placet_testing.charters import composer, profile, signed
from placet_testing.constellations import run_of
from placet_testing.hosts import Machine, Ring

from placet.client.signing import promote_body
from placet.core.continuity import check_fork_proof
from placet.core.limits import LEASE, MAX_SKEW
from placet.errors import (
    ApprovalExpiredError,
    KeyNotBornError,
    NotApprovedError,
    QuarantinedError,
    RoleDeniedError,
    VaultStartingError,
)
from placet.policy.continuity import Circle

V1, V2 = profile(1), profile(2)


@pytest.fixture
def ring_of(tmp_path):
    """Return a way to start n vaults and m outside witnesses with a key; all end at the end."""
    rings = []

    def make(n=5, k=3, m=0, **options):
        folder = tmp_path / f"ring{len(rings)}"
        folder.mkdir()
        rings.append(Ring.make(folder, n, k, m))
        return rings[-1].bear(**options)

    yield make
    for ring in rings:
        ring.close()


def boots(machine):
    """Return how many starts the log of a vault has."""
    return sum(e.entry.kind == "boot" for e in machine.log.of_key(None))


# --- starting ---------------------------------------------------------------------------


@pytest.mark.req("I6")
def test_a_starting_vault_serves_status_only(ring_of):
    """Status, charters and witnessing; nothing that needs the log, until enough answered."""
    ring = ring_of()
    one = ring.machines[0]
    one.stop()
    one.start()
    before = one.log.head()
    for act in (
        lambda: ring.release(one, V1),
        lambda: ring.take(one, ring.statements[0]),
        lambda: ring.promote(V2, [one]),
    ):
        with pytest.raises(VaultStartingError) as caught:
            act()
        assert set(caught.value.members["waiting"]) == {m.id for m in ring.machines[1:]}
    assert one.vault.status("n" * 43).standing.state == "starting"
    assert one.vault.charter(ring.key).version == 1
    assert one.log.head() == before
    for there, stands in zip(ring.machines[1:4], (False, False, True), strict=True):
        assert ring.beat(one, there)
        assert (one.standing.report().state == "standing") == stands
    assert ring.release(one, V1).version == 1
    assert boots(one) == 2


@pytest.mark.req("I6", "I16")
def test_all_vaults_start_at_once(ring_of):
    """Answering takes no standing: after a power failure of all, all stand again."""
    ring = ring_of(3, 2)
    for machine in ring.machines:
        machine.stop()
    for machine in ring.machines:
        machine.start()
    assert ring.shares(V1) == 0
    ring.beats()
    assert ring.shares(V1) == 3
    assert [boots(m) for m in ring.machines] == [2, 2, 2]


@pytest.mark.req("I6")
def test_a_fresh_vault_stands_alone(tmp_path):
    """Until its first key is born: from then on that key's circle counts."""
    ring = Ring.make(tmp_path, 5, 3)
    one = ring.machines[0]
    assert one.standing.report().state == "standing"
    assert boots(one) == 1
    for machine in ring.machines[1:]:
        machine.clock.running += LEASE + 1  # whoever asks them is answered; they are not
    ring.bear(created=False)
    one.clock.running += LEASE + 1
    assert one.standing.report().state == "starting"
    assert one.standing.report().reason == "starting"
    ring.beats([one])
    assert one.standing.report().state == "standing"
    ring.close()


@pytest.mark.req("I6")
def test_how_long_a_vault_would_go_on_alone(ring_of, tmp_path):
    """By the answers that it takes to stand, the newest ones of them; nothing without keys."""
    ring = ring_of(5, 3)
    one, clock = ring.machines[0], ring.machines[0].clock
    ring.beats([one])
    assert one.standing.lease() == LEASE
    clock.passes(100)
    assert one.standing.lease() == LEASE - 100
    needed = Circle.of(ring.vault_set).needed
    for there in ring.machines[1:needed]:
        ring.beat(one, there)
    assert one.standing.lease() == LEASE - 100, "one of those that it needs is as old as before"
    ring.beat(one, ring.machines[needed])
    assert one.standing.lease() == LEASE
    clock.wall += 10  # the host's clock alone
    assert one.standing.lease() == LEASE - 10
    clock.running += LEASE + 1
    assert (one.standing.lease(), one.standing.report().state) == (0, "starting")
    one.stop()
    one.start()
    assert one.standing.lease() == 0, "nobody has answered this start"
    lone = Machine(tmp_path, "lone")
    assert lone.standing.lease() is None
    lone.stop()


@pytest.mark.req("I6")
def test_what_is_newer_is_taken_before_anything_is_served(ring_of):
    """A vault that was away during a retire does not let the retired code in when it is back."""
    ring = ring_of()
    one = ring.machines[0]
    one.stop()
    ring.promote(V2, ring.machines[1:])
    ring.retire(V1, ring.machines[1:])
    ring.beats(ring.machines[1:])
    one.start()
    ring.beats([one])
    assert one.vault.charter(ring.key).version == 3
    with pytest.raises(NotApprovedError):
        ring.release(one, V1)
    assert ring.release(one, V2).version == 3


@pytest.mark.req("I6")
def test_a_birth_that_was_missed_is_taken_too(ring_of):
    """With the receipts of the others, long after the birth statement ended."""
    ring = ring_of()
    one, rest = ring.machines[0], ring.machines[1:]
    body = ring.statements[0].statement.body
    second = signed(composer(ring.now, "second").birth(body))
    one.stop()
    for machine in rest:
        machine.vault.take(run_of(second))
    ring.passes(90 * 24 * 3600)
    ring.beats(rest)
    one.start()
    with pytest.raises(KeyNotBornError):
        one.vault.charter(second.digest)
    ring.beats([one])
    assert one.vault.charter(second.digest).version == 1


def test_strangers_are_not_remembered(ring_of):
    """Who shares no key is answered nothing, so nobody fills a vault's memory."""
    ring = ring_of()
    other = ring_of(3, 2)
    stranger = other.machines[0]
    asked = stranger.standing.ask(other.machines[1].id, 0)
    with pytest.raises(RoleDeniedError):
        ring.machines[0].vault.witness(asked.request)


# --- rollback ---------------------------------------------------------------------------


@pytest.mark.req("I6", "R2.1")
@pytest.mark.parametrize(("backend", "m"), cases([0, 1], [1]), indirect=["backend"])
@pytest.mark.usefixtures("backend")
def test_an_older_disk_is_quarantined(ring_of, tmp_path, m):
    """It releases nothing for as long as it runs, and says how far it is behind."""
    ring = ring_of(m=m)
    one = ring.machines[0]
    disk = one.disk(tmp_path / "old")
    ring.promote(V2)
    ring.retire(V1)
    ring.beats()
    size = one.log.head()[0]
    one.put_back(disk)
    with pytest.raises(VaultStartingError):
        ring.release(one, V1)
    with pytest.raises(QuarantinedError) as caught:
        ring.beat(one, ring.machines[1])
    assert caught.value.members["witnessed"] == size
    ring.beats()
    for act in (lambda: ring.release(one, V1), lambda: ring.release(one, V2)):
        with pytest.raises(QuarantinedError) as caught:
            act()
        assert caught.value.members["reason"] == "rolled-back"
        assert str(size) in caught.value.detail
    report = one.vault.status("n" * 43).standing
    assert (report.state, report.reason, report.witnessed) == ("quarantined", "rolled-back", size)
    with pytest.raises(QuarantinedError):
        one.vault.witness(ring.machines[1].standing.ask(one.id, 0).request)
    assert (ring.shares(V1), ring.shares(V2)) == (0, 4)


@pytest.mark.req("I6", "R2.1")
@pytest.mark.usefixtures("backend")
def test_one_answer_is_enough_to_know(ring_of, tmp_path):
    """However many stale ones vouch for it, one that knows better takes it down."""
    ring = ring_of(5, 3)
    disks = [m.disk(tmp_path / m.name) for m in ring.machines[:4]]
    ring.retire(V1)
    ring.beats()
    for machine, disk in zip(ring.machines, disks, strict=False):
        machine.put_back(disk)
    stale = ring.machines[:4]
    ring.beats(stale, stale)
    assert ring.shares(V1) == 4  # as the table says: 4 stale vaults, cut off from the fifth
    ring.beats(stale)
    assert ring.shares(V1) == 0


SETS = [(3, 2, 0), (3, 2, 1), (5, 3, 0), (5, 3, 1), (3, 2, 3), (5, 3, 4)]


@pytest.mark.req("R2.5", "I6")
@pytest.mark.parametrize(
    ("backend", "n", "k", "m"), cases(SETS, [(3, 2, 0), (3, 2, 1)]), indirect=["backend"]
)
@pytest.mark.usefixtures("backend")
def test_who_must_be_stale_for_retired_code_to_get_in(ring_of, tmp_path, n, k, m):
    """Stale vaults that reach only each other, and witnesses that repeat what they are told.

    What must happen is computed: the retired code gets k shares if s of n vaults are stale
    and c of m witnesses lie, where those are at least q others, one of them from outside.
    """
    ring = ring_of(n, k, m)
    old = [x.disk(tmp_path / "old" / x.name) for x in ring.machines]
    ring.retire(V1)
    ring.beats()
    new = [x.disk(tmp_path / "new" / x.name) for x in ring.machines]
    seen = []
    for s, c in itertools.product(range(k - 1, n + 1), range(m + 1)):
        others = n - 1 + m
        q = min(max(k, others // 2 + 1), others)
        stands = s - 1 + c >= q and (c > 0 or m == 0)
        for i, machine in enumerate(ring.machines):
            machine.put_back(old[i] if i < s else new[i])
        liars, stale = ring.witnesses[:c], ring.machines[:s]
        for witness in ring.witnesses:
            witness.lies = witness in liars
        ring.beats(stale, [*stale, *liars])
        ring.beats(ring.machines[s:], [*ring.machines[s:], *ring.witnesses[c:]])
        got = ring.shares(V1)
        assert got == (s if stands else 0), (s, c)
        seen.append((s, c, got >= k))
        # And once the network heals, whoever is honest takes the stale ones down.
        if s < n or c < m:
            for witness in ring.witnesses:
                witness.lies = witness in liars
            ring.beats(stale)
            assert ring.shares(V1) == 0, (s, c)
    broken = [(s, c) for s, c, got in seen if got]
    if m:
        # R2.5: k - 1 stale vaults, then all n: with an honest witness outside, nothing.
        assert (n, 0) not in broken
    assert all(s >= k for s, _ in broken)


# --- clones -----------------------------------------------------------------------------


@pytest.mark.req("I6", "R2.3")
@pytest.mark.usefixtures("backend")
def test_a_clone_that_starts_later_displaces(ring_of, tmp_path):
    """The other one is told when it next asks; each start that stood is in the log once."""
    ring = ring_of()
    one = ring.machines[0]
    clone = one.copy(tmp_path / "clone")
    ring.beats([clone])
    assert ring.release(clone, V1)
    assert boots(clone) == 2
    with pytest.raises(QuarantinedError) as caught:
        ring.beat(one, ring.machines[1])
    assert caught.value.members["reason"] in {"rolled-back", "displaced"}
    with pytest.raises(QuarantinedError):
        ring.release(one, V1)
    assert boots(one) == 1
    clone.stop()


@pytest.mark.req("I6", "R2.3")
@pytest.mark.usefixtures("backend")
def test_a_clone_that_is_cut_off_stops_with_its_lease(ring_of, tmp_path):
    """Its host lets it hear nothing: that is enough."""
    ring = ring_of()
    one = ring.machines[0]
    clone = one.copy(tmp_path / "clone")
    ring.beats([clone])
    assert ring.release(one, V1)
    for _ in range(10):
        ring.passes(LEASE / 10)
        ring.beats([clone, *ring.machines[1:]])
    ring.passes(1)
    with pytest.raises(VaultStartingError) as caught:
        ring.release(one, V1)
    assert caught.value.members["reason"] == "lease"
    assert ring.release(clone, V1)
    clone.stop()


@pytest.mark.req("I6", "R2.3")
@pytest.mark.parametrize(("backend", "split"), cases([0, 1, 2, 3, 4], [1, 2]), indirect=["backend"])
@pytest.mark.usefixtures("backend")
def test_of_two_copies_that_race_one_at_most_stands(ring_of, tmp_path, split):
    """Both start from one disk at once; each reaches some of the others first."""
    ring = ring_of()
    one, others = ring.machines[0], ring.machines[1:]
    one.stop()
    copies = [one.copy(tmp_path / "a"), one.copy(tmp_path / "b")]
    ring.beats([copies[0]], others[:split])
    ring.beats([copies[1]], others[split:])
    ring.beats([copies[0]], others[split:])
    ring.beats([copies[1]], others[:split])
    standing = [c for c in copies if c.standing.report().state == "standing"]
    assert len(standing) <= 1
    assert len(standing) == (split != 2)
    assert [boots(c) for c in standing] == [2] * len(standing)
    for copy in copies:
        copy.stop()


@pytest.mark.req("R2.4")
@pytest.mark.usefixtures("backend")
def test_two_histories_leave_a_proof(ring_of, tmp_path):
    """The copy and the original each go on; a witness that hears both keeps what they signed."""
    ring = ring_of()
    one, witness = ring.machines[0], ring.machines[1]
    clone = one.copy(tmp_path / "clone")
    ring.release(one, V1)  # which no witness hears of
    ring.beats([clone])  # logs its start, in the same place
    ring.beats([clone])
    assert one.log.head()[0] == clone.log.head()[0]
    with pytest.raises(QuarantinedError):
        ring.beat(one, witness)
    proof = witness.vault._witnessing.fork_of(one.id)
    first, second = check_fork_proof(proof)
    assert {first.root, second.root} == {one.log.head()[1], clone.log.head()[1]}
    clone.stop()


# --- leases -----------------------------------------------------------------------------


@pytest.mark.req("R2.8", "I6")
@pytest.mark.usefixtures("backend")
def test_witnesses_are_away(ring_of):
    """Releases go on until the lease ends, and again when they are back."""
    ring = ring_of(3, 2, 1)
    [witness] = ring.witnesses
    ring.passes(60)
    ring.beats()
    witness.up = False
    for _ in range(9):
        ring.passes(60)
        ring.beats()
        assert ring.shares(V1) == 3
    ring.passes(61)
    ring.beats()
    assert ring.shares(V1) == 0
    with pytest.raises(VaultStartingError) as caught:
        ring.release(ring.machines[0], V1)
    assert caught.value.members["waiting"] == [witness.id]
    witness.up = True
    ring.beats()
    assert ring.shares(V1) == 3


@pytest.mark.req("R2.6", "R2.8")
def test_a_clock_that_stands_still_lengthens_no_lease(ring_of):
    """Of the host's clock and the one that nobody sets, whichever says so first."""
    ring = ring_of()
    one = ring.machines[0]
    one.clock.running += LEASE + 1
    with pytest.raises(VaultStartingError):
        ring.release(one, V1)
    two = ring.machines[1]
    two.clock.wall += LEASE + 1
    with pytest.raises(VaultStartingError):
        ring.release(two, V1)


# --- clocks -----------------------------------------------------------------------------


@pytest.mark.req("R2.6")
@pytest.mark.parametrize(
    ("backend", "wall"),
    cases([0, 4_102_444_800], [4_102_444_800]),
    indirect=["backend"],
    ids={0: "1970", 4_102_444_800: "2100"}.get,
)
@pytest.mark.usefixtures("backend")
def test_a_start_in_another_year_takes_and_lets_go_nothing(ring_of, wall):
    """Not what expired, nor what is to come; when the host is set right, it goes on."""
    ring = ring_of()
    one = ring.machines[0]
    late = signed(composer(ring.now).promote(ring.policy, promote_body(ring.policy, V2)))
    one.stop()
    ring.passes(40 * 24 * 3600)
    ring.beats(ring.machines[1:])
    right, one.clock.wall = one.clock.wall, wall
    one.start()
    ring.beats()
    for act in (lambda: ring.release(one, V1), lambda: one.vault.take(run_of(late))):
        with pytest.raises(VaultStartingError) as caught:
            act()
        assert caught.value.members["reason"] == "clock"
    one.clock.wall = right
    ring.beats()
    assert abs(one.time.now() - right) <= 1
    assert ring.release(one, V1)
    with pytest.raises(ApprovalExpiredError):
        one.vault.take(run_of(late))


@pytest.mark.req("R2.6")
def test_a_host_that_sets_its_clock_meanwhile_changes_no_time(ring_of):
    """To 1970, to 2100, back and forth: the vault's time runs on; no lease gets longer."""
    ring = ring_of()
    one = ring.machines[0]
    started = one.time.now()
    for i, wall in enumerate((0, 4_102_444_800, 1, 4_102_444_800), 1):
        ring.passes(60)
        one.clock.wall = wall
        assert one.time.now() == started + 60 * i
        ring.beats()
        assert one.time.now() == started + 60 * i
        assert ring.release(one, V1)
    ring.passes(LEASE + 1)
    one.clock.wall = 0
    with pytest.raises(VaultStartingError):
        ring.release(one, V1)


@pytest.mark.req("R2.6")
def test_a_clock_ahead_ends_no_delay(ring_of):
    """A vault ahead of k others by more than is allowed has no say; by less, by that much."""
    ring = ring_of()
    one = ring.machines[0]
    one.stop()
    one.clock.wall += MAX_SKEW - 5
    one.start()
    ring.beats()
    assert ring.release(one, V1)
    one.stop()
    one.clock.wall += 10
    one.start()
    ring.beats()
    with pytest.raises(VaultStartingError) as caught:
        ring.release(one, V1)
    assert caught.value.members["reason"] == "clock"


@pytest.mark.req("R2.6")
@pytest.mark.usefixtures("backend")
def test_time_never_goes_back_over_a_restart(ring_of):
    """Not before the last log entry, whatever the host says."""
    ring = ring_of()
    one = ring.machines[0]
    last = one.log.time
    one.stop()
    one.clock.wall = 0
    one.start()
    assert one.time.now() == last
