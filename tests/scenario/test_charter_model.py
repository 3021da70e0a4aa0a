"""Every order of events around three vaults that take, miss, expire and catch up.

An explicit-state model: a state is what each of n = 3 vaults has taken (k = 2) and
whether it is late; an event brings a vault one statement or lets the statements expire.
All reachable states are visited. The vaults' answers are those of the real `take`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    profile,
    signed,
    vault_key,
    vault_name,
    vault_set,
)

from placet.client.signing import promote_body
from placet.core.dsse import Signed, sign_record
from placet.core.messages import Taken
from placet.core.profile import code_id
from placet.core.statement import UntrustedStatement
from placet.errors import PlacetError
from placet.policy.charter import Courier, effective_at, replay, take
from placet.policy.key_policy import KeyPolicy

N, K = 3, 2
LATE = NOW + 40 * 86400
V1, V2, V3 = (profile(i) for i in (1, 2, 3))
BIRTH = signed(composer().birth(birth_body(vaults=vault_set(N, K))))
POLICY = replay([BIRTH])
PROMOTE = signed(composer().promote(POLICY, promote_body(POLICY, V2)))
RIVAL = signed(composer(seed="rival").promote(POLICY, promote_body(POLICY, V3)))
AFTER = replay([BIRTH, PROMOTE])
RETIRE = signed(composer().retire(AFTER, code_id(V1), "old"))
BY_DIGEST = {s.digest: s for s in (BIRTH, PROMOTE, RIVAL, RETIRE)}

Chain = tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What each vault has taken, and whether the statements have expired."""

    chains: tuple[Chain, ...]
    late: bool = False


@cache
def policy_of(chain: Chain) -> KeyPolicy | None:
    """Return the policy of a vault that took these."""
    return replay([BY_DIGEST[d] for d in chain]) if chain else None


@cache
def receipt(number: int, digest: str) -> Signed:
    """Return what vault ``number`` signed when it took a statement."""
    sent = BY_DIGEST[digest]
    return sign_record(
        Taken(
            vault=vault_name(number + 1),
            key=BIRTH.digest,
            statement=digest,
            version=sent.statement.base_version + 1,  # type: ignore[union-attr]
            index=0,
            time=NOW,
        ),
        vault_key(number + 1),
    )


def couriers(state: State, run: Chain) -> list[Courier]:
    """Return a run of statements with every receipt that exists in this state."""
    return [
        Courier(
            sent=BY_DIGEST[d],
            receipts=tuple(receipt(i, d) for i, chain in enumerate(state.chains) if d in chain),
        )
        for d in run
    ]


def taken(state: State, vault: int, run: Chain) -> State | None:
    """Return the state after a vault was brought a run, or nothing where it refuses."""
    before = state.chains[vault]
    now = LATE if state.late else NOW
    try:
        policy, _ = take(policy_of(before), couriers(state, run), now=now)
    except PlacetError:
        return None
    chains = list(state.chains)
    chains[vault] = policy.chain
    return State(tuple(chains), state.late)


def events(state: State) -> Iterator[tuple[str, State]]:
    """Yield everything that may happen next."""
    for vault in range(N):
        for digest in BY_DIGEST:
            after = taken(state, vault, (digest,))
            if after is not None and after != state:
                yield f"vault {vault} takes {digest[7:11]}", after
    if not state.late:
        yield "expired", State(state.chains, late=True)


def reachable() -> set[State]:
    """Return every state there is."""
    start = State(((),) * N)
    seen, queue = {start}, deque([start])
    while queue:
        for _, after in events(queue.popleft()):
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return seen


STATES = reachable()


def serves(state: State, code: str) -> int:
    """Return how many vaults would release to a code now."""
    policies = (policy_of(chain) for chain in state.chains)
    return sum(p is not None and code in {a.code for a in p.approvals} for p in policies)


def confirmed(state: State, sent: UntrustedStatement) -> int:
    """Return how many vaults took a statement."""
    return sum(sent.digest in chain for chain in state.chains)


@pytest.mark.req("I5")
def test_the_space_is_visited() -> None:
    """250 states, and every vault's chain in them starts at birth and is a line."""
    assert len(STATES) == 250
    lines = {(), *((BIRTH.digest, *rest) for rest in (
        (), (PROMOTE.digest,), (RIVAL.digest,), (PROMOTE.digest, RETIRE.digest)
    ))}  # fmt: skip
    assert {chain for state in STATES for chain in state.chains} == lines


@pytest.mark.req("I1")
def test_a_code_is_served_only_behind_its_approval() -> None:
    """At no vault, in no state, without the statement that lets it in."""
    for state in STATES:
        assert serves(state, code_id(V1)) <= confirmed(state, BIRTH)
        assert serves(state, code_id(V2)) <= confirmed(state, PROMOTE)
        assert serves(state, code_id(V3)) <= confirmed(state, RIVAL)


@pytest.mark.req("I12")
def test_once_a_retire_is_effective_k_vaults_never_serve_it_again() -> None:
    """From n-k+1 confirmations on, no continuation gives retired code k shares."""
    needed = effective_at(RETIRE.statement, vault_set(N, K))  # type: ignore[arg-type]
    assert needed == N - K + 1
    effective = [s for s in STATES if confirmed(s, RETIRE) >= needed]
    assert effective
    for state in effective:
        assert serves(state, code_id(V1)) < K
        for _, after in events(state):
            assert confirmed(after, RETIRE) >= needed
    # One confirmation less would not do: some state still serves it.
    assert any(confirmed(s, RETIRE) == needed - 1 and serves(s, code_id(V1)) >= K for s in STATES)


@pytest.mark.req("I12")
def test_a_promote_is_effective_at_k_and_not_before() -> None:
    """K confirmations serve it; k-1 never do."""
    for state in STATES:
        assert (serves(state, code_id(V2)) >= K) == (confirmed(state, PROMOTE) >= K)


@pytest.mark.req("I12")
def test_two_branches_are_never_both_releasable() -> None:
    """Rival promotes on one head: 2k > n lets at most one of them reach k vaults."""
    forked = [s for s in STATES if confirmed(s, PROMOTE) and confirmed(s, RIVAL)]
    assert forked
    for state in STATES:
        assert not (serves(state, code_id(V2)) >= K and serves(state, code_id(V3)) >= K)


@pytest.mark.req("I5")
def test_vaults_converge_without_a_fork_at_any_time() -> None:
    """Whoever carries statements and receipts brings every laggard to the longest branch.

    Expired ones too, as long as k vaults took them in time.
    """
    checked = 0
    for state in STATES:
        longest = max(state.chains, key=len)
        if any(chain != longest[: len(chain)] for chain in state.chains):
            continue
        if state.late and any(sum(d in chain for chain in state.chains) < K for d in longest):
            continue
        for vault in range(N):
            if longest:
                state = taken(state, vault, longest) or state  # noqa: PLW2901 - step by step
        assert set(state.chains) == {longest}
        checked += 1
    assert checked > 20


@pytest.mark.req("I14")
def test_nothing_is_ever_untaken_or_reordered() -> None:
    """Each event makes one vault's chain longer by one, and touches no other."""
    for state in STATES:
        for name, after in events(state):
            if name == "expired":
                assert after.chains == state.chains
                continue
            changed = [(a, b) for a, b in zip(state.chains, after.chains, strict=True) if a != b]
            assert len(changed) == 1
            assert changed[0][1][: len(changed[0][0])] == changed[0][0]
            assert len(changed[0][1]) == len(changed[0][0]) + 1
