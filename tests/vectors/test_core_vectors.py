"""The frozen vectors of the core, which were made without any code of ours."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from placet.core.attestation import (
    Context,
    app_report_data,
    exporter_context,
    keys_digest,
    report_data,
)
from placet.core.config import Config, config_digest
from placet.core.dsse import pae, vault_id
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.profile import Profile, code_id, profile_id
from placet.core.signer import Signer, Threshold, owner_fingerprint, signer_id
from placet.core.statement import SignedStatement, Statement, open_statement
from placet.core.words import six_words
from placet.errors import MalformedError

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "core"
FILES = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def cases(file: str, section: str):
    """Return one section's cases; none would be a test of nothing."""
    found = FILES[file][section]
    if not found:
        raise LookupError(f"{file} has no {section}")
    return found


def named(file: str, section: str, name: str = "name"):
    """Return the cases with what to call them."""
    return [pytest.param(case, id=str(case[name])) for case in cases(file, section)]


def test_the_folder_holds_what_is_tested():
    """A file that nothing reads, or a folder that moved, is a failure."""
    assert set(FILES) == {"attestation.json", "encoding.json", "ids.json", "statements.json"}


def opened(text: str):
    """Open a statement's text as it would be received."""
    signed = SignedStatement(payload=b64(text.encode(errors="surrogatepass")), signatures=())
    return open_statement(signed)


@pytest.mark.parametrize("case", named("encoding.json", "cases"))
def test_value_has_this_text(case):
    """Values to canonical text."""
    assert encode(case["value"]).decode() == case["canonical"]


@pytest.mark.parametrize("case", named("encoding.json", "refused"))
def test_text_is_refused(case):
    """Texts that are nearly a statement."""
    assert opened(FILES["encoding.json"]["statement"])
    with pytest.raises(MalformedError) as refusal:
        opened(case["text"])
    assert refusal.value.type == case["type"]


@pytest.mark.parametrize("case", named("statements.json", "cases", "type"))
def test_statement_and_all_that_follows_from_its_bytes(case):
    """Object, canonical text, digest, DSSE encoding and six words."""
    sent = opened(case["canonical"])
    value = msgspec.convert(case["statement"], Statement)
    assert (sent.statement, sent.payload) == (value, encode(value))
    assert sent.digest == case["digest"]
    assert pae(FILES["statements.json"]["payload_type"], sent.payload) == unb64(case["pae"])
    assert list(six_words(sent.digest)) == case["words"]


def read(value: object, shape):
    """Read an object from its canonical bytes, as everything received is."""
    return decode(encode(value), shape)


def test_digests_that_stand_for_objects():
    """Signers, owners, code, profiles, configs, vaults and lists of keys."""
    for case in cases("ids.json", "signers"):
        assert signer_id(read(case["signer"], Signer)) == case["id"]
    for case in cases("ids.json", "owners"):
        assert owner_fingerprint(read(case["owner"], Threshold)) == case["fingerprint"]
    for case in cases("ids.json", "profiles"):
        profile = read(case["profile"], Profile)
        assert (code_id(profile), profile_id(profile)) == (case["code_id"], case["profile_id"])
    for case in cases("ids.json", "configs"):
        assert config_digest(read(case["config"], Config)) == case["digest"]
    for case in cases("ids.json", "vaults"):
        assert vault_id(unb64(case["public_key"])) == case["id"]
    for case in cases("ids.json", "keys"):
        assert keys_digest(case["keys"]) == keys_digest(reversed(case["keys"])) == case["digest"]


def test_what_quotes_carry():
    """Report data of a workload's and a vault's context, exporter context, app's own data."""
    for case in cases("attestation.json", "contexts"):
        context = read(case["context"], Context)
        assert encode(context).decode() == case["canonical"]
        assert report_data(context).hex() == case["report_data"]
    for case in cases("attestation.json", "exporter_contexts"):
        nonces = unb64(case["verifier_nonce"]), unb64(case["prover_nonce"])
        context = exporter_context(*nonces, case["role"], case["direction"])
        assert context.hex() == case["context"]
    for case in cases("attestation.json", "app_reports"):
        assert app_report_data(unb64(case["data"])).hex() == case["report_data"]
