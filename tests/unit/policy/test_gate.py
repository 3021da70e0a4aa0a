"""The gate's table: who gets a share, and every way to be refused (spec/03, section 5).

Each row starts from the same story: the owner's key is born with version 1, version 2 is
promoted, version 1 retired, the floor is at 2; then one thing is different.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest
from placet_testing.charters import (
    ANCHOR,
    FAMILY,
    NOW,
    UP_TO_DATE,
    birth_body,
    composer,
    identity,
    profile,
    signed,
    with_claims,
)

from placet.client.signing import promote_body
from placet.core.attestation import AttestedIdentity, TcbState, keys_digest
from placet.core.profile import (
    Profile,
    SgxMeasurement,
    SnpMeasurement,
    TcbRules,
    TdxMeasurement,
    code_id,
    host_data_of,
)
from placet.errors import (
    BindingError,
    EvidenceStaleError,
    NotApprovedError,
    PlacetError,
    RoleDeniedError,
    TcbError,
)
from placet.policy.charter import replay
from placet.policy.gate import decide_release
from placet.policy.key_policy import Approval, KeyPolicy
from placet.policy.match import match_any, match_platform

V1, V2, V3 = profile(1), profile(2, security_version=2), profile(3, security_version=3)
OTHER_KEY = "sha256:" + "0f" * 32


def story(approved: Profile = V2) -> KeyPolicy:
    """Return the policy after birth, promote of ``approved`` and retire of version 1."""
    birth = signed(composer().birth(birth_body()))
    policy = replay([birth])
    body = msgspec.structs.replace(promote_body(policy, approved), security_version_floor=2)
    promote = signed(composer().promote(policy, body))
    retire = signed(composer().retire(replay([birth, promote]), code_id(V1), "old"))
    return replay([birth, promote, retire])


POLICY = story()
KEY = POLICY.key
GOOD = TcbState(status="UpToDate", advisories=(), evaluation=20, date=NOW)


def shows(**changes: object) -> AttestedIdentity:
    """Return version 2's identity with other registers."""
    who = identity(V2, (KEY,))
    measurement = msgspec.structs.replace(who.evidence.measurement, **changes)
    return replace(who, evidence=replace(who.evidence, measurement=measurement))


def tcb(**changes: object) -> AttestedIdentity:
    """Return version 2's identity on another platform."""
    return identity(V2, (KEY,), tcb=msgspec.structs.replace(GOOD, **changes))


def rules(**changes: object) -> KeyPolicy:
    """Return the policy with version 2 approved under other TCB rules."""
    return story(msgspec.structs.replace(V2, tcb=msgspec.structs.replace(UP_TO_DATE, **changes)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What differs from the story, and the refusal that is expected."""

    expect: type[PlacetError] | None = None
    check: str | None = None
    who: AttestedIdentity = field(default_factory=lambda: identity(V2, (KEY,)))
    policy: KeyPolicy = POLICY
    keys: tuple[str, ...] = (KEY,)
    purpose: str = "release"
    age: float = 60.0
    now: int = NOW


def until(moment: int) -> KeyPolicy:
    """Return the policy with an end to version 2's approval."""
    first, *rest = POLICY.approvals
    return replace(POLICY, approvals=(replace(first, until=moment), *rest))


def advisories(*names: str) -> AttestedIdentity:
    """Return version 2's identity on a platform under these advisories."""
    return tcb(advisories=names)


def sgx_policy(**wanted: object) -> KeyPolicy:
    """Return the policy with an SGX profile approved besides."""
    approved = sgx_profile(**wanted)
    more = Approval(profile=approved, code=code_id(approved), statement=POLICY.head, until=None)
    return replace(POLICY, approvals=(*POLICY.approvals, more))


def sgx_profile(**wanted: object) -> Profile:
    """Return an SGX profile, narrowed by what is given."""
    bare = SgxMeasurement(mrenclave="e1" * 32, mrsigner=None, isv_prod_id=None, isv_svn=None)
    return msgspec.structs.replace(V2, measurement=msgspec.structs.replace(bare, **wanted))


SGX = identity(sgx_profile(mrsigner="51" * 32, isv_prod_id=7, isv_svn=3), (KEY,))

SNP_PROFILE = msgspec.structs.replace(
    V2,
    measurement=SnpMeasurement(
        measurement="a1" * 48,
        host_data=host_data_of(V2.config, V2.image),
        vmpl=0,
        policy="0000000000030000",
        id_key_digest=None,
        author_key_digest=None,
        guest_svn=None,
    ),
)


def snp(*, narrowed: dict[str, object] | None = None, **wanted: object) -> KeyPolicy:
    """Return the policy with an SNP profile approved besides, narrowed and under other rules."""
    rules_ = msgspec.structs.replace(SNP_PROFILE.tcb, statuses=("Unrated",), **wanted)
    measurement = msgspec.structs.replace(SNP_PROFILE.measurement, **(narrowed or {}))
    approved = msgspec.structs.replace(SNP_PROFILE, tcb=rules_, measurement=measurement)
    more = Approval(profile=approved, code=code_id(approved), statement=POLICY.head, until=None)
    return replace(POLICY, approvals=(*POLICY.approvals, more))


def amd(vmpl: int = 0, **changes: object) -> AttestedIdentity:
    """Return an SNP guest's identity."""
    measurement = msgspec.structs.replace(
        SNP_PROFILE.measurement,
        vmpl=vmpl,
        id_key_digest="1d" * 48,
        author_key_digest="a0" * 48,
        guest_svn=3,
    )
    who = identity(
        msgspec.structs.replace(SNP_PROFILE, measurement=measurement),
        (KEY,),
        tcb=TcbState(status="Unrated", advisories=(), evaluation=20, date=0),
    )
    shown = {
        "families": ("milan", "19", "1901"),
        "reported_tcb": "04000000000018db",
        "features": frozenset({"ecc", "tsme"}),
        **changes,
    }
    return replace(who, evidence=replace(who.evidence, **shown))


def overdue(seconds: int) -> AttestedIdentity:
    """Return version 2's identity by collateral that ended so long ago."""
    who = identity(V2, (KEY,))
    return replace(who, evidence=replace(who.evidence, overdue=seconds))


CASES = {
    "snp: a guest on a good platform": Case(policy=snp(), who=amd()),
    "snp: exactly the lowest version": Case(policy=snp(min_tcb="04000000000018db"), who=amd()),
    "snp: all features, in any order": Case(policy=snp(features=("tsme", "ecc")), who=amd()),
    "snp: another product is denied": Case(policy=snp(denied_families=("genoa", "1A")), who=amd()),
    "snp: narrowed to what it has": Case(
        policy=snp(narrowed={"id_key_digest": "1d" * 48, "guest_svn": 2}), who=amd()
    ),
    "fail: snp: a status that only AMD has, not named": Case(
        expect=TcbError, check="tcb-status", policy=rules(), who=tcb(status="Unrated")
    ),
    "fail: snp: one byte of the version is lower": Case(
        expect=TcbError, check="tcb-floor", policy=snp(min_tcb="04000000000019db"), who=amd()
    ),
    "fail: snp: another byte of it is higher": Case(
        expect=TcbError,
        check="tcb-floor",
        policy=snp(min_tcb="04000000000018dc"),
        who=amd(reported_tcb="05000000000019db"),
    ),
    "fail: a floor, and no version at all": Case(
        expect=TcbError, check="tcb-floor", policy=rules(min_tcb="00" * 8)
    ),
    "fail: snp: product denied, in capitals": Case(
        expect=TcbError, check="family", policy=snp(denied_families=("Milan",)), who=amd()
    ),
    "fail: snp: CPU family denied": Case(
        expect=TcbError, check="family", policy=snp(denied_families=("19",)), who=amd()
    ),
    "fail: snp: family and model denied": Case(
        expect=TcbError, check="family", policy=snp(denied_families=("1901",)), who=amd()
    ),
    "fail: snp: a feature is missing": Case(
        expect=TcbError, check="features", policy=snp(features=("smt-disabled",)), who=amd()
    ),
    "fail: snp: another VMPL is other code": Case(
        expect=NotApprovedError, policy=snp(), who=amd(vmpl=1)
    ),
    "fail: snp: a VMPL beyond the rules": Case(
        expect=TcbError,
        check="vmpl",
        policy=snp(narrowed={"vmpl": 2}, max_vmpl=1),
        who=amd(vmpl=2),
    ),
    "snp: a VMPL within the rules": Case(
        policy=snp(narrowed={"vmpl": 2}, max_vmpl=2), who=amd(vmpl=2)
    ),
    "fail: snp: another id key": Case(
        expect=TcbError,
        check="id-key-digest",
        policy=snp(narrowed={"id_key_digest": "1e" * 48}),
        who=amd(),
    ),
    "fail: snp: another author key": Case(
        expect=TcbError,
        check="author-key-digest",
        policy=snp(narrowed={"author_key_digest": "1e" * 48}),
        who=amd(),
    ),
    "fail: snp: an old guest": Case(
        expect=TcbError, check="guest-svn", policy=snp(narrowed={"guest_svn": 4}), who=amd()
    ),
    "collateral that ended within the grace": Case(policy=rules(grace=60), who=overdue(60)),
    "fail: collateral that ended before the grace": Case(
        expect=TcbError, check="collateral-ended", policy=rules(grace=60), who=overdue(61)
    ),
    "fail: collateral that ended, and no grace": Case(
        expect=TcbError, check="collateral-ended", who=overdue(1)
    ),
    "approved code on a good platform": Case(),
    "the last second before its end": Case(policy=until(NOW + 1)),
    "one key among several it attested for": Case(
        keys=(KEY, OTHER_KEY), who=identity(V2, (KEY, OTHER_KEY))
    ),
    "an advisory that is not denied": Case(who=advisories("INTEL-SA-1")),
    "a listed machine": Case(
        policy=rules(hardware_ids=("m1",)), who=identity(V2, (KEY,), hardware_id="m1")
    ),
    "sgx: nothing narrowed": Case(policy=sgx_policy(), who=SGX),
    "sgx: narrowed, and fits": Case(
        policy=sgx_policy(mrsigner="51" * 32, isv_prod_id=7, isv_svn=3), who=SGX
    ),
    # --- code ---------------------------------------------------------------------------
    "fail: code that nobody approved": Case(expect=NotApprovedError, who=identity(V3, (KEY,))),
    "fail: retired code": Case(expect=NotApprovedError, who=identity(V1, (KEY,))),
    "fail: the very second of its end": Case(expect=NotApprovedError, policy=until(NOW)),
    "fail: approved, and below a floor that rose": Case(
        expect=NotApprovedError, policy=replace(POLICY, floor=3)
    ),
    "fail: nothing is approved": Case(
        expect=NotApprovedError, policy=replace(POLICY, approvals=())
    ),
    "fail: another runtime under an approved image": Case(
        expect=NotApprovedError, who=shows(mrtd="00" * 48)
    ),
    "fail: another image under an approved name": Case(
        expect=NotApprovedError, who=shows(rtmr3="00" * 48)
    ),
    "fail: image claimed, register of another": Case(
        expect=NotApprovedError, who=with_claims(identity(V3, (KEY,)), image=V2.image)
    ),
    "fail: another config": Case(
        expect=NotApprovedError,
        who=with_claims(identity(V2, (KEY,)), config="sha384:" + "00" * 48),
    ),
    "fail: another config register": Case(
        expect=NotApprovedError, who=shows(mr_config_id="00" * 48)
    ),
    "fail: another firmware": Case(expect=NotApprovedError, who=shows(rtmr0="01" * 48)),
    "fail: another kernel": Case(expect=NotApprovedError, who=shows(rtmr1="01" * 48)),
    "fail: another initrd": Case(expect=NotApprovedError, who=shows(rtmr2="01" * 48)),
    "fail: other attributes": Case(expect=NotApprovedError, who=shows(td_attributes="01" * 8)),
    "fail: other extended features": Case(expect=NotApprovedError, who=shows(xfam="01" * 8)),
    "fail: another app's name": Case(
        expect=NotApprovedError, who=with_claims(identity(V2, (KEY,)), app="mail")
    ),
    "fail: the same digits in capitals": Case(
        expect=NotApprovedError, who=with_claims(identity(V2, (KEY,)), image=V2.image.upper())
    ),
    "fail: sgx: another enclave": Case(
        expect=NotApprovedError,
        policy=sgx_policy(mrenclave="e2" * 32),
        who=SGX,
    ),
    # --- binding ------------------------------------------------------------------------
    "fail: a vault asks": Case(
        expect=RoleDeniedError, who=replace(identity(V2, (KEY,)), role="vault")
    ),
    "fail: a resharer asks": Case(
        expect=RoleDeniedError, who=replace(identity(V2, (KEY,)), role="resharer")
    ),
    "fail: evidence made to create": Case(
        expect=BindingError, who=identity(V2, (KEY,), purpose="create")
    ),
    "fail: creation by evidence made to release": Case(expect=BindingError, purpose="create"),
    "fail: evidence for another key": Case(
        expect=BindingError, keys=(OTHER_KEY,), who=identity(V2, (OTHER_KEY,))
    ),
    "fail: keys listed that the evidence does not name": Case(
        expect=BindingError, keys=(KEY, OTHER_KEY)
    ),
    "fail: no keys": Case(expect=BindingError, keys=()),
    "fail: evidence a moment too old": Case(expect=EvidenceStaleError, age=60.1),
    # --- platform -----------------------------------------------------------------------
    "fail: another root": Case(
        expect=TcbError,
        check="anchor",
        who=identity(V2, (KEY,), anchor="software:" + "cd" * 32),
    ),
    "fail: intel's root where software was named": Case(
        expect=TcbError, check="anchor", who=identity(V2, (KEY,), anchor="intel")
    ),
    "fail: status out of date": Case(
        expect=TcbError, check="tcb-status", who=tcb(status="OutOfDate")
    ),
    "fail: status revoked": Case(expect=TcbError, check="tcb-status", who=tcb(status="Revoked")),
    "fail: status empty": Case(expect=TcbError, check="tcb-status", who=tcb(status="")),
    "fail: an old evaluation": Case(
        expect=TcbError, check="tcb-evaluation", policy=rules(min_evaluation=21)
    ),
    "fail: a denied advisory": Case(
        expect=TcbError,
        check="advisory-denied",
        policy=rules(denied_advisories=("INTEL-SA-1",)),
        who=advisories("INTEL-SA-0", "INTEL-SA-1"),
    ),
    "fail: an advisory that is not allowed": Case(
        expect=TcbError,
        check="advisory-not-allowed",
        policy=rules(allowed_advisories=("INTEL-SA-0",)),
        who=advisories("INTEL-SA-0", "INTEL-SA-1"),
    ),
    "fail: a denied family": Case(
        expect=TcbError, check="family", policy=rules(denied_families=(FAMILY,))
    ),
    "fail: a machine that is not listed": Case(
        expect=TcbError,
        check="hardware-id",
        policy=rules(hardware_ids=("m1",)),
        who=identity(V2, (KEY,), hardware_id="m2"),
    ),
    "fail: a machine without a name": Case(
        expect=TcbError, check="hardware-id", policy=rules(hardware_ids=("m1",))
    ),
    "fail: sgx: another signer": Case(
        expect=TcbError, check="mrsigner", policy=sgx_policy(mrsigner="52" * 32), who=SGX
    ),
    "fail: sgx: another product": Case(
        expect=TcbError, check="isv-prod-id", policy=sgx_policy(isv_prod_id=8), who=SGX
    ),
    "fail: sgx: an old svn": Case(
        expect=TcbError, check="isv-svn", policy=sgx_policy(isv_svn=4), who=SGX
    ),
}


@pytest.mark.req("I1")
@pytest.mark.req("I9")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decide_release(case: Case) -> None:
    """Each row is a release, or the refusal that is named."""

    def decide() -> Approval:
        return decide_release(
            case.policy,
            case.who,
            purpose=case.purpose,  # type: ignore[arg-type]
            keys=case.keys,
            age=case.age,
            max_age=60.0,
            now=case.now,
        )

    if case.expect is None:
        assert decide().code == code_id(decide().profile)
        return
    with pytest.raises(case.expect) as refused:
        decide()
    assert type(refused.value) is case.expect
    if case.check is not None:
        assert refused.value.members["check"] == case.check


@pytest.mark.req("I1")
def test_a_refusal_names_the_code_and_what_to_type() -> None:
    """Whoever is refused learns which code it was and what the owner can do."""
    with pytest.raises(NotApprovedError) as refused:
        decide_release(
            POLICY, identity(V3, (KEY,)), purpose="release", keys=(KEY,), age=0, max_age=60, now=NOW
        )
    assert refused.value.members["code"] == code_id(V3)
    assert f"placet review {KEY} {code_id(V3)}" in refused.value.hint


REGISTERS = [f.name for f in msgspec.structs.fields(TdxMeasurement)]


@pytest.mark.req("I1")
@pytest.mark.parametrize("register", REGISTERS)
def test_every_register_is_part_of_the_code(register: str) -> None:
    """No field that measures code is a wildcard: one flipped bit is other code."""
    was = getattr(V2.measurement, register)
    flipped = f"{int(was[0], 16) ^ 1:x}{was[1:]}"
    with pytest.raises(NotApprovedError):
        decide_release(
            POLICY,
            shows(**{register: flipped}),
            purpose="release",
            keys=(KEY,),
            age=0,
            max_age=60,
            now=NOW,
        )


@pytest.mark.req("I1")
def test_of_several_profiles_only_those_of_this_code_count() -> None:
    """A profile that accepts the platform is none for other code; the first that fits is it."""
    who = identity(V2, (KEY,))
    assert match_any([V1, V2, V3], who) == V2
    for profiles in ([], [V1], [V1, V3]):
        with pytest.raises(NotApprovedError) as refused:
            match_any(profiles, who)
        assert refused.value.members["code"] == code_id(V2)
    strict = msgspec.structs.replace(V2, tcb=msgspec.structs.replace(UP_TO_DATE, min_evaluation=99))
    assert match_any([strict, V2], who) == V2
    with pytest.raises(TcbError):
        match_any([V1, strict], who)


def test_a_security_version_that_is_absent_is_lower_than_any() -> None:
    """Evidence that says none does not meet a profile that asks for one."""
    asks = sgx_profile(isv_svn=0)
    silent = replace(SGX.evidence, measurement=sgx_profile().measurement)
    with pytest.raises(TcbError) as refused:
        match_platform(asks, silent)
    assert refused.value.members["check"] == "isv-svn"


def test_the_digest_of_keys_is_of_the_sorted_list() -> None:
    """The order in which keys are listed does not matter, which they are does."""
    assert keys_digest((KEY, OTHER_KEY)) == keys_digest((OTHER_KEY, KEY))
    assert keys_digest((KEY,)) != keys_digest((OTHER_KEY,))


def test_tcb_rules_of_the_table_are_the_whole_record() -> None:
    """A rule that is added to profiles needs its row here."""
    assert {f.name for f in msgspec.structs.fields(TcbRules)} == {
        "statuses",
        "allowed_advisories",
        "denied_advisories",
        "denied_families",
        "hardware_ids",
        "min_evaluation",
        "min_tcb",
        "max_vmpl",
        "features",
        "grace",
    }
    assert ANCHOR in V2.anchor


@pytest.mark.req("R3.7")
@pytest.mark.parametrize("name", ["milan", "MILAN", "19", "1901"])
def test_a_family_of_cpus_is_denied_whatever_its_status(name: str) -> None:
    """A generation whose root leaked stays out, by product, family or model, or by FMSPC."""
    for policy, who in (
        (snp(denied_families=(name,)), amd()),
        (rules(denied_families=(FAMILY.upper(),)), identity(V2, (KEY,))),
    ):
        with pytest.raises(TcbError) as refused:
            decide_release(policy, who, purpose="release", keys=(KEY,), age=0, max_age=60, now=NOW)
        assert refused.value.members["check"] == "family"
