"""Evidence in a certificate: one encoding, its own label, and a key that it is about."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import cbor2
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.serving import trust
from placet_testing.tee import Tee, dev_pki, vault_config, workload_config

from placet.attest.verify import bind, verify_evidence
from placet.core.attestation import CertificateClaims, Context, report_data
from placet.core.config import config_digest
from placet.core.encoding import b64, decode, encode
from placet.core.profile import SgxMeasurement
from placet.errors import (
    BindingError,
    EvidenceError,
    MalformedError,
    PlacetError,
    RoleDeniedError,
    TooLargeError,
)
from placet.ratls.certificate import (
    ALLOWED,
    MAX_CERTIFICATE,
    WITH_EVIDENCE,
    make_certificate,
    parse_certificate,
)
from placet.ratls.wrapper import (
    EVIDENCE_BIT,
    MAX_MESSAGE,
    MEDIA_TYPE,
    CertificateMessage,
    own_evidence,
    unwrap,
    verify_shown,
    wrap,
)

NOW = int(time.time())
OWNER = "sha256:" + "a1" * 32
VAULT = "sha256:" + "11" * 32
SPKI = "sha256:" + "22" * 32


def certificate(tee=None, *, staple=True, instance=VAULT, evidence_of=None):
    """Return a peer's certificate as it was read."""
    make = evidence_of or partial(own_evidence, tee or Tee(vault_config()), instance, staple=staple)
    _, cert = make_certificate(now=NOW, lifetime=3600, evidence_of=make)
    return parse_certificate(cert.public_bytes(Encoding.DER), allowed=WITH_EVIDENCE)


def message(spki=SPKI, tee=None):
    """Return what a vault's certificate would show."""
    return unwrap(own_evidence(tee or Tee(vault_config()), VAULT, spki, staple=True))


def record(raw, *, media=MEDIA_TYPE, indicator=EVIDENCE_BIT):
    """Return some bytes, wrapped by the CBOR library."""
    return cbor2.dumps([media, raw, indicator])


# --- what works -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vault", "workload"])
def test_anyone_sees_who_made_the_key(kind):
    """Role, app, image, config, start, measurement and platform, all of one evidence."""
    tee = Tee(vault_config() if kind == "vault" else workload_config(OWNER))
    peer = certificate(tee, instance="i-1")

    shown = verify_shown(peer, trust=trust(), now=NOW)

    assert (shown.claims.role, shown.claims.instance) == (kind, "i-1")
    assert shown.claims.spki == peer.spki_digest
    assert (shown.config, shown.claims.config) == (tee.config, config_digest(tee.config))
    assert shown.evidence.measurement == tee.bundle.measurement
    assert shown.evidence.report_data == report_data(shown.claims)


def test_the_extension_is_the_standard_record_and_not_critical():
    """Another CBOR reader finds media type, bytes and the indicator of evidence."""
    make = partial(own_evidence, Tee(vault_config()), VAULT)
    _, cert = make_certificate(now=NOW, lifetime=3600, evidence_of=make)
    (found,) = (e for e in cert.extensions if e.oid.dotted_string == "2.23.133.5.4.9")
    media, raw, indicator = cbor2.loads(found.value.value)

    assert (media, indicator, found.critical) == (MEDIA_TYPE, 4, False)
    assert wrap(decode(raw, CertificateMessage)) == found.value.value
    assert [e.oid.dotted_string for e in cert.extensions] == ["2.5.29.19", "2.23.133.5.4.9"]


def test_a_vault_leaves_collateral_to_the_verifier():
    """It is most of the bytes, and the whole then fits the first flight of a connection."""
    bare, whole = certificate(staple=False), certificate(staple=True)
    assert (unwrap(bare.evidence).evidence.collateral, len(bare.der) < 9000) == (None, True)
    with pytest.raises(EvidenceError) as refusal:
        verify_shown(bare, trust=trust(), now=NOW)
    assert refusal.value.members["reason"] == "collateral-missing"

    collateral = unwrap(whole.evidence).evidence.collateral

    def lending(evidence, **rest):
        return verify_evidence(msgspec.structs.replace(evidence, collateral=collateral), **rest)

    assert verify_shown(bare, trust=trust(), now=NOW, verify=lending).claims.instance == VAULT


def test_the_key_is_made_before_its_evidence():
    """What the callback gets is the digest of the very key that the certificate has."""
    asked = []
    make = partial(own_evidence, Tee(vault_config()), VAULT)
    key, cert = make_certificate(
        now=NOW, lifetime=60, evidence_of=lambda spki: asked.append(spki) or make(spki)
    )
    parsed = parse_certificate(cert.public_bytes(Encoding.DER), allowed=WITH_EVIDENCE)
    assert asked == [parsed.spki_digest]
    assert key.public_key() == cert.public_key()


# --- its label --------------------------------------------------------------------------


def context_like(claims):
    """Return a context that says all that the claims say."""
    return Context(
        role=claims.role,
        direction="server",
        spki=claims.spki,
        peer_spki=claims.spki,
        verifier_nonce=b64(bytes(32)),
        prover_nonce=b64(bytes(32)),
        exporter=b64(bytes(32)),
        instance=claims.instance,
        app=claims.app,
        image=claims.image,
        config=claims.config,
        purpose=None,
        keys=None,
        boot=claims.boot,
    )


@pytest.mark.req("R1.6")
@given(
    role=st.sampled_from(["vault", "workload", "resharer"]),
    texts=st.tuples(*[st.text(max_size=20)] * 3),
    digits=st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_certificate_evidence_is_never_that_of_a_session(role, texts, digits):
    """Whatever is claimed, the 64 bytes are another label's, and another protocol's."""
    instance, app, boot = texts
    claims = CertificateClaims(
        role=role,
        spki="sha256:" + digits,
        instance=instance,
        app=app,
        image="sha256:" + digits,
        config="sha384:" + digits + digits[:32],
        boot=boot,
    )
    assert report_data(claims) != report_data(context_like(claims))
    with pytest.raises(MalformedError):
        decode(encode(claims), Context)
    with pytest.raises(MalformedError):
        decode(encode(context_like(claims)), CertificateClaims)


def test_certificate_evidence_binds_no_session():
    """Genuine evidence of a certificate, put where an exchange wants its own."""
    shown = message()
    verified = verify_evidence(shown.evidence, trust=trust(), now=NOW)
    with pytest.raises(BindingError):
        bind(verified, context_like(shown.claims))


def test_evidence_of_a_session_shows_no_key():
    """And the other way round."""
    tee = Tee(vault_config())

    def relayed(spki):
        honest = message(spki, tee)
        session = tee.quote(context_like(honest.claims))
        return wrap(msgspec.structs.replace(honest, evidence=session))

    with pytest.raises(BindingError, match="another"):
        verify_shown(certificate(evidence_of=relayed), trust=trust(), now=NOW)


CLAIMS = {
    "role": "workload",
    "app": "bank",
    "image": "sha256:" + "ff" * 32,
    "config": "sha384:" + "ff" * 48,
    "boot": "boot-0",
    "instance": "",
}


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("name", CLAIMS)
def test_a_process_gets_no_certificate_about_another(name):
    """The quoting software compares every claim about code, start and instance."""
    tee = Tee(vault_config())
    honest = message(tee=tee).claims
    quotes = tee.quotes
    with pytest.raises((RoleDeniedError, MalformedError)):
        tee.certificate_quote(msgspec.structs.replace(honest, **{name: CLAIMS[name]}))
    assert tee.quotes == quotes


def test_the_certificate_names_the_instance_that_sessions_name():
    """The first quote pins it, whichever it is."""
    tee = Tee(vault_config())
    honest = message(tee=tee).claims
    with pytest.raises(RoleDeniedError):
        tee.quote(context_like(msgspec.structs.replace(honest, instance="another")))
    tee.quote(context_like(honest))


# --- lies -------------------------------------------------------------------------------


def changed(**changes):
    """Return a row: an honest message for the right key, but for the changes."""

    def make(spki):
        honest = message(spki)
        return wrap(msgspec.structs.replace(honest, **changes))

    return make


def claiming(**claims):
    """Return a row: other claims than those that were quoted."""

    def make(spki):
        honest = message(spki)
        return wrap(
            msgspec.structs.replace(honest, claims=msgspec.structs.replace(honest.claims, **claims))
        )

    return make


def of_another_key(_):
    """Somebody's honest evidence, copied into a certificate of one's own."""
    return wrap(message(SPKI))


def renamed_key(spki):
    """The same, with the key in the claims replaced."""
    honest = message(SPKI)
    return wrap(
        msgspec.structs.replace(honest, claims=msgspec.structs.replace(honest.claims, spki=spki))
    )


def quoted_lies(**claims):
    """Return a row: a quoting key that signs what it should not, registers untouched."""

    def make(spki):
        tee = Tee(workload_config(OWNER))
        honest = unwrap(own_evidence(tee, VAULT, spki, staple=True))
        lies = msgspec.structs.replace(honest.claims, **claims)
        evidence = tee.quoter(tee.bundle.measurement, report_data(lies))
        return wrap(CertificateMessage(evidence=evidence, claims=lies, config=honest.config))

    return make


OTHER = msgspec.structs.replace(vault_config(), app="other")
LIES = {
    "another key's evidence": (BindingError, "another key", of_another_key),
    "another key's evidence, renamed": (BindingError, "another", renamed_key),
    "another config beside it": (BindingError, "config", changed(config=OTHER)),
    "config and digest replaced": (
        BindingError,
        "another",
        lambda spki: wrap(
            msgspec.structs.replace(
                message(spki),
                config=OTHER,
                claims=msgspec.structs.replace(
                    message(spki).claims, config=config_digest(OTHER), app="other"
                ),
            )
        ),
    ),
    "another app than the config's": (BindingError, "config", claiming(app="other")),
    "another role than the config's": (BindingError, "config", claiming(role="workload")),
    "another image": (BindingError, "another", claiming(image="sha256:" + "ee" * 32)),
    "another boot": (BindingError, "another", claiming(boot="boot-9")),
    "another instance": (BindingError, "another", claiming(instance="sha256:" + "33" * 32)),
    "TDX: quoted, but RTMR3 has another image": (
        BindingError,
        "RTMR3",
        quoted_lies(image="sha256:" + "ee" * 32),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_certificate_that_lies_shows_nothing(lie):
    """Key, config, claims and registers all have to be those that were quoted."""
    expected, reason, make = LIES[lie]
    with pytest.raises(expected, match=reason):
        verify_shown(certificate(evidence_of=make), trust=trust(), now=NOW)


def test_a_root_that_was_not_asked_for_shows_nothing():
    """Whose evidence counts is the caller's word."""
    other = type(dev_pki()).create(NOW)
    with pytest.raises(EvidenceError) as refusal:
        verify_shown(certificate(), trust=(other.anchor(),), now=NOW)
    assert refusal.value.members["check"] == "anchor"


def test_a_certificate_without_evidence_says_so():
    """No evidence is no evidence, and not an error of the reader."""
    _, cert = make_certificate(now=NOW, lifetime=60)
    with pytest.raises(EvidenceError) as refusal:
        verify_shown(parse_certificate(cert.public_bytes(Encoding.DER)), trust=trust(), now=NOW)
    assert refusal.value.members["check"] == "missing"


# --- hostile bytes ----------------------------------------------------------------------


HONEST = encode(message())
WRAPPED = record(HONEST)
BOMB = b'{"claims":' + b"[" * 60_000
HOSTILE = {
    "nothing": (MalformedError, b""),
    "text": (MalformedError, b"evidence"),
    "nested arrays": (MalformedError, b"\x81" * 60_000),
    "an array of four thousand million": (MalformedError, b"\x9a" + b"\xff" * 4),
    "a byte string of 2**63": (MalformedError, WRAPPED[:39] + b"\x5b\x7f" + b"\xff" * 7 + b"\x04"),
    "trailing byte": (MalformedError, WRAPPED + b"\0"),
    "a second record": (MalformedError, WRAPPED + WRAPPED),
    "two pieces of evidence": (MalformedError, cbor2.dumps([MEDIA_TYPE, HONEST, 4, HONEST])),
    "cut": (MalformedError, WRAPPED[:-1]),
    "a collection": (MalformedError, cbor2.dumps({"a": [MEDIA_TYPE, HONEST, 4]})),
    "a tag": (MalformedError, cbor2.dumps(cbor2.CBORTag(60001, HONEST))),
    "a tagged record": (MalformedError, cbor2.dumps(cbor2.CBORTag(55799, [MEDIA_TYPE, HONEST, 4]))),
    "another media type": (MalformedError, record(HONEST, media="application/eat+cwt")),
    "media type in capitals": (MalformedError, record(HONEST, media=MEDIA_TYPE.upper())),
    "a content format": (MalformedError, record(HONEST, media=263)),
    "no indicator": (MalformedError, cbor2.dumps([MEDIA_TYPE, HONEST])),
    "endorsements": (MalformedError, record(HONEST, indicator=2)),
    "an indicator of two bytes": (MalformedError, WRAPPED[:-1] + b"\x18\x04"),
    "text in place of bytes": (MalformedError, record(HONEST.decode())),
    "an indefinite array": (MalformedError, b"\x9f" + WRAPPED[1:] + b"\xff"),
    "a length of four bytes": (
        MalformedError,
        WRAPPED[:39] + b"\x5a\0\0" + len(HONEST).to_bytes(2, "big") + HONEST + b"\x04",
    ),
    "not canonical JSON": (MalformedError, record(HONEST[:1] + b" " + HONEST[1:])),
    "an unknown member": (MalformedError, record(b'{"a":1,' + HONEST[1:])),
    "a member twice": (MalformedError, record(HONEST[:-1] + b',"config":null}')),
    "nested JSON": (MalformedError, record(BOMB)),
    "a message over the limit": (TooLargeError, record(b" " * (MAX_MESSAGE + 1))),
    "a megabyte": (TooLargeError, bytes(1 << 20)),
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_wrappers_are_refused_within_5_ms_without_crypto(attack, monkeypatch):
    """Each row raises its class, quickly, and no evidence is looked at."""
    monkeypatch.setattr("placet.ratls.wrapper.verify_evidence", None)
    expected, raw = HOSTILE[attack]
    peer = replace(certificate(), evidence=raw)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(expected):
            verify_shown(peer, trust=(), now=NOW, verify=None)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.req("R1.7")
@given(st.binary(max_size=500))
def test_noise_raises_our_errors_only(noise):
    """Whatever the bytes, nothing but a PlacetError leaves."""
    with pytest.raises(PlacetError):
        unwrap(noise)


@pytest.mark.req("R1.7")
@given(st.data())
def test_a_changed_wrapper_is_refused_or_says_something_else(data):
    """One encoding: changed bytes are another message, or none."""
    at = data.draw(st.integers(0, len(WRAPPED) - 1))
    raw = WRAPPED[:at] + bytes([WRAPPED[at] ^ data.draw(st.integers(1, 255))]) + WRAPPED[at + 1 :]
    try:
        found = unwrap(raw)
    except PlacetError:
        return
    assert wrap(found) == raw


def test_a_config_that_does_not_fit_is_refused_when_the_certificate_is_made():
    """The process learns it, not its peers."""
    long = msgspec.structs.replace(vault_config(), argv=("x" * 4000,) * 20)
    with pytest.raises(TooLargeError, match="config"):
        certificate(Tee(long))


def test_the_longest_message_fits_a_certificate():
    """What `wrap` lets through, `parse_certificate` reads."""
    make = lambda _: record(b" " * MAX_MESSAGE)  # noqa: E731
    _, cert = make_certificate(now=NOW, lifetime=60, evidence_of=make)
    der = cert.public_bytes(Encoding.DER)
    assert len(der) <= MAX_CERTIFICATE
    assert len(parse_certificate(der, allowed=WITH_EVIDENCE).evidence) == len(make(""))


def test_what_was_not_asked_for_is_refused():
    """Where evidence is not expected, a certificate that carries some is not taken."""
    with pytest.raises(EvidenceError, match="unknown extension"):
        parse_certificate(certificate().der, allowed=ALLOWED)


def test_evidence_that_calls_itself_critical_is_refused(ends):
    """A reader that need not look must not be told that it has to."""
    der = certificate().der
    shown = load_der_x509_certificate(der).extensions[1].value
    basic = (ends.NO_CA, True)
    made = ends.der(ends.certificate(ends.p256, extensions=(basic, (shown, True))))
    with pytest.raises(EvidenceError, match="critical"):
        parse_certificate(made, allowed=WITH_EVIDENCE)


def test_sgx_shows_its_config_by_its_measurement():
    """An enclave has no register for it: MRENCLAVE stands for what it says."""
    shown = verify_shown(certificate(), trust=trust(), now=NOW)
    assert isinstance(shown.evidence.measurement, SgxMeasurement)
