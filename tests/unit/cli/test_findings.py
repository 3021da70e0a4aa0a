"""What speaks against a candidate: one table, one row per thing an owner should know."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from placet_testing.charters import (
    birth_body,
    composer,
    profile,
    signed,
    vault_name,
)

from placet.cli.candidate import Candidate, findings
from placet.cli.forward import Forward
from placet.cli.look import Look, VaultState
from placet.client.charters import CharterView, Fork
from placet.core.messages import CourierItem
from placet.core.profile import Profile, TdxMeasurement, code_id
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay

BIRTH = signed(composer().birth(birth_body(floor=1)))


def looked(*sents: UntrustedStatement, versions: tuple[int, ...] = (), fork: bool = False) -> Look:
    """Return a charter of five vaults as if it had been read."""
    chain = (BIRTH, *sents)
    policy = replay(chain)
    states = tuple(
        VaultState(
            number=n,
            vault=vault_name(n),
            endpoint="-",
            state="current",
            version=versions[n - 1] if versions else policy.version,
            head=None,
            share=None,
            why=None,
        )
        for n in range(1, 6)
    )
    view = CharterView(
        policy=policy,
        items=tuple(CourierItem(signed=s.signed(), receipts=()) for s in chain),
        chains={},
        manifests={},
        wrong={},
        forks=(Fork(prev="sha256:a", children=("sha256:b", "sha256:c")),) if fork else (),
    )
    return Look(view, states)


RETIRED = signed(composer().retire(replay([BIRTH]), code_id(profile(1)), "old"))
NOTHING = Forward(staged=(), answered=(1, 2, 3, 4, 5), forged=())


def tdx(**changes: str) -> Profile:
    """Return version 2 with another register."""
    two = profile(2)
    measurement = two.measurement
    assert isinstance(measurement, TdxMeasurement)
    return msgspec.structs.replace(two, measurement=msgspec.structs.replace(measurement, **changes))


@dataclass(frozen=True)
class Case:
    """What was read, what is put forward, and what must be found."""

    found: tuple[str, ...]
    profile: Profile = field(default_factory=lambda: profile(2))
    before: Profile | None = field(default_factory=lambda: profile(1))
    look: Look = field(default_factory=looked)
    forward: Forward = NOTHING


CASES = {
    "a plain upgrade": Case(()),
    "forged": Case(("forged",), forward=Forward(staged=(), answered=(1,), forged=((2, "x"),))),
    "vaults at two versions": Case(("vaults-behind",), look=looked(versions=(1, 1, 1, 2, 2))),
    "a fork": Case(("fork",), look=looked(fork=True)),
    "retired code": Case(("retired", "nothing-to-compare"), profile(1), None, looked(RETIRED)),
    "approved already": Case(("approved-already", "nothing-to-compare"), profile(1), None),
    "approved code on other platforms": Case(
        ("looser-platform",),
        msgspec.structs.replace(
            profile(1),
            tcb=msgspec.structs.replace(profile(1).tcb, statuses=("UpToDate", "OutOfDate")),
        ),
    ),
    "below the floor": Case(("below-floor", "downgrade"), profile(2, security_version=0)),
    "something beside the image": Case(("image-not-measured",), tdx(rtmr3="ab" * 48)),
    "another app": Case(("other-app",), profile(2, app="photos")),
    "another root": Case(
        ("other-anchor",), msgspec.structs.replace(profile(2), anchor="software:" + "cd" * 32)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_findings(case):
    """Each row is one reason to look twice, and nothing else is said."""
    candidate = Candidate(profile=case.profile, staged=None, before=case.before)

    said = findings(case.look, case.forward, candidate, None)

    assert tuple(f.finding for f in said) == case.found
    assert all(f.text for f in said)


def test_the_owners_measurement_decides(tmp_path):
    """A build of one's own that differs in anything is found, and where it differs."""
    candidate = Candidate(profile=tdx(mrtd="ab" * 48), staged=None, before=profile(1))
    own = tmp_path / "own.json"
    own.write_bytes(msgspec.json.encode(profile(2)))

    [finding] = findings(looked(), NOTHING, candidate, own)

    assert finding.finding == "not-your-build"
    assert finding.text.endswith("different are: mrtd")
