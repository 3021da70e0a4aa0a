"""Passkey assertions, verified by the vault itself (WebAuthn Level 3, section 7.2).

A parser of our own for the three fixed shapes that matter, because whoever parses decides
what was signed: clientDataJSON, authenticator data and the COSE key. The steps carry the
numbers of spec/03, section 2.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NoReturn

from placet.core.dsse import verify_signature
from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_CLIENT_DATA
from placet.core.signer import PasskeySignature, PasskeySigner
from placet.errors import ApprovalError, MalformedError, TooLargeError, VerificationError

Algorithm = Literal["ed25519", "p256"]

AUTHENTICATOR_DATA_SIZE = 37
"""RP ID hash (32), flags (1), counter (4): an assertion without extensions has no more."""

_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP = 0x01, 0x04, 0x08, 0x10

# CTAP2 canonical CBOR leaves one spelling of each key (RFC 9052, section 7; RFC 9053).
_es256 = bytes.fromhex("a5010203262001215820"), bytes.fromhex("225820")
_eddsa = bytes.fromhex("a4010103272006215820")


def parse_cose_key(raw: bytes) -> tuple[Algorithm, bytes]:
    """Return algorithm and public key of a COSE_Key in CTAP2 canonical form.

    That the point is on its curve is *not* checked here (`signer_key_check` does).

    Args:
        raw: ES256 (77 bytes) or EdDSA over Ed25519 (42 bytes), with no further member.

    Returns:
        ``p256`` and the 65-byte uncompressed point, or ``ed25519`` and 32 bytes.

    Raises:
        MalformedError: Anything else, another encoding of the same key included.
    """
    x, y = raw[10:42], raw[45:]
    if raw == _es256[0] + x + _es256[1] + y and len(y) == 32:  # noqa: PLR2004 - a coordinate
        return "p256", b"\x04" + x + y
    if raw == _eddsa + x and len(x) == 32:  # noqa: PLR2004 - an Ed25519 key
        return "ed25519", x
    raise MalformedError(
        "passkey's public key is no ES256 or EdDSA COSE_Key in CTAP2 canonical form"
    )


def verify_assertion(signer: PasskeySigner, signature: PasskeySignature, challenge: bytes) -> None:
    """Check that this passkey approved ``challenge``, with its person present and verified.

    The signature counter is *not* checked: synced passkeys have none, and vaults share no
    state. Nor is attestation of the authenticator; the owner chose the key.

    Args:
        signer: The passkey as the policy names it.
        signature: A whole assertion, as the client returned it.
        challenge: The 32 bytes of the statement's digest.

    Raises:
        ApprovalError: The assertion is about something else, or does not hold.
        MalformedError: A part of it does not parse.
    """
    client_data = unb64(signature.client_data)
    authenticator_data = unb64(signature.authenticator_data)
    # 2.1 The browser asked this authenticator, on an origin of the owner's, about D.
    _check_client_data(signer, client_data, challenge)
    # 2.2 The authenticator answered for this relying party, and saw and verified a person.
    _check_authenticator_data(signer, authenticator_data)
    # 2.3 It signed both.
    algorithm, public_key = parse_cose_key(unb64(signer.public_key))
    message = authenticator_data + hashlib.sha256(client_data).digest()
    try:
        verify_signature(algorithm, public_key, unb64(signature.signature), message)
    except VerificationError as e:
        raise ApprovalError(f"assertion of passkey {signer.label!r} does not hold") from e


def _check_client_data(signer: PasskeySigner, raw: bytes, challenge: bytes) -> None:
    data = _parse_client_data(raw)
    _expect("type", data.get("type"), ("webauthn.get",))
    _expect("challenge", data.get("challenge"), (b64(challenge),))
    _expect("origin", data.get("origin"), signer.origins)
    # An ancestor of another origin could have drawn over what was approved.
    if data.get("crossOrigin") is not False or "topOrigin" in data:
        raise ApprovalError("assertion was made in a frame of another origin, or does not say")


def _parse_client_data(raw: bytes) -> dict[str, object]:
    if len(raw) > MAX_CLIENT_DATA:
        raise TooLargeError(f"clientDataJSON is {len(raw)} bytes, at most {MAX_CLIENT_DATA}")
    try:
        data = json.loads(raw.decode(), object_pairs_hook=_members, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise MalformedError(f"clientDataJSON does not parse: {e}"[:300]) from e
    if not isinstance(data, dict):
        raise MalformedError("clientDataJSON is no object")
    return data


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    # Browsers add members and say that they may (section 5.8.1), so unknown ones pass. All
    # that Level 3 defines for an assertion are flat; what is not is of another protocol.
    if any(isinstance(value, dict | list) for value in members.values()):
        raise ValueError("a member is an object or an array")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _expect(name: str, came: object, expected: tuple[str, ...]) -> None:
    if came not in expected:
        raise ApprovalError(
            f"assertion's {name} is {came!r}, expected {' or '.join(expected)}"[:600]
        )


def _check_authenticator_data(signer: PasskeySigner, data: bytes) -> None:
    if len(data) < AUTHENTICATOR_DATA_SIZE:
        raise MalformedError(
            f"authenticator data is {len(data)} bytes, expected {AUTHENTICATOR_DATA_SIZE}"
        )
    if data[:32] != hashlib.sha256(signer.rp_id.encode()).digest():
        raise ApprovalError(f"assertion was made for another relying party than {signer.rp_id}")
    flags = data[32]
    if not flags & _PRESENT or not flags & _VERIFIED:
        raise ApprovalError(
            "authenticator did not verify its user",
            "Ask for the assertion with userVerification: required.",
        )
    if flags & _BACKED_UP and not flags & _ELIGIBLE:
        raise ApprovalError("passkey is backed up and may not be: flags contradict each other")
    # Credential data belongs to registrations; extensions and reserved bits are unknown here.
    extra = flags & ~(_PRESENT | _VERIFIED | _ELIGIBLE | _BACKED_UP)
    if extra or len(data) != AUTHENTICATOR_DATA_SIZE:
        raise ApprovalError(
            f"authenticator data has flags {flags:#04x} and {len(data)} bytes: more than a "
            "plain assertion",
            "Ask for the assertion without extensions.",
        )
