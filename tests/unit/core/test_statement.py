"""Statements: what opens, every contradiction that does not, and what an id is of."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    owner_of,
    person,
    profile,
    signed,
    vault_set,
)
from placet_testing.passkey import SoftwarePasskey

from placet.client.signing import promote_body
from placet.core.body import PromoteBody, StageBody
from placet.core.encoding import b64, decode, encode
from placet.core.limits import MAX_STATEMENT
from placet.core.profile import (
    SgxMeasurement,
    check_profile,
    check_vault_set,
    code_id,
    profile_id,
)
from placet.core.signer import Threshold, owner_fingerprint, signer_id
from placet.core.statement import SignedStatement, open_statement, statement_digest
from placet.errors import MalformedError, TooLargeError
from placet.policy.charter import Courier, take

BIRTH = signed(composer().birth(birth_body()))
POLICY, _ = take(None, [Courier(sent=BIRTH)], now=NOW)
PROMOTE = composer().promote(POLICY, promote_body(POLICY, profile(2)))
RETIRE = composer().retire(POLICY, code_id(profile(1)), "a hole")
STAGE = composer().stage(
    None,
    StageBody(profile=profile(2), version="2", source="c0ffee", provenance=None, review=None),
)
REVOKE = composer().revoke(POLICY.key, STAGE.digest, "a mistake")
ALL = {"birth": BIRTH, "promote": PROMOTE, "retire": RETIRE, "stage": STAGE, "revoke": REVOKE}


@pytest.mark.parametrize("sent", ALL.values(), ids=ALL.keys())
def test_statement_opens_to_what_was_composed(sent):
    """What travels opens to the same statement, bytes, digest and signatures."""
    assert open_statement(sent.signed()) == sent


@pytest.mark.parametrize("sent", ALL.values(), ids=ALL.keys())
def test_digest_is_of_the_labelled_bytes(sent):
    """D = SHA-256("placet-statement/1", a zero byte, JCS of the statement)."""
    expected = hashlib.sha256(b"placet-statement/1\0" + sent.payload).hexdigest()
    assert sent.digest == "sha256:" + expected == statement_digest(sent.payload)


def test_key_id_is_the_digest_of_the_birth():
    """A key names its own owner; everything later names the key."""
    assert BIRTH.key == BIRTH.digest == POLICY.key
    assert PROMOTE.key == RETIRE.key == REVOKE.key == POLICY.key


def test_signatures_are_no_part_of_the_digest():
    """More may be added later, and the chain does not change."""
    assert signed(BIRTH, "platform").digest == BIRTH.digest


def opened(sent, **changes):
    """Open the statement with some members changed or, by ``...``, left out."""
    members = json.loads(sent.payload) | changes
    kept = {name: value for name, value in members.items() if value is not ...}
    return open_statement(SignedStatement(payload=b64(encode(kept)), signatures=()))


def body(sent, **changes):
    """Return the statement's body with some members changed."""
    return json.loads(sent.payload)["body"] | changes


SHAPES = {
    "birth with a key": (BIRTH, {"key": BIRTH.digest}),
    "birth with a prev": (BIRTH, {"prev": BIRTH.digest}),
    "birth on a version": (BIRTH, {"base_version": 1}),
    "birth without a nonce": (BIRTH, {"nonce": ""}),
    "birth with a short nonce": (BIRTH, {"nonce": b64(bytes(31))}),
    "birth with a long nonce": (BIRTH, {"nonce": b64(bytes(33))}),
    "birth with a nonce of stray bits": (BIRTH, {"nonce": "A" * 42 + "B"}),
    "birth that ends as it starts": (BIRTH, {"expires_at": NOW, "issued_at": NOW}),
    "birth that ends before it starts": (BIRTH, {"expires_at": NOW - 1}),
    "birth before 1970": (BIRTH, {"issued_at": -1}),
    "birth at a fraction of a second": (BIRTH, {"issued_at": str(NOW)}),
    "birth of schema 2": (BIRTH, {"schema": 2}),
    "birth of schema 0": (BIRTH, {"schema": 0}),
    "birth of no schema": (BIRTH, {"schema": ...}),
    "birth of no type": (BIRTH, {"type": ...}),
    "birth of an unknown type": (BIRTH, {"type": "override"}),
    "birth called a promote": (BIRTH, {"type": "promote"}),
    "birth with a member more": (BIRTH, {"admin": True}),
    "birth with signatures inside": (BIRTH, {"signatures": []}),
    "birth without a label": (BIRTH, {"body": body(BIRTH, label="")}),
    "birth with a label too long": (BIRTH, {"body": body(BIRTH, label="x" * 201)}),
    "birth with a member more in its body": (BIRTH, {"body": body(BIRTH, auto_migrate=None)}),
    "promote without a key": (PROMOTE, {"key": None}),
    "promote without a prev": (PROMOTE, {"prev": None}),
    "promote on no version": (PROMOTE, {"base_version": 0}),
    "promote that says nothing of earlier ones": (PROMOTE, {"body": body(PROMOTE, earlier=None)}),
    "promote with a word of its own for them": (PROMOTE, {"body": body(PROMOTE, earlier="drop")}),
    "promote that keeps, and retires": (PROMOTE, {"body": body(PROMOTE, retire_at=NOW)}),
    "promote that retires now, and later": (
        PROMOTE,
        {"body": body(PROMOTE, earlier="retire", retire_at=NOW)},
    ),
    "promote that retires at no time": (PROMOTE, {"body": body(PROMOTE, earlier="retire-at")}),
    "promote with the body of a retire": (PROMOTE, {"body": body(RETIRE)}),
    "retire without a key": (RETIRE, {"key": None}),
    "retire without a prev": (RETIRE, {"prev": None}),
    "retire on no version": (RETIRE, {"base_version": 0}),
    "retire of what is no digest": (RETIRE, {"body": body(RETIRE, code="*")}),
    "stage with a prev": (STAGE, {"prev": BIRTH.digest}),
    "stage with a version": (STAGE, {"base_version": 1}),
    "stage with a short nonce": (STAGE, {"nonce": b64(bytes(8))}),
    "stage that ends before it starts": (STAGE, {"expires_at": NOW - 1}),
    "revoke with a prev": (REVOKE, {"prev": BIRTH.digest}),
}


@pytest.mark.parametrize(("sent", "changes"), SHAPES.values(), ids=SHAPES.keys())
def test_contradiction_is_refused(sent, changes):
    """A statement that does not make sense is none, whoever signed it."""
    assert opened(sent).digest == sent.digest
    with pytest.raises(MalformedError):
        opened(sent, **changes)


def test_every_way_to_treat_earlier_versions_opens():
    """Kept, retired now, retired at a time: each with the time that belongs to it."""
    for earlier, at in (("keep", None), ("retire", None), ("retire-at", NOW)):
        sent = opened(PROMOTE, body=body(PROMOTE, earlier=earlier, retire_at=at))
        assert isinstance(sent.statement.body, PromoteBody)
        assert (sent.statement.body.earlier, sent.statement.body.retire_at) == (earlier, at)


@pytest.mark.parametrize("depth", [500, 1100, 50_000])
def test_principals_inside_one_another_without_end_are_refused(depth):
    """A parser's recursion ends in the error that stands for malformed bytes."""
    inside = b'{"kind":"threshold","label":"","of":['
    raw = inside * depth + b'],"threshold":1}' * depth
    with pytest.raises(MalformedError):
        decode(raw, Threshold, limit=len(raw))


def test_statement_is_read_up_to_its_limit():
    """Length first: whatever is beyond 64 KiB is not parsed."""
    payload = b"\xff" * (MAX_STATEMENT + 1)
    with pytest.raises(TooLargeError):
        open_statement(SignedStatement(payload=b64(payload), signatures=()))
    with pytest.raises(MalformedError, match="does not parse"):
        open_statement(SignedStatement(payload=b64(payload[1:]), signatures=()))


def test_envelope_is_of_the_one_type():
    """What travels names its payload type, and there is one."""
    envelope = json.loads(encode(BIRTH.signed()))
    assert envelope["payload_type"] == "application/vnd.placet.statement.v1+json"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(envelope | {"payload_type": "text/plain"}, SignedStatement)


def test_payload_in_another_spelling_is_refused():
    """Base64 with stray bits would be the same bytes under another text."""
    with pytest.raises(MalformedError):
        open_statement(SignedStatement(payload=BIRTH.signed().payload + "=", signatures=()))


def test_owner_fingerprint_is_of_the_whole_principal():
    """Labels, order, threshold and every signer count: a config names one owner exactly."""
    one = owner_of(person("owner").signer)
    others = [
        msgspec.structs.replace(one, label="somebody"),
        owner_of(person("platform").signer),
        owner_of(person("owner").signer, person("platform").signer),
        owner_of(person("platform").signer, person("owner").signer),
        owner_of(person("platform").signer, person("owner").signer, threshold=2),
    ]
    assert len({owner_fingerprint(o) for o in [one, *others]}) == 1 + len(others)


def test_signer_id_is_of_the_key_alone():
    """A label, an origin or a screen does not make another signer of one key."""
    phone = SoftwarePasskey(name="phone").signer
    assert signer_id(phone) == signer_id(msgspec.structs.replace(phone, label="x", screen="page"))
    assert signer_id(phone) != signer_id(SoftwarePasskey(name="token").signer)


SGX = msgspec.structs.replace(
    profile(1),
    measurement=SgxMeasurement(mrenclave="0a" * 32, mrsigner="0b" * 32, isv_prod_id=1, isv_svn=2),
)
SAME_CODE = {
    "another anchor": {"anchor": "intel"},
    "another security version": {"security_version": 9},
    "other rules on platforms": {
        "tcb": msgspec.structs.replace(SGX.tcb, statuses=("OutOfDate",), min_evaluation=20)
    },
    "another signer of the enclave": {
        "measurement": msgspec.structs.replace(SGX.measurement, mrsigner=None, isv_svn=None)
    },
}
OTHER_CODE = {
    "another app": {"app": "else"},
    "another image": {"image": "sha256:" + "1" * 64},
    "another config": {"config": "sha384:" + "1" * 96},
    "another enclave": {
        "measurement": msgspec.structs.replace(SGX.measurement, mrenclave="0c" * 32)
    },
    "another kind of TEE": {"measurement": profile(1).measurement},
}


@pytest.mark.parametrize("changes", SAME_CODE.values(), ids=SAME_CODE.keys())
def test_retired_code_has_no_other_name(changes):
    """Nothing that a profile says about platforms changes which code it is about."""
    other = msgspec.structs.replace(SGX, **changes)
    assert code_id(other) == code_id(SGX)
    assert profile_id(other) != profile_id(SGX)


@pytest.mark.parametrize("changes", OTHER_CODE.values(), ids=OTHER_CODE.keys())
def test_other_code_has_another_id(changes):
    """Everything that measures code is in the code id."""
    assert code_id(msgspec.structs.replace(SGX, **changes)) != code_id(SGX)


TDX_REGISTERS = ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id"]


@pytest.mark.parametrize("register", TDX_REGISTERS)
def test_every_tdx_register_is_code(register):
    """A trust domain that differs in one register is other code."""
    one = profile(1)
    measurement = msgspec.structs.replace(one.measurement, **{register: "0d" * 48})
    assert code_id(msgspec.structs.replace(one, measurement=measurement)) != code_id(one)


def test_profile_that_nothing_could_match_is_refused():
    """No accepted status, no machine, or a config that the register contradicts."""
    one = profile(1)
    check_profile(one)
    check_profile(SGX)
    for tcb in ({"statuses": ()}, {"hardware_ids": ()}):
        with pytest.raises(MalformedError):
            check_profile(msgspec.structs.replace(one, tcb=msgspec.structs.replace(one.tcb, **tcb)))
    with pytest.raises(MalformedError, match="MRCONFIGID"):
        check_profile(msgspec.structs.replace(one, config="sha384:" + "0" * 96))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (3, 2), (5, 3), (5, 5), (32, 17)])
def test_vault_set_with_a_majority(n, k):
    """Any two sets of k vaults share one (I12)."""
    check_vault_set(vault_set(n, k))


@pytest.mark.parametrize(("n", "k"), [(2, 1), (4, 2), (3, 4), (32, 16)])
def test_vault_set_without_a_majority_is_refused(n, k):
    """2k > n, and k <= n: both sides of each bound."""
    with pytest.raises(MalformedError, match="I12"):
        check_vault_set(vault_set(n, k))


def test_vault_set_of_one_vault_twice_is_refused():
    """Nor is a set without a profile for its vaults."""
    one = vault_set(3, 2)
    twice = msgspec.structs.replace(one, vaults=(*one.vaults[:2], one.vaults[0]))
    with pytest.raises(MalformedError, match="twice"):
        check_vault_set(twice)
    with pytest.raises(MalformedError, match="no profile"):
        check_vault_set(msgspec.structs.replace(one, profiles=()))
