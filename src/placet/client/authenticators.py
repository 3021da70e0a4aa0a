"""What every authenticator has in common: the credential it made, and the tap it gave.

Whether a browser or a security key was asked, the same bytes come back: client data that
says what was asked where, and authenticator data that says who answered. Vaults verify a
tap by themselves (`placet.policy.webauthn`); the owner's tool does so first, so that
nothing leaves this machine which no vault would take.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import msgspec

from placet.core.encoding import b64
from placet.core.limits import MAX_CLIENT_DATA
from placet.core.signer import PasskeySignature, PasskeySigner, signer_id
from placet.core.statement import UntrustedStatement, compose
from placet.errors import ApprovalError, MalformedError, TooLargeError
from placet.policy.signers import signer_key_check
from placet.policy.webauthn import parse_cose_key, verify_assertion

Screen = Literal["own", "page"]
ALGORITHMS = (-7, -8)
"""COSE numbers of ES256 and EdDSA, the first one first (RFC 9053)."""

_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP, _ATTESTED, _EXTENDED = 1, 4, 8, 16, 64, 128
_HEADER = 55
"""RP ID hash (32), flags (1), counter (4), AAGUID (16), length of the credential id (2)."""
_KEY_SIZES = (77, 42)
"""Bytes of a COSE key: ES256, EdDSA over Ed25519."""
_PROBE = (
    "a50102032620012158206b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "2258204fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""The base point of P-256, in the place of a key that is not made yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A credential that is asked for: how it will be called, and where it may answer."""

    label: str
    rp_id: str
    origins: tuple[str, ...]
    """The first is the one that the owner's own tool uses."""
    screen: Screen
    challenge: bytes
    """Drawn for this enrolment alone."""
    user: bytes
    """Random as well: one that came twice would replace the credential before it."""
    known: tuple[str, ...] = ()
    """Ids of credentials whose authenticators shall not make another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A new credential, as a policy names it."""

    signer: PasskeySigner
    synced: bool
    """Its vendor may keep copies of it, and whoever has that account may have it."""


def challenge_of(sent: UntrustedStatement) -> bytes:
    """Return what an authenticator signs for a statement: the 32 bytes of its digest."""
    return bytes.fromhex(sent.digest.removeprefix("sha256:"))


def enrolled(wanted: Wanted, client_data: bytes, authenticator_data: bytes) -> Enrolled:
    """Return the signer that an authenticator's answer makes.

    Who built the authenticator is *not* checked, nor asked for: the owner holds it.

    Args:
        wanted: What was asked.
        client_data: clientDataJSON of the answer.
        authenticator_data: As the authenticator made it, with the new key in it.

    Raises:
        ApprovalError: The answer is to another question, or nobody was verified.
        MalformedError: It does not parse, or the key is of a kind that vaults do not take.
    """
    _check_client_data(wanted, client_data)
    flags, credential_id, key = _credential(authenticator_data)
    if authenticator_data[:32] != hashlib.sha256(wanted.rp_id.encode()).digest():
        raise ApprovalError(f"the new credential is for another relying party than {wanted.rp_id}")
    if not flags & _PRESENT or not flags & _VERIFIED:
        raise ApprovalError(
            "the authenticator did not verify its user",
            "Set a PIN or a fingerprint on it first; each approval will ask for that.",
        )
    signer = PasskeySigner(
        label=wanted.label,
        rp_id=wanted.rp_id,
        origins=wanted.origins,
        credential_id=b64(credential_id),
        public_key=b64(key),
        screen=wanted.screen,
    )
    signer_key_check(signer)
    # Texts may be too long for a policy; it is told here, not by the vaults later.
    signer = _as_policies_read(signer)
    return Enrolled(signer=signer, synced=bool(flags & (_ELIGIBLE | _BACKED_UP)))


def check_wanted(wanted: Wanted) -> None:
    """Refuse a name, RP ID or origin that no policy takes, before anybody is asked to tap.

    Raises:
        MalformedError: See its text.
    """
    probe = PasskeySigner(
        label=wanted.label,
        rp_id=wanted.rp_id,
        origins=wanted.origins,
        credential_id=b64(b"-"),
        public_key=b64(bytes.fromhex(_PROBE)),
        screen=wanted.screen,
    )
    signer_key_check(_as_policies_read(probe))


def assertion(
    signer: PasskeySigner, *, client_data: bytes, authenticator_data: bytes, signature: bytes
) -> PasskeySignature:
    """Return an assertion as statements carry it; nothing of it is checked."""
    return PasskeySignature(
        signer=signer_id(signer),
        authenticator_data=b64(authenticator_data),
        client_data=b64(client_data),
        signature=b64(signature),
    )


def attach(
    sent: UntrustedStatement, signer: PasskeySigner, approval: PasskeySignature
) -> UntrustedStatement:
    """Return the statement with an approval added, once it holds as vaults will see it.

    Raises:
        ApprovalError, MalformedError: See `verify_assertion`; nothing is attached then.
    """
    if approval.signer != signer_id(signer):
        raise ApprovalError(f"the approval is not of passkey {signer.label!r}")
    verify_assertion(signer, approval, challenge_of(sent))
    return compose(sent.statement, (*sent.signatures, approval))


def _check_client_data(wanted: Wanted, raw: bytes) -> None:
    if len(raw) > MAX_CLIENT_DATA:
        raise TooLargeError(f"clientDataJSON is {len(raw)} bytes, at most {MAX_CLIENT_DATA}")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise MalformedError("clientDataJSON of the new credential does not parse") from e
    if not isinstance(data, dict):
        raise MalformedError("clientDataJSON of the new credential is no object")
    expected = {
        "type": "webauthn.create",
        "challenge": b64(wanted.challenge),
        "origin": wanted.origins[0],
        "crossOrigin": False,
    }
    for name, value in expected.items():
        # Older browsers leave `crossOrigin` out where it is false (Level 2).
        came = data.get(name, False if name == "crossOrigin" else None)
        if came != value:
            raise ApprovalError(
                f"{name} of the new credential is {came!r}, expected {value!r}"[:600]
            )


def _credential(data: bytes) -> tuple[int, bytes, bytes]:
    """Return flags, credential id and COSE key of a registration's authenticator data."""
    if len(data) < _HEADER or not data[32] & _ATTESTED:
        raise MalformedError("authenticator data of the new credential holds no credential")
    flags, length = data[32], int.from_bytes(data[_HEADER - 2 : _HEADER], "big")
    credential_id, rest = data[_HEADER : _HEADER + length], data[_HEADER + length :]
    if len(credential_id) != length:
        raise MalformedError("authenticator data of the new credential is cut short")
    for size in _KEY_SIZES:
        try:
            parse_cose_key(rest[:size])
        except MalformedError:
            continue
        # What extensions say comes after the key; some authenticators say it unasked.
        if len(rest) > size and not flags & _EXTENDED:
            break
        return flags, credential_id, rest[:size]
    raise MalformedError(
        "the new credential's key is none that vaults take: ES256 or EdDSA, in canonical form",
        "Enrol another authenticator.",
    )


def _as_policies_read(signer: PasskeySigner) -> PasskeySigner:
    try:
        return msgspec.convert(msgspec.to_builtins(signer), PasskeySigner)
    except msgspec.ValidationError as e:
        raise MalformedError(f"no policy can name this passkey: {e}") from e
