"""Who signed a statement (DESIGN section 4, "Signer"; spec/03, section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from placet.core.dsse import pae, verify_signature
from placet.core.encoding import unb64
from placet.core.limits import MAX_CREDENTIAL_ID, MAX_SIGNERS
from placet.core.signer import (
    KeySignature,
    KeySigner,
    OidcSignature,
    OidcSigner,
    OwnKeySigner,
    PasskeySignature,
    PasskeySigner,
    Signature,
    Signer,
    signer_id,
)
from placet.core.statement import STATEMENT_TYPE, UntrustedStatement
from placet.errors import ApprovalError, MalformedError, TooLargeError, VerificationError
from placet.policy.oidc import VerifiedToken, oidc_signer_check, verify_id_token
from placet.policy.points import check_ed25519
from placet.policy.webauthn import Algorithm, parse_cose_key, verify_assertion

_origin = re.compile(
    r"(?:https://(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)*)|http://(?P<local>localhost))"
    r"(?::[1-9][0-9]{0,4})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignatures:
    """Whose signatures over one statement held. Made by `verify_signatures` only.

    Whether these people suffice is *not* part of it: see `placet.policy.principal.require`.
    """

    statement: str
    """Digest of the statement that they signed."""
    signers: frozenset[str]
    """Signer ids; each signer once, however often it signed."""
    strangers: frozenset[str]
    """Ids that were claimed and are of no given signer. Nothing of theirs was checked."""
    tokens: tuple[VerifiedToken, ...] = ()
    """Of the OIDC signers among them."""


def verify_signatures(
    untrusted: UntrustedStatement, signers: Iterable[Signer]
) -> VerifiedSignatures:
    """Return who of ``signers`` signed this very statement.

    A stranger's signature is passed over. One that claims a known signer and does not hold
    refuses the whole: nothing honest makes it, and who relays statements can drop them
    anyway.

    Args:
        untrusted: A parsed statement and the signatures sent with it.
        signers: Those who count, of well-formed keys (`signer_key_check`).

    Raises:
        ApprovalError: A signature does not hold, or nobody known signed.
        MalformedError: A signature does not parse, or there are too many.
    """
    if len(untrusted.signatures) > MAX_SIGNERS:
        raise TooLargeError(f"{len(untrusted.signatures)} signatures, at most {MAX_SIGNERS}")
    known = {signer_id(signer): signer for signer in signers}
    claimed = frozenset(signature.signer for signature in untrusted.signatures)
    tokens = [
        _verify(untrusted, known[signature.signer], signature)
        for signature in untrusted.signatures
        if signature.signer in known
    ]
    if not claimed & known.keys():
        raise ApprovalError(
            f"statement {untrusted.digest} is signed by nobody who may, "
            f"and by {len(claimed)} strangers"
        )
    return VerifiedSignatures(
        statement=untrusted.digest,
        signers=claimed & known.keys(),
        strangers=claimed - known.keys(),
        tokens=tuple(t for t in tokens if t is not None),
    )


def signer_key(signer: OwnKeySigner) -> tuple[Algorithm, bytes]:
    """Return a signer's algorithm and raw public key, whichever kind it is of.

    Raises:
        MalformedError: The key is not written in the one accepted way.
    """
    raw = unb64(signer.public_key)
    return (signer.algorithm, raw) if isinstance(signer, KeySigner) else parse_cose_key(raw)


def signer_identity(signer: Signer) -> tuple[str, bytes]:
    """Return what makes a signer that one: its raw key, or its id at its provider.

    One key is no two signers as a key and as a passkey, under any label.
    """
    if isinstance(signer, OidcSigner):
        return "oidc", signer_id(signer).encode()
    return signer_key(signer)


def signer_key_check(signer: Signer) -> None:
    """Refuse a signer that could never sign, or for whom anybody could.

    That somebody holds the private key is *not* checked.

    Raises:
        MalformedError: A key that is no point, or one of small order; a passkey whose
            origins are not secure ones of its relying party; a provider's unfit keys.
    """
    if isinstance(signer, OidcSigner):
        oidc_signer_check(signer)
        return
    algorithm, raw = signer_key(signer)
    try:
        (_check_p256 if algorithm == "p256" else check_ed25519)(raw)
    except ValueError as e:
        raise MalformedError(f"{algorithm} key of signer {signer.label!r} is unfit: {e}") from e
    if isinstance(signer, PasskeySigner):
        _check_passkey(signer)


def _verify(
    untrusted: UntrustedStatement, signer: Signer, signature: Signature
) -> VerifiedToken | None:
    challenge = bytes.fromhex(untrusted.digest.removeprefix("sha256:"))
    if isinstance(signer, OidcSigner) and isinstance(signature, OidcSignature):
        statement = untrusted.statement
        return verify_id_token(
            signer,
            signature,
            nonce=challenge,
            issued_at=statement.issued_at,
            expires_at=statement.expires_at,
        )
    if isinstance(signer, PasskeySigner) and isinstance(signature, PasskeySignature):
        verify_assertion(signer, signature, challenge)
    elif isinstance(signer, KeySigner) and isinstance(signature, KeySignature):
        message = pae(STATEMENT_TYPE, untrusted.payload)
        algorithm, public_key = signer_key(signer)
        try:
            verify_signature(algorithm, public_key, unb64(signature.signature), message)
        except VerificationError as e:
            raise ApprovalError(f"signature of {signer.label!r} does not hold: {e}") from e
    else:
        raise ApprovalError(f"signature of {signer.label!r} is not of that signer's kind")
    return None


def _check_p256(raw: bytes) -> None:
    # One key, one spelling: the compressed form would be another signer id.
    if raw[:1] != b"\x04":
        raise ValueError("not an uncompressed point")
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)


def _check_passkey(signer: PasskeySigner) -> None:
    if not 1 <= len(unb64(signer.credential_id)) <= MAX_CREDENTIAL_ID:
        raise MalformedError(f"credential id of passkey {signer.label!r} has no possible length")
    for origin in signer.origins:
        match = _origin.fullmatch(origin)
        host = (match["host"] or match["local"]) if match else None
        if host is None or not ("." + host).endswith("." + signer.rp_id):
            raise MalformedError(
                f"origin {origin} of passkey {signer.label!r} is no secure origin of "
                f"{signer.rp_id!r}",
                "Write https://HOST[:PORT] with a host at or under the RP ID.",
            )
